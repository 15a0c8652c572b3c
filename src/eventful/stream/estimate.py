"""How wrong a moved output is: estimated from pixels, set right by every dense frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass
class Estimate:
    """Relative error of what is shown, from what the moved pictures miss of a frame.

        signal = sqrt(mean over patches of r^2 / (r^2 + SOFT^2))        r from `Look.residual`
        error  = exp(level) signal

    A patch is wrong altogether once its pixels are, hence the saturation. The level starts from a
    prior and follows what dense frames show: each compares what it would have shown, had it been
    carried, with what it is.

    Attributes:
        level: Logarithm of error over signal.
        checks: Dense frames that it rests on.
    """

    SOFT: ClassVar[float] = 0.1
    PRIOR: ClassVar[float] = 0.0
    FOLLOW: ClassVar[float] = 0.5
    LEAST: ClassVar[float] = 1e-4

    level: float = PRIOR
    checks: int = 0

    def signal(self, residual: Tensor) -> float:
        """Sum a frame's residual (grid height, grid width) up."""
        squares = residual.square()
        return math.sqrt((squares / (squares + self.SOFT**2)).mean().item())

    def error(self, signal: float) -> float:
        """The estimated relative error."""
        return math.exp(self.level) * signal

    def learn(self, signal: float, error: float) -> float:
        """Take in a true error, and return by what factor the estimate was too small."""
        if signal < self.LEAST or error < self.LEAST:
            return 1.0
        missed = math.log(error / signal) - self.level
        self.level += missed * max(self.FOLLOW, 1 / (self.checks + 1))
        self.checks += 1
        return math.exp(missed)
