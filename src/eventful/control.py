"""Controllers: how large a budget must be to hold an error or a time. Numbers in, numbers out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

WINDOW = 50  # frames over which a target is held
_SLACK = 1.1  # times the target, up to which it counts as held


@dataclass(frozen=True)
class Held:
    """What a controller held. Errors are of the batch row where they are largest.

    Attributes:
        target: What was asked for: a relative error, or milliseconds a frame.
        mean: What was held: the mean error over the last checks (at most 20), or the mean time
            over the last frames that are not flushes (at most 50). None before the first.
        last: The error at the last check, or the time of the last frame that is no flush.
        estimate: Of the last 50 frames that are not flushes, the mean error as estimated between
            checks; for a time, None.
        budget: The first gate's policy on the last frame, as text.
        limit: "least" or "most" where the budget cannot go further, otherwise None.
        checks: How many frames were checked against the dense model.
        share: Checked frames over all frames.
        operations: Multiply-accumulates that checks took beyond the frames' own.
    """

    target: float
    mean: float | None = None
    last: float | None = None
    estimate: float | None = None
    budget: str = ""
    limit: str | None = None
    checks: int = 0
    share: float = 0.0
    operations: int = 0

    @property
    def met(self) -> bool:
        """Whether what was held is within 10 % of the target, or below.

        Example:
            >>> Held(target=0.02, mean=0.021).met, Held(target=0.02, mean=0.03).met
            (True, False)
        """
        return self.mean is None or self.mean <= _SLACK * self.target

    def describe(self, unit: str = "") -> str:
        """Say in a line what was held, and what stood in the way.

        Example:
            >>> Held(target=20.0, mean=31.04, budget="top:1", limit="least").describe(" ms")
            '31 ms held, asked for 20 ms: missed, with the least budget there is (top:1)'
        """
        if self.mean is None:
            return f"asked for {self.target:.3g}{unit}; nothing measured yet"
        verdict = "met" if self.met else "missed"
        at = f"with the {self.limit} budget there is" if self.limit else "budget now"
        return (
            f"{self.mean:.3g}{unit} held, asked for {self.target:.3g}{unit}: {verdict}, {at} "
            f"({self.budget})"
        )


def positive(name: str, value: object) -> float:
    """Take a positive finite number.

    Raises:
        TypeError: It is no number.
        ValueError: It is not positive, or not finite.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number above 0, got {value!r}")
    if not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be above 0 and finite, got {value!r}; None turns it off")
    return float(value)


class ErrorControl:
    """Holds the mean error by the share of change that the first gate may leave undone.

    On every frame the error is estimated as `gain` times a signal that the frame itself gives. The
    gain is what checks found, sum of errors over sum of signals: of the last eight or of the last
    three, whichever is larger, so that it rises faster than it falls. What may be left undone then
    moves by

        log allowed -= gain (e - 1) + reset debt,      e = estimate / target,  debt = sum of (e - 1)

    so that the mean, and not the worst frame, comes to the target. The debt is bounded, both ways:
    a quiet hour buys a few frames only.

    Example:
        >>> control = ErrorControl(0.1, every=10)
        >>> control.learn([(0.2, 0.4)])  # a check: error 0.2 where the signal was 0.4
        >>> control.allowed = 1.0
        >>> control.observe([0.4])  # twice the target: less may be left undone
        >>> control.allowed < 1.0
        True
    """

    GAIN, RESET, DEBT, CREDIT = 0.5, 0.1, 4.0, 2.0
    RECENT, LATEST = 8, 3
    FIRST, BEHIND_CUT = (1, 2, 4), (2, 4)

    def __init__(self, target: float, every: int) -> None:
        self.target, self.every = target, every
        self.allowed: float | None = None
        self.debt = 0.0
        self.checks = 0
        self.errors: deque[float] = deque(maxlen=20)
        self.estimates: deque[float] = deque(maxlen=WINDOW)
        self._pairs: deque[tuple[float, float]] = deque(maxlen=self.RECENT)
        self._since = 0
        self._early = list(self.FIRST)

    def restart(self) -> None:
        """Another kind of frame, or other weights: what was learnt no longer holds."""
        self.allowed, self.debt, self._since = None, 0.0, 0
        self._pairs.clear()
        self._early = list(self.FIRST)

    def cut(self) -> None:
        """Another scene: look soon."""
        self._early = self._early or list(self.BEHIND_CUT)
        self._since = 0

    @property
    def gain(self) -> float | None:
        """Error over signal; None before the first check that could tell."""
        pairs = list(self._pairs)
        parts = [part for part in (pairs, pairs[-self.LATEST :]) if part]
        return max((sum(e for e, _ in p) / sum(s for _, s in p) for p in parts), default=None)

    def due(self) -> bool:
        """Whether the frame that was just computed is to be checked; to ask once a frame."""
        self._since += 1
        return self._since >= min(self.every, *(self._early[:1] or [self.every]))

    def learn(self, pairs: list[tuple[float, float]]) -> None:
        """Enter a check: the error and the signal of every row that was not flushed."""
        self._since, self.checks = 0, self.checks + 1
        self._early = self._early[1:]
        error = max(error for error, _ in pairs)
        self.errors.append(error)
        if self.allowed is not None and error > 1.5 * self.target:
            self.allowed *= math.exp(-self.GAIN * min(1.5, error / self.target - 1))
        self._pairs.extend(pair for pair in pairs if math.isfinite(sum(pair)) and min(pair) > 0)

    def observe(self, signals: list[float]) -> None:
        """Enter the signals of a frame's rows that was neither checked nor flushed."""
        if self.gain is None or self.allowed is None:
            return
        estimate = self.gain * max(signals)
        self.estimates.append(estimate)
        over = estimate / self.target - 1
        self.debt = min(self.DEBT, max(-self.CREDIT, self.debt + over))
        self.allowed *= math.exp(-self.GAIN * min(1.5, over) - self.RESET * self.debt)

    def bound(self, least: float, most: float) -> None:
        """Keep what may be left undone where it makes a difference on this frame."""
        if self.allowed is not None:
            self.allowed = max(least / 2, min(most * 2, self.allowed))

    def state(self) -> dict[str, Any]:
        """All that decides what comes next, in plain numbers."""
        return {
            "allowed": self.allowed,
            "debt": self.debt,
            "checks": self.checks,
            "errors": list(self.errors),
            "estimates": list(self.estimates),
            "pairs": [list(pair) for pair in self._pairs],
            "since": self._since,
            "early": list(self._early),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.allowed, self.debt, self.checks = (state[k] for k in ("allowed", "debt", "checks"))
        self.errors.extend(state["errors"])
        self.estimates.extend(state["estimates"])
        self._pairs.extend((error, signal) for error, signal in state["pairs"])
        self._since, self._early = state["since"], list(state["early"])


class LatencyControl:
    """Holds the mean time of a frame by the number of tokens.

    While the time is far above the target the number falls in proportion; near it,

        log count -= gain (t - 1) + reset debt,      t = time / target,  debt = sum of (t - 1)

    Example:
        >>> control = LatencyControl(0.050)
        >>> control.observe(0.200, count=100, tokens=777)  # four times the target
        >>> control.count
        25
    """

    GAIN, RESET, DEBT = 0.5, 0.05, 4.0

    def __init__(self, target: float) -> None:
        self.target = target
        self.debt = 0.0
        self.times: deque[float] = deque(maxlen=WINDOW)
        self._size: float | None = None

    @property
    def count(self) -> int | None:
        """The most tokens of the first gate on the next frame; None before a time was seen."""
        return None if self._size is None else round(self._size)

    def restart(self) -> None:
        """Another kind of frame: times no longer hold."""
        self.debt, self._size = 0.0, None
        self.times.clear()

    def observe(self, seconds: float, count: int, tokens: int) -> None:
        """Enter the time of a frame that was no flush, and of how many tokens it was."""
        size = float(count) if self._size is None else self._size
        spare = seconds < self.target and count < round(size)  # something else set the number
        self.times.append(seconds)
        over = seconds / self.target - 1
        if not spare:
            self.debt = min(self.DEBT, max(-self.DEBT, self.debt + over))
        if over > 0.5:
            size *= self.target / seconds
        elif not spare:
            size *= math.exp(-self.GAIN * over - self.RESET * self.debt)
        self._size = min(float(tokens), max(1.0, size))

    def state(self) -> dict[str, Any]:
        """All that decides what comes next, in plain numbers."""
        return {"debt": self.debt, "times": list(self.times), "size": self._size}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.debt, self._size = state["debt"], state["size"]
        self.times.extend(state["times"])
