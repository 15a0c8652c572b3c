"""Steering: a stream's budget, moved on every frame to hold an error or a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from torch import Tensor

from eventful.block import bindings
from eventful.block.bindings import Blocks
from eventful.policies import Policy, Threshold
from eventful.stream import budget, snapshots
from eventful.stream.budget import Budget
from eventful.stream.control import ErrorControl, Held, LatencyControl, positive


class Steering:
    """Ties controllers to the blocks of a stream.

    With both targets the error says how many tokens are wanted and the time how many there may be.
    One number serves all batch rows: as many tokens as the row needs that needs most.

    Args:
        blocks: The stream's.
        max_error: Relative error of the output to hold, or None.
        latency_ms: Milliseconds a frame to hold, or None.
        check_every: Frames from one check of the error to the next.

    Raises:
        TypeError: A target is no number, or `check_every` no whole number.
        ValueError: They are not positive, or the policies cannot be moved.
    """

    def __init__(
        self,
        blocks: Blocks,
        max_error: float | None,
        latency_ms: float | None,
        check_every: int,
    ) -> None:
        if not isinstance(check_every, Integral) or isinstance(check_every, bool):
            raise TypeError(f"check_every must be a whole number of frames, got {check_every!r}")
        if check_every < 1:
            raise ValueError(f"check_every must be at least 1, got {check_every}")
        self._blocks = blocks
        self.error = self.latency = None
        if max_error is not None:
            self.error = ErrorControl(positive("max_error", max_error), int(check_every))
        if latency_ms is not None:
            self.latency = LatencyControl(positive("latency_ms", latency_ms) / 1e3)
        if any(type(p) is Threshold for p in bindings.policies(blocks).values()) and any(
            block.options.measure != "error" for block in blocks.values()
        ):
            raise ValueError(
                "max_error and latency_ms move Threshold by plain errors; this model was converted "
                "with another measure, for which TopR or TopFraction serve"
            )
        self.operations = 0
        self._count = self._tokens = 0
        self._signal = 0.0
        self._left = 0.0, 0.0
        self._budget = Budget(bindings.policies(blocks))

    def start_from(self, policies: Mapping[str, Policy]) -> None:
        """Start anew from other policies than before.

        Raises:
            ValueError: They cannot be moved.
        """
        self._budget = Budget(policies)
        self._restart()

    def begin(self, output: Any, anew: bool) -> None:
        """Take note of a frame that was computed in full, into new state.

        Raises:
            ValueError: The output has nothing to measure an error of.
        """
        if self.error is not None:
            budget.check_output(output)
        if anew:
            self._restart()

    def _restart(self) -> None:
        for control in (self.error, self.latency):
            if control is not None:
                control.restart()

    def choose(self, reference: Tensor, c: Tensor, flushed: Iterable[int]) -> None:
        """Set the policies of a frame, when the first gate knows what changed.

        Args:
            reference: u (batch, tokens, dim) of the first gate.
            c: (batch, tokens, dim), its input.
            flushed: Rows that are computed in full whatever the policies.
        """
        rows = [row for row in range(len(c)) if row not in set(flushed)]
        if not rows:
            return
        choices = bindings.choices(self._blocks)
        self._tokens = min(next(iter(choices.values())), c.shape[1])
        left, errors = budget.left_undone(reference[rows], c[rows])
        self._count = self._within(self._wanted(left, errors))
        self._left = left[:, self._count - 1].max().item(), left[:, 0].max().item()
        at = min(self._count, errors.shape[1] - 1)
        level = 0.0 if self._count >= self._tokens else errors[:, at].min().item()
        bindings.set_policies(self._blocks, self._budget.at(self._count, level, choices))

    def _wanted(self, left: Tensor, errors: Tensor) -> int:
        """Tokens that the error asks for; as many as the policy's own before anything is known."""
        if self.error is None:
            return self._tokens if self.latency and self.latency.count else self._start(errors)
        allowed = self.error.allowed
        if allowed is None:
            allowed = left[:, self._start(errors) - 1].max().item()
        return min(self._tokens, 1 + int((left > allowed).sum(dim=1).max()))

    def _start(self, errors: Tensor) -> int:
        return min(self._tokens, max(1, self._budget.start(errors)))

    def _within(self, count: int) -> int:
        limit = None if self.latency is None else self.latency.count
        return count if limit is None else min(count, limit)

    def due(self, flushed: Mapping[int, str]) -> bool:
        """Look at what a frame held back, and say whether it is to be checked."""
        if self.error is None:
            return False
        if "scene cut" in flushed.values():
            self.error.cut()
        signals = budget.held_back(self._blocks)
        kept = [signal for row, signal in enumerate(signals) if row not in flushed]
        if not kept:
            return False
        self._signal = max(kept)
        due = self.error.due(self._signal, self._left[0])
        if not due:
            self.error.observe(self._signal, *self._left)
        return due

    def learn(self, output: Any, exact: Any, batch: int, flushed: Mapping[int, str]) -> None:
        """Enter a check of the frame that `due` asked for."""
        assert self.error is not None
        errors = budget.relative_errors(output, exact, batch)
        error = max(error for row, error in enumerate(errors) if row not in flushed)
        self.error.learn(error, self._signal, *self._left)

    def clock(self, seconds: float) -> None:
        """Enter the time of a frame that was no flush."""
        if self.latency is not None and self._tokens:
            self.latency.observe(seconds, self._count, self._tokens)

    def reports(self, frames: int) -> tuple[Held | None, Held | None]:
        """What was held over so many frames: of the error, and of the time."""
        text = str(next(iter(bindings.policies(self._blocks).values())))
        limit = {1: "least", self._tokens: "most"}.get(self._count)
        error = latency = None
        if (control := self.error) is not None:
            error = Held(
                control.target,
                mean(control.errors),
                control.errors[-1] if control.errors else None,
                mean(control.estimates),
                text,
                limit,
                control.checks,
                control.checks / max(1, frames),
                self.operations,
            )
        if self.latency is not None:
            times = [1e3 * seconds for seconds in self.latency.times]
            last = times[-1] if times else None
            latency = Held(1e3 * self.latency.target, mean(times), last, None, text, limit)
        return error, latency

    def state(self) -> dict[str, Any]:
        """All that decides what comes next, for a snapshot."""
        parts = {"error": self.error, "latency": self.latency}
        return {
            "operations": self.operations,
            "last": [self._count, self._tokens],
            "start": snapshots.policy_texts(self._budget.policies),
            **{name: None if part is None else part.state() for name, part in parts.items()},
        }

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Go on from what `state` gave, in so far as the same targets are set."""
        if state is None:
            return
        self.operations = state["operations"]
        self._count, self._tokens = state["last"]
        self._budget = Budget(snapshots.parse_policies(state["start"]))
        for name, part in (("error", self.error), ("latency", self.latency)):
            if part is not None and state[name] is not None:
                part.load(state[name])


def mean(values: Iterable[float]) -> float | None:
    """The mean; None of nothing.

    Example:
        >>> mean([1.0, 2.0]), mean([])
        (1.5, None)
    """
    values = list(values)
    return sum(values) / len(values) if values else None
