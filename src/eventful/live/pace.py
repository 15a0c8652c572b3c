"""A time for all cameras together: the share of dense time that keeps it."""

from __future__ import annotations

from typing import ClassVar, final


@final
class Pace:
    """Follows how long ticks take, and says which share of dense time fits.

    Args:
        milliseconds: That a tick over all cameras is to take, in the mean.

    Example:
        >>> pace = Pace(20.0)
        >>> for _ in range(200):
        ...     pace.took(100 * pace.share)  # dense frames take 100 ms a tick
        >>> round(pace.share, 2)
        0.2
    """

    FIRST: ClassVar[float] = 0.2
    FOLLOW: ClassVar[float] = 0.05
    LEAST: ClassVar[float] = 0.02
    STEP: ClassVar[float] = 1.05  # a smaller change is not worth telling

    def __init__(self, milliseconds: float) -> None:
        self.milliseconds = milliseconds
        self.share = self.FIRST
        self._told = self.FIRST

    def took(self, milliseconds: float) -> None:
        """Take in what a tick took."""
        ratio = min(2.0, max(0.5, self.milliseconds / max(1e-3, milliseconds)))
        self.share = min(1.0, max(self.LEAST, self.share * ratio**self.FOLLOW))

    def changed(self) -> bool:
        """Whether the share has moved enough since the last time to be told."""
        if 1 / self.STEP < self.share / self._told < self.STEP:
            return False
        self._told = self.share
        return True
