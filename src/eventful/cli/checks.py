"""Which frames the dense model runs on too, and what its results say of frame skipping."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from math import floor
from statistics import fmean

import numpy as np
from torch import Tensor

Outputs = Tensor | Sequence[Tensor]
RULER = 0, 1, 4, 6  # each distance from 1 to 6 lies between two of these, once


class Checks:
    """Picks the checked frames beforehand, whatever is done with them, and compares their results.

    They stand in groups of four, so that dense results 1 to 6 frames apart are at hand, which are
    the errors of a result that is held for so many frames.

    Args:
        every: One of so many frames is checked, in the mean; 1 checks all.
        total: How many frames there will be; at least three groups where they are few.

    Example:
        >>> checks = Checks(every=10, total=50)
        >>> [number for number in range(50) if checks.wanted(number)]
        [2, 3, 6, 8, 18, 19, 22, 24, 34, 35, 38, 40]
    """

    FIRST = 2  # the first frames are dense under every policy
    KEPT = 12  # dense results that later ones are compared with

    def __init__(self, every: int, total: int | None) -> None:
        self._all = every == 1
        self._period = max(8, min(4 * every, (total or 10**9) // 3))
        self._kept: deque[tuple[int, Outputs]] = deque(maxlen=self.KEPT)
        self._apart: dict[int, list[float]] = defaultdict(list)

    def wanted(self, number: int) -> bool:
        """Whether a frame is one of them."""
        place = number - self.FIRST
        return self._all or (place >= 0 and place % self._period in RULER)

    def add(self, number: int, dense: Outputs) -> None:
        """Take in the dense result of a checked frame."""
        for before, tokens in self._kept:
            self._apart[number - before].append(distance(tokens, dense))
        self._kept.append((number, dense))

    @property
    def pairs(self) -> int:
        """Pairs of dense results that were compared."""
        return sum(map(len, self._apart.values()))

    @property
    def longest(self) -> int:
        """Frames between the two that lie farthest apart."""
        return max(self._apart, default=0)

    def held(self, age: int) -> float:
        """Mean error of a result that was held for so many frames.

        Ages that no pair shows lie on the line between those beside them; beyond the longest, the
        error is taken to grow no more.
        """
        ages = sorted(self._apart)
        return float(np.interp(age, [0, *ages], [0.0, *(fmean(self._apart[a]) for a in ages)]))

    def skipping(self, every: float) -> float | None:
        """Mean error of running the dense model on one of `every` frames and holding its result.

        Between whole numbers, of a mixture of the two that takes the same time.

        Example:
            >>> checks = Checks(every=1, total=3)
            >>> for number, value in enumerate((1.0, 2.0, 4.0)):
            ...     checks.add(number, Tensor([value]))
            >>> checks.held(1), checks.skipping(2)
            (0.5, 0.25)
        """
        if not self._apart:
            return None
        few = max(1, floor(every))
        of_few, of_more = (fmean(map(self.held, range(k))) for k in (few, few + 1))
        weight = (1 / every - 1 / (few + 1)) / (1 / few - 1 / (few + 1)) if every > 1 else 1.0
        return weight * of_few + (1 - weight) * of_more


def distance(shown: Outputs, dense: Outputs) -> float:
    """Relative error ||shown - dense|| / ||dense||; of several outputs the largest.

    Example:
        >>> distance([Tensor([3.0, 5.0]), Tensor([1.0])], [Tensor([3.0, 4.0]), Tensor([1.0])])
        0.20000000298023224
    """
    if isinstance(shown, Tensor) or isinstance(dense, Tensor):
        return _distance(shown, dense)  # type: ignore[arg-type]
    return max(map(_distance, shown, dense))


def _distance(shown: Tensor, dense: Tensor) -> float:
    return float((shown - dense).norm() / dense.norm())
