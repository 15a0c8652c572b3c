"""How wrong a moved output is: estimated from pixels, set right by every dense frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass
class Estimate:
    """Relative error of a moved output, from how far the picture is from the dense frame's.

        error = k max(D, 1/255)^0.6        D from `View.distance`

    Of the statistics tried (docs, "How a frame goes through"), this one says most with one factor
    per video. k starts from a prior and follows what dense frames show: each compares what would
    have been shown with what is.

    Attributes:
        level: log k.
        checks: Dense frames that it rests on.
    """

    PRIOR: ClassVar[float] = 1.2
    POWER: ClassVar[float] = 0.6
    LEAST: ClassVar[float] = 1 / 255
    FOLLOW: ClassVar[float] = 0.3
    MOST: ClassVar[float] = 1.5  # of the logarithm, that one check may teach

    level: float = math.log(PRIOR)
    checks: int = 0

    def error(self, distance: float) -> float:
        """The estimated relative error.

        Example:
            >>> round(Estimate().error(0.1), 3)
            0.301
        """
        return math.exp(self.level) * max(distance, self.LEAST) ** self.POWER

    def learn(self, distance: float, error: float) -> float:
        """Take in the true error of what a dense frame replaced; return it over the estimate."""
        self.checks += 1
        missed = math.log(max(error, 1e-3) / self.error(distance))
        missed = min(self.MOST, max(-self.MOST, missed))
        self.level += missed * max(self.FOLLOW, 1 / (self.checks + 0.5))
        return math.exp(missed)

    def cut(self) -> None:
        """Trust less what was learnt of another scene: the next checks weigh more."""
        self.checks = min(self.checks, 1)


@dataclass(frozen=True)
class Sides:
    """From which sides frames between dense ones are seen, and what the second one is worth.

    The error of a frame that is carried from both sides follows from what either side alone would
    show, as if both were independent estimates of about the same worth:

        error = sqrt(2) ratio / sqrt(1 / before^2 + 1 / after^2)

    Attributes:
        ahead: Frames that may wait for the dense frame after them; 0 waits for none.
        ratio: The error from both sides over that from one, where these are alike. It follows what
            dense frames show.
        checks: Dense frames that it rests on.
    """

    PRIOR: ClassVar[float] = 0.82
    FOLLOW: ClassVar[float] = 0.3
    WORTH: ClassVar[float] = 0.7

    ahead: int = 0
    ratio: float = PRIOR
    checks: int = 0

    @property
    def worth(self) -> float:
        """What recomputing a patch takes of its squared error.

        From one side, all of it. From both sides there is less to take, while the recomputed token
        is no better.
        """
        return self.WORTH if self.ahead else 1.0

    def both(self, before: float, after: float) -> float:
        """The error of a frame that either side alone would show with these errors.

        Example:
            >>> round(Sides(ahead=8, ratio=0.8).both(0.2, 0.2), 3)
            0.16
        """
        return self.ratio * _independent(before, after)

    def shown(self, errors: Sequence[float]) -> list[float]:
        """Errors of what is shown between two dense frames, were one to come next.

        Args:
            errors: What the side before shows of each frame since. The side after is taken to show
                as much of frames that are as far from it.

        Example:
            >>> [round(error, 3) for error in Sides(ahead=2, ratio=0.8).shown([0.1, 0.2, 0.3])]
            [0.1, 0.16, 0.107]
        """
        apart = len(errors) + 1
        return [
            self.both(error, errors[apart - age - 1]) if apart - age <= self.ahead else error
            for age, error in enumerate(errors, start=1)
        ]

    def learned(self, before: float, after: float, error: float) -> Sides:
        """What is known after the true error of a frame, beside what either side alone shows."""
        checks = self.checks + 1
        found = min(1.5, max(0.3, error / max(1e-9, _independent(before, after))))
        ratio = self.ratio + max(self.FOLLOW, 1 / (checks + 0.5)) * (found - self.ratio)
        return Sides(self.ahead, ratio, checks)


CAUSAL = Sides()


def _independent(before: float, after: float) -> float:
    if min(before, after) <= 0:
        return 0.0
    return math.sqrt(2 / (before**-2 + after**-2))
