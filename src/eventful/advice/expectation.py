"""What a policy is expected to cost, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from eventful.advice.footage import Footage
from eventful.advice.replay import Price, Step, replay
from eventful.advice.samples import Window
from eventful.advice.skipping import Skipping, held_errors, skipping
from eventful.policies import Auto

SPREAD = 0.15  # of a cost: off by 0.08 where all of a clip was seen, by 0.2 where its first half
SIDES = 1.64  # standard deviations on either side: nine of ten


@dataclass(frozen=True)
class Range:
    """A number that is expected, and between which nine of ten are expected to come out.

    Attributes:
        value: The number.
        low: The least.
        high: The most.
    """

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Range:
        """All three times a factor.

        Example:
            >>> Range(2.0, 1.0, 3.0).times(2)
            Range(value=4.0, low=2.0, high=6.0)
        """
        return Range(factor * self.value, factor * self.low, factor * self.high)


@dataclass(frozen=True)
class Expectation:
    """What holding an error is expected to cost.

    Attributes:
        error: The error.
        operations: Share of the dense model's.
        milliseconds: Mean time of a frame on this machine.
        time: The same as a share of the dense model's.
        kinds: How many of the frames looked at would be of each kind.
        skipping: What skipping frames would cost at the same error.
        skipping_time: Its time as a share of the dense model's.
    """

    error: float
    operations: Range
    milliseconds: Range
    time: Range
    kinds: dict[str, int]
    skipping: Skipping
    skipping_time: float


def expected(
    error: float, price: Price, patches: int, footage: Footage, seen: Sequence[Window]
) -> Expectation:
    """Replay a policy, with all windows and with all but one.

    Args:
        error: To hold.
        price: What frames cost.
        patches: Tokens that may be chosen.
        footage: The video.
        seen: What dense frames showed.
    """
    policy = Auto(max_error=error)
    whole = replay(policy, price.timed, patches, footage, seen)
    others = [[w for w in seen if w is not left] for left in seen] if len(seen) > 1 else []
    without = [replay(policy, price.timed, patches, footage, some) for some in others]
    most = price.timed.dense

    def around(cost: Callable[[Sequence[Step]], float], limit: float) -> Range:
        return ranged(cost(whole), [cost(steps) for steps in without], limit)

    operations, spent = around(price.operations, 1.0), around(price.milliseconds, most)
    skipped = skipping(error, held_errors(footage, seen), price)
    kinds: dict[str, int] = {}
    for step in whole:
        kinds[step.kind] = kinds.get(step.kind, 0) + 1
    return Expectation(
        error,
        operations,
        spent,
        spent.times(1 / price.dense_ms),
        kinds,
        skipped,
        skipped.milliseconds / price.dense_ms,
    )


def ranged(value: float, without: Sequence[float], limit: float) -> Range:
    """A cost, with the spread that leaving one window out after the other shows (jackknife).

    Args:
        value: With all windows.
        without: Without each.
        limit: What it cannot exceed.

    Example:
        >>> found = ranged(0.2, [0.2, 0.2], limit=1.0)
        >>> round(found.low, 3), round(found.high, 3)
        (0.156, 0.256)
    """
    count, off = len(without), SPREAD
    if count > 1:
        logs = [math.log(one) for one in without]
        middle = fmean(logs)
        off = math.hypot(off, math.sqrt((count - 1) / count * sum((x - middle) ** 2 for x in logs)))
    factor = math.exp(SIDES * off)
    return Range(value, value / factor, max(value, min(limit, value * factor)))
