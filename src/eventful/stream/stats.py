"""What a stream reports about its last frame and about all frames so far."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from eventful.counting import Operations
from eventful.stream.control import Held


@dataclass(frozen=True)
class Flush:
    """A frame on which a batch row was computed anew.

    Attributes:
        frame: Its number; the stream's first frame is 0.
        row: The batch row.
        reason: "first frame", "scene cut", "error check", "requested", "interrupted", or what
            changed.
    """

    frame: int
    row: int
    reason: str


@dataclass
class Stats:
    """Cost of a stream. Operations are multiply-accumulates over the whole batch.

    Attributes:
        frames: Frames processed since the stream was made.
        operations: Of the last frame, by kind of product.
        dense_operations: What the dense model needs for the same frame.
        total_operations: Over all frames.
        total_dense_operations: Over all frames.
        updated: For each gate, the tokens updated on the last frame, one number a batch row.
        state_bytes: Memory that the stream holds between frames.
        seconds: Wall time of the model on the last frame.
        fallbacks: Compiled frames that were computed again because more rows had to be computed
            anew than there was room for.
        flushes: The latest flushes (at most 1,000).
        flush_reasons: How many flushes there were, by reason.
        error: What a stream with `max_error` held; None without.
        latency: What a stream with `latency_ms` held, in milliseconds; None without.

    Example:
        >>> Stats(total_operations=25, total_dense_operations=100).ratio
        4.0
    """

    frames: int = 0
    operations: Operations = field(default_factory=Operations)
    dense_operations: Operations = field(default_factory=Operations)
    total_operations: int = 0
    total_dense_operations: int = 0
    updated: dict[str, tuple[int, ...]] = field(default_factory=dict)
    state_bytes: int = 0
    seconds: float = 0.0
    fallbacks: int = 0
    flushes: deque[Flush] = field(default_factory=lambda: deque(maxlen=1000))
    flush_reasons: Counter[str] = field(default_factory=Counter)
    error: Held | None = None
    latency: Held | None = None

    @property
    def ratio(self) -> float:
        """Dense operations over operations used, first frames included."""
        return self.total_dense_operations / max(1, self.total_operations)

    @property
    def target_met(self) -> bool | None:
        """Whether all targets are held; None without any.

        Example:
            >>> Stats(error=Held(target=0.1, mean=0.5, limit="most")).target_met
            False
        """
        held = [target.met for target in (self.error, self.latency) if target is not None]
        return all(held) if held else None

    def count(self, operations: Operations, dense: Operations) -> None:
        """Enter one more frame."""
        self.frames += 1
        self.operations, self.dense_operations = operations, dense
        self.total_operations += operations.total
        self.total_dense_operations += dense.total

    def flush(self, row: int, reason: str) -> None:
        """Enter the flush of a row on the frame that is about to be counted."""
        self.flushes.append(Flush(self.frames, row, reason))
        self.flush_reasons[reason] += 1

    def __str__(self) -> str:
        used, dense = (x.total / 1e9 for x in (self.operations, self.dense_operations))
        updated = sum(map(sum, self.updated.values()))
        lines = [
            f"frames      {self.frames}",
            f"operations  {used:.2f} G on the last frame, {dense:.2f} G dense; "
            f"{self.ratio:.2f}x fewer over all frames",
            f"updated     {updated} tokens over {len(self.updated)} gates",
            f"state       {self.state_bytes / 1e6:.1f} MB",
            f"time        {self.seconds * 1e3:.1f} ms",
            f"flushes     {dict(self.flush_reasons)}",
        ]
        for name, held, unit in (("error", self.error, ""), ("latency", self.latency, " ms")):
            if held is not None:
                lines.append(f"{name:<11} {held.describe(unit)}")
        return "\n".join(lines)
