"""One budget for several streams: dense frames go to where a frame brings most."""

from __future__ import annotations

import math
from itertools import count
from threading import Lock
from typing import Any, ClassVar, NamedTuple, final

from eventful.policies import Auto
from eventful.stream.costs import Costs, Unit


class Wish(NamedTuple):
    """What a row of a stream could have beyond what it is given anyway.

    Attributes:
        saves: Error that a dense frame would spare; 0 where none is wanted.
        earned: What the frame brings into the account.
        usual: What it costs if it is not dense.
        dense: What it costs if it is.
    """

    saves: float
    earned: float
    usual: float
    dense: float

    @property
    def extra(self) -> float:
        """What a dense frame costs more."""
        return max(self.dense - self.usual, 1e-12)

    @property
    def worth(self) -> float:
        """Error saved for each unit of cost."""
        return self.saves / self.extra


@final
class Budget:
    """An account that streams share, each in a thread of its own if need be.

    Give it to streams under `Auto(share=...)` or `Auto(time=...)`. Every frame earns its share and
    pays what it costs, into and out of the common account, so that the mean cost is the same as
    without. But dense frames go to the streams on which they save most, by the Whittle index of
    what ages (Kadota et al., "Scheduling policies for minimizing age of information in broadcast
    wireless networks", 2018): with e_j the error of what was shown on the j-th frame since the
    last dense one, `index` weighs the error now, had it stood all the time, against what there was.
    Errors are those on the patches that move, as far as dense frames have told them.

    *Rounds.* A round ends when a stream comes for the second time. Before each, the account pays
    for the streams of the last one in the order of their index over what a dense frame costs more,
    as far as it reaches; where it ends is the price, for streams that come more rarely. So a round
    over all streams costs nearly the same each time. Where it pays for one or two dense frames and
    a little more, that goes to tokens of the next streams in line; saved up, it would make every
    few rounds cost far more. There is no list of streams: one that comes no longer has no part in
    the next round.

    Raises:
        ValueError: Streams count their costs in different units.

    Example:
        >>> import timm, torch, eventful
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5).eval()
        >>> _ = eventful.convert(model, policy=Auto(share=0.3))
        >>> budget = Budget()
        >>> still, moving = (eventful.Stream(model, budget=budget, scene_cuts=None) for _ in "ab")
        >>> frames = torch.rand(40, 1, 3, 64, 64)
        >>> for frame in frames:
        ...     _ = still(frames[0]), moving(frame)
        >>> still.stats.kinds["dense"], moving.stats.kinds["dense"] > 12
        (1, True)
    """

    PAST: ClassVar[float] = 0.75  # of earlier errors; 1 forgets an error that stays as it is
    FEW: ClassVar[int] = 3  # dense frames in a round, below which one more is a burst
    PART: ClassVar[float] = 0.25  # of a dense frame, at most, that tokens may cost

    def __init__(self) -> None:
        self._lock, self._ids = Lock(), count()
        self._unit: Unit | None = None
        self._credit, self._most = 0.0, math.inf  # of credit that is saved up
        self._round: dict[int, Wish] = {}
        self._known: frozenset[int] = frozenset()
        self._chosen: set[int] = set()
        self._parts: dict[int, float] = {}
        self._price = math.inf

    @property
    def credit(self) -> float:
        """What is in the account, in operations or in milliseconds; below 0 it is owed."""
        return self._credit

    @property
    def price(self) -> float:
        """Error that a unit of cost has to save in this round; infinite if nothing is left."""
        return self._price

    @classmethod
    def index(cls, age: int, error: float, before: float) -> float:
        """What a dense frame would save.

            W = (age + 1) e_age - 0.75 (e_1 + ... + e_age)

        Args:
            age: Frames since the last dense one.
            error: Estimated error of what is shown now.
            before: Sum of the errors since the last dense frame, this one's included.

        Example:
            >>> Budget.index(1, 0.2, 0.2), round(Budget.index(3, 0.4, 0.9), 3)
            (0.25, 0.925)
        """
        return (age + 1) * error - cls.PAST * before

    def join(self, unit: Unit) -> int:
        """Take in a row of a stream; returns what it goes by.

        Raises:
            ValueError: The others count in another unit.
        """
        with self._lock:
            if self._unit not in (None, unit):
                raise ValueError(
                    f"streams that share a budget count the same: this one counts {unit}, the "
                    f"others {self._unit}; give all of them share=... or all of them time=..."
                )
            self._unit = unit
            return next(self._ids)

    def ask(self, row: int, wish: Wish) -> float:
        """What a frame may cost more than usual: as much as a dense one, a part of it, or 0."""
        with self._lock:
            if row in self._round:
                self._turn()
            self._round[row] = wish
            rare = row not in self._known and 0 < wish.extra <= self._credit
            if row in self._chosen or (rare and wish.worth > self._price):
                self._chosen.discard(row)
                self._round[row] = wish._replace(saves=0.0)  # of the dense frame to come
                return wish.extra
            return self._parts.pop(row, 0.0)

    def pay(self, wish: Wish, cost: float) -> None:
        """Enter what a frame that has asked has earned and cost."""
        with self._lock:
            self._credit = min(self._most, self._credit + wish.earned - cost)

    def _turn(self) -> None:
        """Share out the next round."""
        wishes, self._round = self._round, {}
        earned = sum(wish.earned - wish.usual for wish in wishes.values())
        extra = sum(wish.extra for wish in wishes.values()) / len(wishes)
        left, most, parts = self._credit + earned, max(earned, 0.0), self._uneven(earned / extra)
        self._known, self._chosen, self._parts = frozenset(wishes), set(), {}
        self._price = math.inf
        self._most = max(w.dense for w in wishes.values()) + sum(w.earned for w in wishes.values())
        for row in sorted(wishes, key=lambda row: wishes[row].worth, reverse=True):
            wish = wishes[row]
            if wish.saves > 0 and wish.extra <= left and most > 0:
                self._chosen.add(row)
                self._price = wish.worth
                left, most = left - wish.extra, most - wish.extra
                continue
            most = 0.0  # it is saved for the first that it does not reach
            if wish.saves > 0 and left > 0 and parts:
                self._parts[row] = min(left, self.PART * wish.extra)
                left -= self._parts[row]

    @classmethod
    def _uneven(cls, frames: float) -> bool:
        """Whether rounds that pay for so many dense frames would often cost far more than most."""
        return 1 <= frames < cls.FEW and frames % 1 < 0.5


@final
class Part:
    """What a row of a stream has of a budget.

    Args:
        budget: The budget.
        share: Of a dense frame's cost, that a frame earns.
        costs: What its frames cost.

    Attributes:
        owes: Cost over a dense frame's that the next frame pays too: at first, the first frame's.

    Raises:
        ValueError: The budget counts in another unit.
    """

    def __init__(self, budget: Budget, share: float, costs: Costs) -> None:
        self._budget, self._row = budget, budget.join(costs.unit)
        self._share, self._dense = share, costs.dense
        self._wish, self._asked = self._for(0.0, 0.0), False
        self.owes = 1.0 - share

    def _for(self, index: float, usual: float) -> Wish:
        return Wish(index, self._share * self._dense, usual * self._dense, self._dense)

    def grant(self, index: float, usual: float) -> float:
        """Ask for a frame's part.

        Args:
            index: Error that a dense frame would save.
            usual: What the frame costs otherwise, over a dense frame's cost.

        Returns:
            Share of a dense frame's cost that it may take: 1 for a dense one, 0 for the usual.
        """
        self._wish, self._asked = self._for(index, usual), True
        granted = self._budget.ask(self._row, self._wish)
        if granted >= self._wish.extra:
            return 1.0
        return usual + granted / self._dense if granted > 0 else 0.0

    def pay(self, cost: float) -> None:
        """Enter a frame's cost, over a dense frame's."""
        if not self._asked:
            self._budget.ask(self._row, self._wish._replace(saves=0.0))
        self._budget.pay(self._wish, (cost + self.owes) * self._dense)
        self.owes, self._asked = 0.0, False


def check_shared(budget: Budget | None, policy: Any) -> None:
    """Refuse a policy that has nothing to share.

    Raises:
        ValueError: There is a budget, and the policy has none.

    Example:
        >>> check_shared(Budget(), Auto(max_error=0.1))
        Traceback (most recent call last):
        ValueError: budget=... is shared under Auto(share=...) or Auto(time=...), got error:0.1
    """
    fits = isinstance(policy, Auto) and policy.worst == 1 and (policy.share or policy.time)
    if budget is not None and not fits:
        got = policy if policy is not None else "token policies"
        raise ValueError(f"budget=... is shared under Auto(share=...) or Auto(time=...), got {got}")
