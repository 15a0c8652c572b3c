"""What a stream reports about its last frame and about all frames so far."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from eventful.counting import Operations


@dataclass(frozen=True)
class Flush:
    """A frame on which a batch row was computed in full for another reason than its policy's.

    Attributes:
        frame: Its number; the stream's first frame is 0.
        row: The batch row.
        reason: "first frame", "scene cut", "requested", "interrupted", or what changed.
    """

    frame: int
    row: int
    reason: str


class FrameRow(NamedTuple):
    """What a frame policy gave a row, and how good what is shown is.

    Attributes:
        kind: "dense", "partial", "carried" or "held".
        reason: Why.
        tokens: Tokens computed.
        estimate: Relative error of what is shown as estimated from pixels, 0 on a dense frame; None
            where nothing is estimated.
        error: On a dense frame, the true error of what would have been shown in its place.
        checks: Dense frames that the estimate rests on so far.
        age: Frames since the last dense one.
    """

    kind: str
    reason: str
    tokens: int
    estimate: float | None
    error: float | None
    checks: int
    age: int


@dataclass(frozen=True)
class Report:
    """What a frame took.

    Attributes:
        seconds: Wall time of the model.
        used: Operations, all rows.
        dense: What the dense model needs.
        flushed: Rows that were computed anew for another reason than the policy's, and why.
        updated: Tokens updated at each gate, one number a row.
        fallbacks: Compiled frames that had to be computed again.
        rows: What each row was given, under a frame policy.
    """

    seconds: float
    used: Operations
    dense: Operations
    flushed: Mapping[int, str]
    updated: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    fallbacks: int = 0
    rows: tuple[FrameRow, ...] = ()


@dataclass
class Stats:
    """Cost of a stream. Operations are multiply-accumulates over the whole batch.

    Attributes:
        frames: Frames processed since the stream was made.
        operations: Of the last frame, by kind of product.
        dense_operations: What the dense model needs for the same frame.
        total_operations: Over all frames.
        total_dense_operations: Over all frames.
        updated: Under a token policy, for each gate the tokens updated on the last frame, one
            number a batch row.
        rows: Under a frame policy, what each batch row was given on the last frame.
        kinds: Under a frame policy, how many frames of each kind there were, rows added up.
        estimates: Estimated errors of the latest frames (at most 1,000), rows averaged; 0 on dense
            frames.
        state_bytes: Memory that the stream holds between frames.
        seconds: Wall time of the last frame: the model, motion and choices.
        fallbacks: Compiled frames that were computed again because more rows had to be computed
            in full than there was room for.
        flushes: The latest flushes (at most 1,000).
        flush_reasons: How many flushes there were, by reason.

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
    rows: tuple[FrameRow, ...] = ()
    kinds: Counter[str] = field(default_factory=Counter)
    estimates: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    state_bytes: int = 0
    seconds: float = 0.0
    fallbacks: int = 0
    flushes: deque[Flush] = field(default_factory=lambda: deque(maxlen=1000))
    flush_reasons: Counter[str] = field(default_factory=Counter)

    @property
    def ratio(self) -> float:
        """Dense operations over operations used, first frames included."""
        return self.total_dense_operations / max(1, self.total_operations)

    @property
    def estimate(self) -> float | None:
        """Mean estimated error of the latest frames; None under token policies.

        Example:
            >>> Stats(estimates=deque([0.0, 0.2])).estimate
            0.1
        """
        return sum(self.estimates) / len(self.estimates) if self.estimates else None

    def tell(self, report: Report, seconds: float, state_bytes: int) -> None:
        """Enter a frame.

        Args:
            report: What it took.
            seconds: All of its time.
            state_bytes: What the stream remembers after it.
        """
        for row, reason in report.flushed.items():
            self.flush(row, reason)
        self.count(report.used, report.dense)
        self.updated = dict(report.updated)
        self.enter(report.rows)
        self.fallbacks += report.fallbacks
        self.seconds, self.state_bytes = seconds, state_bytes

    def counts(self) -> dict[str, Any]:
        """What is counted over all frames, for a snapshot."""
        return {name: copy(getattr(self, name)) for name in _COUNTS}

    def go_on(self, counts: Mapping[str, Any], state_bytes: int) -> None:
        """Go on from what `counts` gave."""
        for name, value in counts.items():
            setattr(self, name, type(getattr(self, name))(value))
        self.state_bytes = state_bytes

    def count(self, operations: Operations, dense: Operations) -> None:
        """Enter one more frame."""
        self.frames += 1
        self.operations, self.dense_operations = operations, dense
        self.total_operations += operations.total
        self.total_dense_operations += dense.total

    def enter(self, rows: Sequence[FrameRow]) -> None:
        """Enter what a frame policy gave the rows of a frame."""
        self.rows = tuple(rows)
        self.kinds.update(row.kind for row in rows)
        found = [row.estimate for row in rows if row.estimate is not None]
        if len(found) == len(rows) > 0:
            self.estimates.append(sum(found) / len(found))

    def flush(self, row: int, reason: str) -> None:
        """Enter the flush of a row on the frame that is about to be counted."""
        self.flushes.append(Flush(self.frames, row, reason))
        self.flush_reasons[reason] += 1

    def __str__(self) -> str:
        used, dense = (x.total / 1e9 for x in (self.operations, self.dense_operations))
        lines = [
            f"frames      {self.frames}",
            f"operations  {used:.2f} G on the last frame, {dense:.2f} G dense; "
            f"{self.ratio:.2f}x fewer over all frames",
        ]
        if self.kinds:
            lines.append("kinds       " + ", ".join(f"{n} {k}" for k, n in self.kinds.items()))
        if self.updated:
            updated = sum(map(sum, self.updated.values()))
            lines.append(f"updated     {updated} tokens over {len(self.updated)} gates")
        if self.estimate is not None:
            lines.append(f"error       about {self.estimate:.3f} (estimated, relative)")
        return "\n".join(
            [
                *lines,
                f"state       {self.state_bytes / 1e6:.1f} MB",
                f"time        {self.seconds * 1e3:.1f} ms",
                f"flushes     {dict(self.flush_reasons)}",
            ]
        )


_COUNTS = ("frames", "total_operations", "total_dense_operations", "kinds")
