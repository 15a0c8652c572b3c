"""What to do between dense frames: hold, move or recompute tokens; what it gains and costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from eventful.stream.costs import Costs
from eventful.stream.estimate import CAUSAL, Sides

SHARES = 0.0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4  # of the patches, that may be recomputed
HELD = -1  # the level at which nothing is recomputed, nor moved
LEVELS = *range(len(SHARES)), HELD
_TINY = torch.finfo(torch.float32).tiny
MOVING = 0.1  # of the patches: those whose tokens change most


@dataclass
class Gain:
    """What would be left of the error of a moved output, had something else been shown.

    Every dense frame shows it, whether tokens were recomputed before or not: the true error of each
    patch beside the order in which patches would have been chosen. Recomputing those of the m-th
    share on every frame leaves

        rho(m) = sqrt(1 - captured[m])

    of the error, as long as recomputed tokens come out right. Beside it stands the error of the
    last dense output as it stood.

    Attributes:
        captured: Over all patches, for each of `SHARES`.
        moving: Over the tenth of the patches whose tokens change most.
        held: Error of the output held over that of the output moved, right after a dense frame,
            over all patches.
        held_moving: Over the tenth of the patches with the largest errors of both.
        sharp: Error on that tenth over the error on all patches, both relative.
        checks: Dense frames that they rest on.
    """

    FOLLOW: ClassVar[float] = 0.3
    PRIOR: ClassVar[tuple[float, ...]] = (0.0, 0.05, 0.09, 0.16, 0.28, 0.48)

    captured: list[float] = field(default_factory=lambda: list(Gain.PRIOR))
    moving: list[float] = field(default_factory=lambda: list(Gain.PRIOR))
    held: float = 1.15
    held_moving: float = 1.15
    checks: int = 0
    sharp: float = 1.0

    def rest(self, level: int, sides: Sides = CAUSAL) -> float:
        """Rho over all patches."""
        return self.held if level == HELD else _rest(sides.worth * self.captured[level])

    def rest_of_moving(self, level: int, sides: Sides = CAUSAL) -> float:
        """Rho over the patches that move."""
        return self.held_moving if level == HELD else _rest(sides.worth * self.moving[level])

    def on_moving(self, level: int) -> float:
        """Error on the patches that move over that on all, as they are shown at a level."""
        return self.sharp * self.rest_of_moving(level) / self.rest(level)

    def learn(self, squares: Tensor, wanted: Tensor, change: Tensor) -> None:
        """Take in what a dense frame shows of recomputing.

        Args:
            squares: (patches,) squared error of what would have been shown.
            wanted: (patches,) by how much each patch asks to be recomputed.
            change: (patches,) squared change of its token since the last dense frame.
        """
        self.checks += 1
        weight = self._weight
        order = wanted.argsort(descending=True)
        moves = change.topk(_moving(change)).indices
        own = squares.new_zeros(len(squares)).index_fill(0, moves, 1.0) * squares
        sharp = math.sqrt((own.sum() / squares.sum().clamp_min(_TINY)).item() / MOVING)
        self.sharp += weight * (sharp - self.sharp)
        for known, parts in ((self.captured, squares), (self.moving, own)):
            sums = parts[order].cumsum(0)
            total = sums[-1].item()
            for level, share in enumerate(SHARES):
                count = int(share * len(order))
                if count and total > 0:
                    known[level] += weight * (sums[count - 1].item() / total - known[level])

    def learn_held(self, age: int, squares: Tensor, change: Tensor) -> None:
        """Take in, after `learn`, what the same frame shows of holding.

        Args:
            age: Frames since the dense frame before.
            squares: As for `learn`.
            change: The same.
        """
        wrong = (squares + change).topk(_moving(change)).indices
        early = age ** (GROWTH - GROWTH_HELD)
        self.held += self._weight * (early * _ratio(change, squares) - self.held)
        of_moving = early * _ratio(change[wrong], squares[wrong])
        self.held_moving += self._weight * (of_moving - self.held_moving)

    @property
    def _weight(self) -> float:
        """Of the latest dense frame."""
        return max(self.FOLLOW, 1 / (self.checks + 0.5))


def _moving(change: Tensor) -> int:
    """How many patches are a tenth."""
    return max(1, int(MOVING * len(change)))


def _rest(captured: float) -> float:
    return math.sqrt(max(0.01, 1 - captured))


def _ratio(squares: Tensor, over: Tensor) -> float:
    """Root of the ratio of two sums of squares, within reason."""
    ratio = squares.sum() / over.sum().clamp_min(torch.finfo(over.dtype).tiny)
    return ratio.sqrt().clamp(1 / MOST, MOST).item()


MARGIN = 1.03  # by which recomputing tokens, or holding, must seem better than moving alone
MOST = 4.0  # error of the output held over that of the output moved
GROWTH = 0.35  # error grows with age to this power, in the mean over clips
GROWTH_HELD = 0.41  # and that of an output that is not moved to this one


def mean_growth(apart: float, growth: float = GROWTH, sides: Sides = CAUSAL) -> float:
    """Mean error with dense frames so far apart, over the error of the first frame after one.

    Example:
        >>> mean_growth(1.0), mean_growth(2.0), round(mean_growth(5.0), 3)
        (0.0, 0.5, 1.074)
        >>> round(mean_growth(5.0, sides=Sides(ahead=8)), 3)
        0.842
    """
    whole = int(apart)
    ages = [age**growth for age in range(1, whole + 1)]
    less, more = sum(sides.shown(ages[:-1])), sum(sides.shown(ages))
    return (less + (apart - whole) * (more - less)) / apart


def apart_at(share: float, each: float) -> float:
    """How far apart dense frames are at a mean cost, if the frames between them cost `each`.

    Both are shares of a dense frame's cost. Infinite if nothing is left for dense frames.
    """
    return (1 - each) / (share - each) if share > each else math.inf


def cost_at(level: int, costs: Costs, patches: int, sides: Sides = CAUSAL) -> float:
    """What a frame costs at a level, over a dense frame's cost."""
    if level == HELD:
        return costs.held / costs.dense
    back = costs.back / costs.dense if sides.ahead else 0.0
    return min(1.0, costs.share(int(SHARES[level] * patches)) + back)


def levels(sides: Sides) -> tuple[int, ...]:
    """What may be done between dense frames; what is seen from both sides is always moved."""
    return LEVELS[:-1] if sides.ahead else LEVELS


def _growth(level: int) -> float:
    return GROWTH_HELD if level == HELD else GROWTH


def best_for_budget(
    share: float, costs: Costs, gain: Gain, patches: int, sides: Sides = CAUSAL
) -> int:
    """The level with the least error on what moves, at a mean share of a dense cost.

    What moves is what most tasks are about, and the still rest hardly differs between the levels.
    """

    def error(level: int) -> float:
        apart = apart_at(share, cost_at(level, costs, patches, sides))
        if apart > LONGEST:
            return math.inf
        grown = mean_growth(apart, _growth(level), sides)
        return gain.rest_of_moving(level, sides) * grown * (MARGIN if level else 1)

    return min(levels(sides), key=error)


def best_for_error(
    target: float, first: float, costs: Costs, gain: Gain, patches: int, sides: Sides = CAUSAL
) -> int:
    """The level that costs least at a mean error.

    Args:
        target: The mean error.
        first: The usual error of the first frame after a dense one.
        costs: What frames cost.
        gain: What recomputed tokens are worth.
        patches: Tokens that may be chosen.
        sides: Where frames between dense ones are seen from.
    """

    def cost(level: int) -> float:
        reach = target / max(1e-9, gain.rest(level, sides) * first)
        grown = (mean_growth(x, _growth(level), sides) for x in range(1, LONGEST + 1))
        apart = max(1, sum(error <= reach for error in grown))
        each = cost_at(level, costs, patches, sides)
        return (1 + (apart - 1) * each) / apart * (MARGIN if level else 1)

    return min(levels(sides), key=cost)


LONGEST = 45  # frames between two dense ones, at most: errors are checked nowhere else
