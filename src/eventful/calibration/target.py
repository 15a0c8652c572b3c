"""What is to be reached, and the search for a price at which it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from eventful.calibration.trials import Trial

CLOSE = 0.03
STEPS = 9


@dataclass(frozen=True)
class Target:
    """A relative error, or a share of the dense operations, that is not to be exceeded.

    Raises:
        ValueError: Not one of both is given, or it does not lie between 0 and 1.

    Example:
        >>> Target(error=0.1).text, Target(share=0.25).text
        ('an error of 0.1', '0.25 of the dense operations')
    """

    error: float | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.error, self.share) if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"calibration needs one target, of the error or of the share of operations; got "
                f"error {self.error}, share {self.share}"
            )
        if not 0 < given[0] < 1:
            name, such = ("error", "0.1") if self.share is None else ("share", "0.25, a quarter")
            raise ValueError(
                f"the target {name} must lie between 0 and 1, such as {such}; got {given[0]}"
            )

    @property
    def text(self) -> str:
        """For people."""
        if self.share is None:
            return f"an error of {self.error}"
        return f"{self.share} of the dense operations"

    def excess(self, trial: Trial) -> float:
        """What a trial has over what is wanted: at most 1 where the target is met."""
        if self.error is not None:
            return trial.figures.error / self.error
        assert self.share is not None
        return trial.figures.share / self.share

    def met(self, trial: Trial) -> bool:
        """Whether a trial reaches it."""
        return self.excess(trial) <= 1

    def best(self, trials: Iterable[Trial]) -> Trial:
        """Of those that meet it the one of the least share or error; else what comes closest."""
        trials = list(trials)
        fitting = [trial for trial in trials if self.met(trial)]
        if not fitting:
            return min(trials, key=self.excess)
        by_share = self.share is None
        return min(fitting, key=lambda t: t.figures.share if by_share else t.figures.error)

    def search(self, trial_at: Callable[[float], Trial], low: float, high: float) -> list[Trial]:
        """Halve an interval of prices until a trial meets the target closely.

        Args:
            trial_at: Gives the trial at a price; the higher, the fewer tokens are updated.
            low: The least price.
            high: The highest.

        Returns:
            All trials made.
        """
        trials: list[Trial] = []
        for _ in range(STEPS):
            price = math.sqrt(low * high)
            trial = trial_at(price)
            trials.append(trial)
            if 1 - CLOSE <= self.excess(trial) <= 1:
                break
            if self.met(trial) == (self.share is None):  # there is room for fewer tokens
                low = price
            else:
                high = price
        return trials
