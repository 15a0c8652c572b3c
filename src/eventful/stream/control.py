"""Controllers: how large a budget must be to hold an error or a time. Numbers in, numbers out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
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

    Two ratios are learnt. The *gain* is error over signal, at checks: sum of errors over sum of
    signals of the last eight checks or of the last three, whichever is larger, so that it rises
    faster than it falls. The *response* is signal over what was left undone, on every frame, a
    running mean of its logarithm with steps of bounded size. The next frame may then leave undone

        allowed = aim target clip(1 - repay debt) / (gain response)
        debt = sum of (gain signal / (aim target) - 1) over frames

    so that the mean, and not the worst frame, comes to the target. What was owed since the last
    check is set right by the gain of the next. The debt is bounded, both ways: a quiet hour buys
    one frame only. The aim lies below the target, since errors scatter upwards from any estimate.

    Args:
        target: The error to hold.
        every: Frames from one check to the next.

    Example:
        >>> control = ErrorControl(0.1, every=10)
        >>> control.learn(error=0.2, signal=0.4, left=0.8, most=2.0)  # twice the target
        >>> round(control.allowed / 0.8, 3)
        0.475
    """

    AIM, REPAY, DEBT, CREDIT, CLIP = 0.95, 0.2, 20.0, 1.0, (0.5, 1.5)
    RECENT, LATEST, FOLLOW = 8, 3, 0.5
    FIRST, BEHIND_CUT = (1, 2, 4), (2, 4)

    def __init__(self, target: float, every: int) -> None:
        self.target, self.every = target, every
        self.checks = 0
        self.errors: deque[float] = deque(maxlen=20)
        self.estimates: deque[float] = deque(maxlen=WINDOW)
        self._pairs: deque[tuple[float, float]] = deque(maxlen=self.RECENT)
        self.restart()

    def restart(self) -> None:
        """Another kind of frame, weights or policies: what was learnt no longer holds."""
        self.debt = 0.0
        self._response: float | None = None
        self._pairs.clear()
        self._unchecked = 0.0  # sum of signals since the last check
        self._since, self._early = 0, list(self.FIRST)

    def cut(self) -> None:
        """Another scene: look soon, and lean on few of the old checks."""
        self._early = self._early or list(self.BEHIND_CUT)
        self._since, self._unchecked = 0, 0.0
        while len(self._pairs) > self.LATEST:
            self._pairs.popleft()

    @property
    def gain(self) -> float | None:
        """Error over signal; None before the first check that could tell."""
        pairs = list(self._pairs)
        parts = [part for part in (pairs, pairs[-self.LATEST :]) if part]
        return max((sum(e for e, _ in p) / sum(s for _, s in p) for p in parts), default=None)

    @property
    def allowed(self) -> float | None:
        """What the next frame may leave undone; None before the first check that could tell."""
        gain, (least, most) = self.gain, self.CLIP
        if gain is None or self._response is None:
            return None
        wanted = self.AIM * self.target * min(most, max(least, 1 - self.REPAY * self.debt))
        return wanted / (gain * self._response)

    def due(self, signal: float, left: float) -> bool:
        """Whether the frame that was just computed is to be checked; to ask once a frame.

        The first frame that leaves something undone always is: nothing is known of it. A frame that
        holds nothing back would tell nothing, so that checks wait for one that does, though not for
        ever.
        """
        self._since += 1
        if self._response is None and min(signal, left) > 0:
            return True
        interval = min(self.every, *(self._early[:1] or [self.every]))
        return self._since >= (interval if signal > 0 else 2 * self.every)

    def learn(self, error: float, signal: float, left: float, most: float) -> None:
        """Enter a check.

        Args:
            error: What was found.
            signal: The frame's.
            left: What its first gate left undone.
            most: What it would have left undone with the least budget.
        """
        self._since, self.checks, self._early = 0, self.checks + 1, self._early[1:]
        self.errors.append(error)
        before = self.gain
        if math.isfinite(error + signal) and min(error, signal) > 0:
            self._pairs.append((error, signal))
        self._follow(signal, left, most)
        if before is not None and self.gain is not None:
            self._owe((self.gain - before) * self._unchecked / (self.AIM * self.target))
        self._unchecked = 0.0

    def observe(self, signal: float, left: float, most: float) -> None:
        """Enter a frame that was neither checked nor flushed."""
        self._follow(signal, left, most)
        if self.gain is not None:
            estimate = self.gain * signal
            self.estimates.append(estimate)
            self._unchecked += signal
            self._owe(estimate / (self.AIM * self.target) - 1)

    def _follow(self, signal: float, left: float, most: float) -> None:
        """Learn from a frame; where all was let through and nothing is owed, try leaving more."""
        step = 0.0
        if math.isfinite(signal + left) and min(signal, left) > 0:
            self._response = self._response or signal / left
            step = min(1.0, max(-1.0, math.log(signal / left / self._response)))
        elif most > left == 0 >= self.debt:
            step = -1.0
        if self._response is not None:
            self._response *= math.exp(self.FOLLOW * step)

    def _owe(self, amount: float) -> None:
        self.debt = min(self.DEBT, max(-self.CREDIT, self.debt + amount))

    def state(self) -> dict[str, Any]:
        """All that decides what comes next, in plain numbers."""
        return {
            "debt": self.debt,
            "response": self._response,
            "unchecked": self._unchecked,
            "checks": self.checks,
            "errors": list(self.errors),
            "estimates": list(self.estimates),
            "pairs": [list(pair) for pair in self._pairs],
            "since": self._since,
            "early": list(self._early),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.debt, self.checks, self._since = (state[k] for k in ("debt", "checks", "since"))
        self._response, self._unchecked = state["response"], state["unchecked"]
        self._early = list(state["early"])
        refill(self.errors, state["errors"])
        refill(self.estimates, state["estimates"])
        refill(self._pairs, [(error, signal) for error, signal in state["pairs"]])


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
        refill(self.times, state["times"])


def refill(values: deque[Any], saved: Iterable[Any]) -> None:
    """Put saved values in place of those there are."""
    values.clear()
    values.extend(saved)
