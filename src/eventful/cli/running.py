"""`eventful run`: a model over a video, beside the dense model on some frames."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table as RichTable
from torch import Tensor

from eventful import SceneCuts, Stream, convert
from eventful.cli.panels import Overlay
from eventful.cli.report import Row, Table, plot, summarize
from eventful.cli.subjects import Grid, Plan, Subject, check_size, plan
from eventful.models import demo_clip
from eventful.policies import Policy
from eventful.provenance import machine, write_json
from eventful.video import Frame, Reader, Writer


@dataclass(frozen=True)
class Settings:
    """The options of the command."""

    video: Path | None
    model: str
    weights: Path | None
    policy: Policy
    size: int | None
    keep_aspect: bool
    frames: int | None
    out: Path
    check_every: int
    gate: str
    attention: str
    scene_cuts: bool
    compile: bool
    state_dtype: torch.dtype


STATE_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def state_dtype(name: str) -> torch.dtype:
    """Find a dtype by name.

    Raises:
        ValueError: It is none that state is kept in.
    """
    if name not in STATE_DTYPES:
        raise ValueError(f"--state-dtype is one of {', '.join(STATE_DTYPES)}, got {name!r}")
    return STATE_DTYPES[name]


def run(settings: Settings, console: Console) -> dict[str, Any]:
    """Do the whole job; see `eventful run --help`.

    Nothing is written before the video has been opened and the model built and converted.

    Returns:
        The summary, as in summary.json.
    """
    path = settings.video or demo_clip()
    chosen = plan(settings.model, settings.weights)
    reader = _open(path, settings, chosen)
    subject = chosen.build(reader.height, reader.width)
    convert(subject.backbone, settings.policy, attention=settings.attention)  # type: ignore[arg-type]
    job = _Job(
        settings, subject, reader, (reader.height // chosen.patch, reader.width // chosen.patch)
    )
    interrupted = job.run(_aspect(path), console)
    summary = job.summary() | {
        "model": settings.model,
        "video": path.name,
        "policy": str(settings.policy),
        "attention": settings.attention,
        "size": [reader.height, reader.width],
        "damage": reader.damage,
        "interrupted": interrupted,
        "machine": machine(),
    }
    names = (*_FILES, "summary.json") if job.rows else ("frames.csv", "summary.json")
    summary["files"] = {name: str(settings.out / name) for name in names}
    if job.rows:
        plot(job.rows, settings.out / "summary.png")
    write_json(summary, settings.out / "summary.json")
    if reader.damage:
        console.print(f"warning: {path.name}: {reader.damage}", style="yellow")
    return summary


_FILES = ("overlay.mp4", "frames.csv", "summary.png")


def _open(path: Path, settings: Settings, chosen: Plan) -> Reader:
    size = chosen.size if settings.size is None else settings.size
    if not settings.keep_aspect:
        check_size(size, chosen.patch)
    return Reader(path, size, keep_aspect=settings.keep_aspect, patch=chosen.patch)


def _aspect(path: Path) -> float:
    with Reader(path) as native:
        return native.width / native.height


class _Job:
    """One pass over the video."""

    def __init__(self, settings: Settings, subject: Subject, reader: Reader, grid: Grid) -> None:
        self.settings, self.subject, self.reader, self.grid = settings, subject, reader, grid
        cuts = SceneCuts() if settings.scene_cuts else None
        self.stream = Stream(
            subject.backbone,
            scene_cuts=cuts,
            method="forward_features",
            compile=settings.compile,
            state_dtype=settings.state_dtype,
        )
        if settings.gate not in self.stream.gates:
            raise ValueError(f"no gate {settings.gate!r}; there are {', '.join(self.stream.gates)}")
        settings.policy.select(torch.zeros(1, grid[0] * grid[1]))  # raises if it does not fit
        known = [count for count in (reader.frames, settings.frames) if count]
        self.total = min(known) if known else None
        self.every = max(1, min(settings.check_every, (self.total or 10**9) // 4))
        self.rows: list[Row] = []

    def run(self, aspect: float, console: Console) -> bool:
        """Process the frames; True if Ctrl-C ended it."""
        self.settings.out.mkdir(parents=True, exist_ok=True)
        gate = self.settings.gate
        overlay = Overlay(
            aspect, ("input", self.subject.title, f"error at {gate}", f"updated at {gate}")
        )
        with ExitStack() as stack:
            table = stack.enter_context(Table(self.settings.out / "frames.csv"))
            writer = stack.enter_context(
                Writer(self.settings.out / "overlay.mp4", self.reader.rate)
            )
            progress = stack.enter_context(_progress(console))
            task = progress.add_task("run", total=self.total, ops="", fps="")
            if self.settings.compile:
                progress.update(task, ops="compiling")
                blank = torch.zeros(1, 3, self.reader.height, self.reader.width)
                self.stream.prepare(blank, [self.settings.policy])
            start = time.perf_counter()
            try:
                for frame in stack.enter_context(self.reader):
                    row, tokens = self._process(frame)
                    self.rows.append(row)
                    table.add(row)
                    writer.write(self._picture(overlay, frame, tokens), frame.time)
                    fps = len(self.rows) / (time.perf_counter() - start)
                    progress.update(
                        task,
                        advance=1,
                        fps=f"{fps:.1f} frames/s",
                        ops=f"{self.stream.stats.ratio:.2f}x fewer operations",
                    )
                    if len(self.rows) == self.settings.frames:
                        break
            except KeyboardInterrupt:
                return True
        return False

    @torch.inference_mode()
    def _process(self, frame: Frame) -> tuple[Row, Tensor]:
        """Run the eventful model, and on checked frames the dense one right behind it."""
        x = self.subject.normalize(frame.image)
        tokens = self.stream(x)[:, self.subject.prefix :]
        stats = self.stream.stats
        flush = stats.flushes[-1] if stats.flushes else None
        flushed = flush is not None and flush.frame == stats.frames - 1
        dense_ms = error = None
        if (len(self.rows) + 1) % self.every == 0:
            start = time.perf_counter()
            dense = self.subject.backbone.forward_features(x)[:, self.subject.prefix :]  # type: ignore[operator]
            dense_ms = (time.perf_counter() - start) * 1e3
            error = float((tokens - dense).norm() / dense.norm())
        row = Row(
            frame=len(self.rows),
            time_s=float(frame.time),
            operations=stats.operations.total,
            dense_operations=stats.dense_operations.total,
            updated_share=self._updated_share(),
            milliseconds=stats.seconds * 1e3,
            flush=flush.reason if flush is not None and flushed else "",
            dense_milliseconds=dense_ms,
            relative_error=error,
        )
        return row, tokens

    def _updated_share(self) -> float:
        updated = self.stream.stats.updated
        tokens = self.grid[0] * self.grid[1] + self.subject.prefix
        return sum(map(sum, updated.values())) / (len(updated) * tokens)

    @torch.inference_mode()
    def _picture(self, overlay: Overlay, frame: Frame, tokens: Tensor) -> np.ndarray:
        view = self.stream.gate(self.settings.gate)
        error, updated = (
            x[0, self.subject.prefix :].view(self.grid).numpy() for x in (view.error, view.updated)
        )
        last = [r for r in self.rows if r.relative_error is not None]
        footer = f"frame {len(self.rows) - 1}   {self.stream.stats.ratio:.2f}x fewer operations"
        if last:
            footer += f"   relative error {last[-1].relative_error:.3f} (frame {last[-1].frame})"
        if self.rows[-1].flush:
            footer += f"   computed in full: {self.rows[-1].flush}"
        return overlay.draw(
            frame.pixels,
            self.subject.picture(tokens, self.grid),
            error.astype(np.float32),
            updated,
            footer,
        )

    def summary(self) -> dict[str, Any]:
        """The figures of the frames done."""
        return summarize(self.rows) | {"state_bytes": self.stream.stats.state_bytes}


def _progress(console: Console) -> Progress:
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[fps]}"),
        TextColumn("{task.fields[ops]}"),
        console=console,
    )


def table(summary: dict[str, Any]) -> RichTable:
    """The summary for people."""
    result = RichTable(title=f"{summary['video']} through {summary['model']}, {summary['policy']}")
    for name in ("", "dense", "eventful", "ratio"):
        result.add_column(name, justify="left" if not name else "right")
    operations, times = summary["operations"], summary["time_ms"]
    count = max(1, summary["frames"])
    result.add_row(
        "operations a frame",
        f"{operations['dense'] / count / 1e9:.2f} G",
        f"{operations['eventful'] / count / 1e9:.2f} G",
        _times(operations["ratio"]),
    )
    result.add_row(
        "time a frame", *(_ms(times[k]) for k in ("dense", "eventful")), _times(times["speedup"])
    )
    error = summary["relative_error"]
    if error["mean"] is not None:
        result.add_row("relative error", "", f"mean {error['mean']:.3f}", f"max {error['max']:.3f}")
    result.add_row("state", "", f"{summary['state_bytes'] / 1e6:.1f} MB", "")
    result.add_row(
        "computed in full", "", f"{len(summary['flushes'])} of {summary['frames']} frames", ""
    )
    result.caption = "\n".join(summary["files"].values())
    return result


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"
