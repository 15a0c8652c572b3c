"""What `eventful run` writes beside the overlay: a table, a summary and a plot."""

from __future__ import annotations

import csv
import statistics
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Row:
    """One frame of a run.

    Attributes:
        frame: Number, from 0.
        time_s: Time in the video.
        operations: Multiply-accumulates used.
        dense_operations: Those of the dense model.
        updated_share: Updated tokens over tokens, mean over all gates; under a plan, of patches.
        milliseconds: Wall time of the eventful model.
        action: What was done: "dense", "gated", "held", "carried" or "low resolution".
        flush: Why the frame was computed in full, or empty.
        dense_milliseconds: Wall time of the dense model, on checked frames.
        relative_error: Of the final patch tokens, on checked frames.
    """

    frame: int
    time_s: float
    operations: int
    dense_operations: int
    updated_share: float
    milliseconds: float
    action: str
    flush: str
    dense_milliseconds: float | None = None
    relative_error: float | None = None


class Table:
    """Writes rows to a CSV file as they come."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow([field.name for field in fields(Row)])

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, row: Row) -> None:
        """Write one row through to the file."""
        self._writer.writerow(["" if value is None else value for value in asdict(row).values()])
        self._file.flush()


def summarize(rows: list[Row], plan: bool = False) -> dict[str, Any]:
    """Work out the figures of a run: operations ratio, times, relative error.

    Errors are over all checked frames; the operations ratio is over all frames, first ones
    included. Times are medians over the frames on which both models ran and that were no flushes.
    Under a plan, where dense frames recur, they are means over all frames but the first.
    """
    used, dense = sum(r.operations for r in rows), sum(r.dense_operations for r in rows)
    errors = [r.relative_error for r in rows if r.relative_error is not None]
    ours, theirs = _means(rows[1:]) if plan else _medians(rows)
    return {
        "frames": len(rows),
        "operations": {"dense": dense, "eventful": used, "ratio": dense / used if used else None},
        "time_ms": {
            "dense": theirs,
            "eventful": ours,
            "speedup": theirs / ours if theirs and ours else None,
        },
        "relative_error": {
            "mean": statistics.fmean(errors) if errors else None,
            "max": max(errors, default=None),
        },
        "checked_frames": len(errors),
        "actions": dict(Counter(r.action for r in rows)),
        "flushes": [{"frame": r.frame, "reason": r.flush} for r in rows if r.flush],
    }


def _medians(rows: list[Row]) -> tuple[float | None, float | None]:
    """Times of the eventful and of the dense model on checked frames that were no flushes."""
    timed = [r for r in rows if r.dense_milliseconds is not None and not r.flush]
    if not timed:
        return None, None
    dense = [r.dense_milliseconds for r in timed if r.dense_milliseconds is not None]
    return statistics.median(r.milliseconds for r in timed), statistics.median(dense)


def _means(rows: list[Row]) -> tuple[float | None, float | None]:
    """Times of the eventful model on all frames, and of the dense one where it ran."""
    dense = [r.dense_milliseconds for r in rows if r.dense_milliseconds is not None]
    if not dense:
        return None, None
    return statistics.fmean(r.milliseconds for r in rows), statistics.fmean(dense)


def plot(rows: list[Row], path: Path) -> None:
    """Draw operations, updated share and error over the frames; flushes are vertical lines."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    frames = [r.frame for r in rows]
    top.plot(frames, [r.dense_operations / 1e9 for r in rows], "--", color="grey", label="dense")
    top.plot(frames, [r.operations / 1e9 for r in rows], label="eventful")
    top.set_ylabel("operations (10⁹)")
    top.set_ylim(bottom=0)
    top.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    middle.plot(frames, [r.updated_share for r in rows])
    middle.set_ylabel("updated share")
    middle.set_ylim(0, 1.05)
    checked = [r for r in rows if r.relative_error is not None]
    bottom.plot([r.frame for r in checked], [r.relative_error or 0.0 for r in checked], "o-", ms=3)
    bottom.set_ylabel("relative error")
    bottom.set_ylim(bottom=0)
    bottom.set_xlabel("frame")
    for axis in (top, middle, bottom):
        for row in rows:
            if row.flush:
                axis.axvline(row.frame, color="tab:red", lw=0.6)
    figure.savefig(path, dpi=120)
