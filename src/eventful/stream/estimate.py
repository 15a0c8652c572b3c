"""How wrong a moved output is: estimated from pixels, set right by every dense frame."""

from __future__ import annotations

import math
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
