"""Frames on their way into a stream: checked, and told whether anything remembered is of use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from eventful.stream.bound import Bound, now
from eventful.stream.engine import Taken
from eventful.stream.inputs import Inputs, check_finite

ANOTHER_KIND = "another kind of policy"  # why a frame is computed in full


class Runner(Protocol):
    """What frames are handed to; see `Engine`."""

    @property
    def interrupted(self) -> bool:
        """Whether a frame that fails now leaves what is remembered half changed."""
        ...

    def first(self, taken: Taken, reason: str) -> Any:
        """Compute a frame in full."""
        ...

    def run(self, taken: Taken, flush: Mapping[int, str], number: int) -> Any:
        """Compute a frame from what is remembered."""
        ...


class Intake:
    """Takes the frames of a stream in.

    Args:
        bound: The model.
        inputs: Bring frames to what it takes.
        compiled: Whether blocks are compiled.

    Attributes:
        size: What must stay for anything remembered to be of use; None before the first frame.
        pending: Rows to compute in full on the next frame, None for all, and why.
    """

    def __init__(self, bound: Bound, inputs: Inputs, compiled: bool) -> None:
        self._bound, self._inputs, self._compiled = bound, inputs, compiled
        self.size: tuple[Any, ...] | None = None
        self.pending: tuple[list[int] | None, str] | None = None

    def reset(self, rows: list[int] | None, batch: int) -> None:
        """Have the next frame computed in full, of all batch rows or of the given ones.

        Raises:
            ValueError: There is no such row.
        """
        if self.size is None or (self.pending is not None and self.pending[0] is None):
            return  # the next frame is computed in full anyway
        if rows is not None and not all(0 <= row < batch for row in rows):
            raise ValueError(f"rows must lie from 0 to {batch - 1}, got {rows}")
        asked = self.pending[0] or [] if self.pending else []
        self.pending = None if rows is None else sorted({*asked, *rows}), "requested"

    def picture(self, frame: Tensor) -> Tensor:
        """A frame, as it is handed in, as pictures (batch, channels, height, width) in [0, 1]."""
        return self._inputs.picture(frame)

    @torch.inference_mode(False)  # what is remembered must serve outside it too
    @torch.no_grad()
    def take(
        self, runner: Runner, frame: Tensor, inputs: Mapping[str, Any], number: int, sees: bool
    ) -> tuple[Any, float]:
        """Hand a frame on.

        Args:
            runner: What runs it.
            frame: As handed in.
            inputs: What else the model takes.
            number: The frame's, for messages.
            sees: Whether its picture is needed.

        Returns:
            What the runner gives, and the seconds that all of it took.
        """
        self._bound.check()
        start = now(self._bound.weight)
        x = self._inputs.prepare(frame, self._bound.weight, number)
        images = self._inputs.picture(frame).to(x.device) if sees else None
        taken, size = Taken(x, images, inputs), _size(x, inputs)
        reason = self._reset_reason(size)
        if reason is not None or not self._compiled:
            check_finite(x, number)  # else read back behind the frame
        try:
            if reason is not None:
                found = self._first(runner, frame, taken, reason)
                self.size = size
                self._bound.settle()
            else:
                rows, why = self.pending or ([], "")
                found = runner.run(taken, dict.fromkeys(rows or [], why), number)
        except BaseException:
            if runner.interrupted and self.size is not None:
                self.interrupted()
            raise
        self.pending = None
        return found, now(x) - start

    def go_on(self, size: tuple[Any, ...], pending: Sequence[Any] | None) -> None:
        """Go on from a snapshot: frames of this size, rows to compute in full and why."""
        self.size = size
        self.pending = (pending[0], pending[1]) if pending else None

    def interrupted(self) -> None:
        """What is remembered is half changed: have the next frame computed in full."""
        self.pending = None, "interrupted"

    def _first(self, runner: Runner, frame: Tensor, taken: Taken, reason: str) -> Any:
        """Compute a frame in full; where the model fails, say what it expects."""
        try:
            return runner.first(taken, reason)
        except Exception as error:
            if (expected := self._inputs.mismatch(frame)) is None:
                raise
            raise ValueError(f"{expected}. The model says: {error}") from error

    def _reset_reason(self, size: tuple[Any, ...]) -> str | None:
        """Say why nothing remembered can be used, if so."""
        if self.size is None:
            return "first frame"
        if self.pending is not None and self.pending[0] is None:
            return self.pending[1]
        names = ("frame size", "dtype", "device", "inputs")
        for name, new, old in zip(names, size, self.size, strict=True):
            if new != old:
                return f"{name} changed from {old} to {new}"
        return "weights changed" if self._bound.changed else None


def _size(x: Tensor, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must stay for anything remembered to be of use."""
    fixed = {n: tuple(v.shape) if isinstance(v, Tensor) else repr(v) for n, v in inputs.items()}
    return tuple(x.shape), x.dtype, x.device, fixed
