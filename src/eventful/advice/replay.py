"""A policy's decisions on a video, from its pixels and from what some dense frames showed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

from eventful.advice.footage import Footage
from eventful.advice.samples import Sample, Window
from eventful.policies import Auto
from eventful.stream.automatic import Automatic
from eventful.stream.costs import Costs
from eventful.stream.estimate import Estimate
from eventful.stream.gain import SHARES
from eventful.stream.plan import Check, Kind


class Step(NamedTuple):
    """What a frame would be given.

    Attributes:
        kind: As in `stats.rows`.
        tokens: How many patches a partial frame computes.
    """

    kind: Kind
    tokens: int = 0


@final
@dataclass(frozen=True)
class Price:
    """Both costs of frames.

    Attributes:
        timed: In milliseconds.
        counted: In operations.
        dense_ms: Time of the model without a stream.
    """

    timed: Costs
    counted: Costs
    dense_ms: float

    def operations(self, steps: Sequence[Step]) -> float:
        """Mean share of the dense model's operations."""
        return sum(_cost(step, self.counted) for step in steps) / len(steps) / self.counted.dense

    def milliseconds(self, steps: Sequence[Step]) -> float:
        """Mean time of a frame."""
        return sum(_cost(step, self.timed) for step in steps) / len(steps)


def _cost(step: Step, costs: Costs) -> float:
    named = {"dense": costs.dense, "held": costs.held, "carried": costs.carried}
    return named[step.kind] if step.kind in named else costs.of(step.tokens)


def replay(
    policy: Auto, costs: Costs, patches: int, footage: Footage, seen: Sequence[Window]
) -> list[Step]:
    """Let a policy decide about the frames of a video that it has not run.

    It decides by the pictures' distances, as in a stream. What its dense frames would show is taken
    from the nearest window, at the nearest age, and scaled to the distance.

    Args:
        policy: With an error to hold.
        costs: What frames cost.
        patches: Tokens that may be chosen.
        footage: The video.
        seen: What dense frames showed.
    """
    return [*_Replay(policy, costs, patches, footage, seen).steps()]


class _Replay:
    def __init__(
        self, policy: Auto, costs: Costs, patches: int, footage: Footage, seen: Sequence[Window]
    ) -> None:
        self._plan = Automatic(policy, costs, patches)
        self._patches, self._footage, self._seen = patches, footage, seen
        self._before = self._level = self._turn = 0

    def steps(self) -> Iterator[Step]:
        footage, cuts = self._footage, {*self._footage.cuts}
        yield Step("dense")
        for frame in range(1, footage.frames):
            if frame in cuts:
                self._plan.begin(cut=True)
                step = Step("dense")
            else:
                still = frame in footage.still
                distance = None if still else footage.distance(self._before, frame)
                step = self._step(frame, distance)
            if step.kind == "dense":
                self._before, self._level = frame, 0
            elif step.kind == "partial":
                shares = enumerate(SHARES)
                self._level = max(n for n, s in shares if int(s * self._patches) <= step.tokens)
            yield step

    def _step(self, frame: int, distance: float | None) -> Step:
        choice = self._plan.decide(distance)
        if choice.kind == "dense" and distance is not None:
            check = self._check(frame, distance)
            if check is not None:
                self._plan.learn(check)
        return Step(choice.kind, choice.tokens)

    def _check(self, frame: int, distance: float) -> Check | None:
        """What a dense frame would show."""
        age = frame - self._before
        self._turn += 1
        near = sorted(self._seen, key=lambda window: window.away(frame))
        for level in dict.fromkeys((self._level, 0)):
            for window in near:
                sample = window.nearest(level, age, self._turn)
                if sample is not None:
                    return _scaled(sample, distance)
        return None


def _scaled(sample: Sample, distance: float) -> Check:
    """What a sample shows, at another distance."""
    least, check = Estimate.LEAST, sample.check
    factor = (max(distance, least) / max(sample.distance, least)) ** Estimate.POWER
    return check._replace(
        shown=check.shown * factor,
        held=check.held * factor,
        squares=check.squares * factor**2,
        change=check.change * factor**2,
    )
