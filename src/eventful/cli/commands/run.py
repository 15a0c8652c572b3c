"""`eventful run`: a model over a video, beside the dense model on some frames."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table as RichTable
from torch import Tensor

from eventful.cli.choices import (
    PLANS,
    POLICIES,
    STATE_DTYPES,
    Gates,
    RunSettings,
    one_of,
    policy_or_plan,
    refuse_foreign_file,
    refuse_gate_options,
)
from eventful.cli.engines import Done, Engine, engine
from eventful.cli.options import (
    Attention,
    Gating,
    Json,
    KeepAspect,
    Measure,
    Model,
    Size,
    Video,
    Weights,
)
from eventful.cli.output import errors, show
from eventful.cli.panels import Overlay
from eventful.cli.report import Row, Table, plot, summarize
from eventful.cli.subjects import Grid, Subject, Unbuilt, check_size, find
from eventful.models import demo_clip
from eventful.provenance import machine, write_json
from eventful.reuse import Plan
from eventful.video import Frame, Reader, Writer


def run(settings: RunSettings, console: Console) -> dict[str, Any]:
    """Do the whole job; see `eventful run --help`.

    Nothing is written before the video has been opened and the model built and converted.

    Returns:
        The summary, as in summary.json.
    """
    path = settings.video or demo_clip()
    model = find(settings.model, settings.weights)
    reader = _open(path, settings, model)
    subject = model.build(reader.height, reader.width)
    job = _Job(
        settings, subject, reader, (reader.height // model.patch, reader.width // model.patch)
    )
    interrupted = job.run(_aspect(path), console)
    summary = job.summary() | {
        "model": settings.model,
        "video": path.name,
        "policy": str(settings.policy),
        **job.engine.told,
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
        console.print(f"warning: {path.name}: {reader.damage}", style="yellow", markup=False)
    return summary


_FILES = ("overlay.mp4", "frames.csv", "summary.png")


def _open(path: Path, settings: RunSettings, model: Unbuilt) -> Reader:
    size = model.size if settings.size is None else settings.size
    if not settings.keep_aspect:
        check_size(size, model.patch)
    return Reader(path, size, keep_aspect=settings.keep_aspect, patch=model.patch)


def _aspect(path: Path) -> float:
    with Reader(path) as native:
        return native.width / native.height


def _make_folder(path: Path) -> None:
    """Make the folder to write to, if need be, and see that it can be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise type(error)(
            f"--out needs a folder that can be written to; {path} is none ({error.strerror}), name "
            f"another"
        ) from error


class _Job:
    """One pass over the video."""

    def __init__(self, settings: RunSettings, subject: Subject, reader: Reader, grid: Grid) -> None:
        self.settings, self.subject, self.reader, self.grid = settings, subject, reader, grid
        self.engine: Engine = engine(subject, settings, grid)
        known = [count for count in (reader.frames, settings.frames) if count]
        self.total = min(known) if known else None
        self.every = max(1, min(settings.check_every, (self.total or 10**9) // 4))
        self.wrong = torch.zeros(grid)  # relative error of each patch, when it was last known
        self.rows: list[Row] = []

    def run(self, aspect: float, console: Console) -> bool:
        """Process the frames; True if Ctrl-C ended it."""
        if self.settings.compile:
            with console.status("compiling"):
                self.engine.prepare(torch.zeros(1, 3, self.reader.height, self.reader.width))
        _make_folder(self.settings.out)
        overlay = Overlay(aspect, ("input", self.subject.title, *self.engine.titles))
        with ExitStack() as stack:
            table = stack.enter_context(Table(self.settings.out / "frames.csv"))
            writer = stack.enter_context(
                Writer(self.settings.out / "overlay.mp4", self.reader.rate)
            )
            progress = stack.enter_context(_progress(console))
            task = progress.add_task("run", total=self.total, ops="", fps="")
            start = time.perf_counter()
            try:
                for frame in stack.enter_context(self.reader):
                    row, tokens = self._process(frame)
                    self.rows.append(row)
                    table.add(row)
                    writer.write(self._picture(overlay, frame, tokens), frame.time)
                    fps = len(self.rows) / (time.perf_counter() - start)
                    progress.update(task, advance=1, fps=f"{fps:.1f} frames/s", ops=self._fewer())
                    if len(self.rows) == self.settings.frames:
                        break
            except KeyboardInterrupt:
                return True
        return False

    @torch.inference_mode()
    def _process(self, frame: Frame) -> tuple[Row, Tensor]:
        """Run the frame, and on checked frames the dense model right behind it."""
        done = self.engine(frame.image)
        dense_ms = error = None
        if self.engine.checked(len(self.rows), self.every):
            dense_ms, error = self._check(frame, done)
        row = Row(
            frame=len(self.rows),
            time_s=float(frame.time),
            operations=done.operations,
            dense_operations=done.dense_operations,
            updated_share=done.updated_share,
            milliseconds=done.milliseconds,
            action=done.action,
            flush=done.flush,
            dense_milliseconds=dense_ms,
            relative_error=error,
        )
        return row, done.tokens

    def _check(self, frame: Frame, done: Done) -> tuple[float, float]:
        """Time of the dense model in milliseconds, and the relative error against it."""
        x = self.subject.normalize(frame.image)
        start = time.perf_counter()
        dense = self.subject.backbone.forward_features(x)[:, self.subject.prefix :]  # type: ignore[operator]
        milliseconds = (time.perf_counter() - start) * 1e3
        wrong = (done.tokens - dense).norm(dim=2) / dense.norm(dim=2)
        self.wrong = wrong[0].view(self.grid)
        return milliseconds, float((done.tokens - dense).norm() / dense.norm())

    @torch.inference_mode()
    def _picture(self, overlay: Overlay, frame: Frame, tokens: Tensor) -> np.ndarray:
        error, updated = (x.numpy() for x in self.engine.maps(self.wrong))
        return overlay.draw(
            frame.pixels,
            self.subject.picture(tokens, self.grid),
            error.astype(np.float32),
            updated,
            self._footer(),
        )

    def _footer(self) -> str:
        row = self.rows[-1]
        action = f"{row.action} ({row.flush})" if row.flush else row.action
        parts = [f"frame {row.frame}", action, self._fewer()]
        checked = [r for r in self.rows if r.relative_error is not None]
        if checked:
            last = checked[-1]
            parts.append(f"relative error {last.relative_error:.3f} (frame {last.frame})")
        return "   ".join(parts)

    def _fewer(self) -> str:
        dense, used = (
            sum(getattr(row, name) for row in self.rows)
            for name in ("dense_operations", "operations")
        )
        return f"{dense / max(1, used):.2f}x fewer operations"

    def summary(self) -> dict[str, Any]:
        """The figures of the frames done."""
        state = {"state_bytes": self.engine.state_bytes}
        return summarize(self.rows, self.engine.plan) | state


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
    title = f"{summary['video']} through {summary['model']}, {summary['policy']}"
    result = RichTable(title=escape(title))
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
    if summary["state_bytes"] is not None:
        result.add_row("state", "", f"{summary['state_bytes'] / 1e6:.1f} MB", "")
    actions = ", ".join(f"{name} {count}" for name, count in summary["actions"].items())
    result.add_row("frames", "", actions, "")
    result.add_row(
        "computed in full", "", f"{len(summary['flushes'])} of {summary['frames']} frames", ""
    )
    result.caption = escape("\n".join(summary["files"].values()))
    return result


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def command(
    context: typer.Context,
    video: Video = None,
    model: Model = "demo",
    weights: Weights = None,
    policy: Annotated[
        str,
        typer.Option(help=f"A policy of gates: {POLICIES}. Or a plan, for a timm ViT: {PLANS}."),
    ] = "fraction:0.125",
    size: Size = None,
    keep_aspect: KeepAspect = False,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("eventful-out"),
    check_every: Annotated[
        int, typer.Option(min=1, help="Run the dense model too on one of so many frames.")
    ] = 10,
    gate: Annotated[
        str | None, typer.Option(help="The gate to picture [blocks.3.qkv, else the first].")
    ] = None,
    attention: Attention = "incremental",
    gating: Gating = "paper",
    measure: Measure = "error",
    scene_cuts: Annotated[
        bool, typer.Option(help="Compute frames behind a scene cut in full.")
    ] = True,
    compile_blocks: Annotated[
        bool, typer.Option("--compile", help="Compile the blocks first; needs top: or fraction:.")
    ] = False,
    state_dtype: Annotated[
        str, typer.Option(help=f"What is remembered is kept in: {', '.join(STATE_DTYPES)}.")
    ] = "float32",
    json_output: Json = False,
) -> None:
    """Run a model over a video; write what it saw, what it cost and how far it is from dense.

    Writes overlay.mp4 (input, result, an error, updated patches), frames.csv, summary.json and
    summary.png. Ctrl-C ends early and leaves all four for the frames done.

    A plan has no gates; the options of gates (--gate, --attention, --gating, --measure,
    --scene-cuts, --compile, --state-dtype) are refused beside one.
    """
    with errors():
        chosen = policy_or_plan(policy)
        if isinstance(chosen, Plan):
            refuse_gate_options(context, chosen)
        gates = Gates(attention, gating, measure)
        refuse_foreign_file(chosen, model, gates)
        settings = RunSettings(
            video=video,
            model=model,
            weights=weights,
            policy=chosen,
            size=size,
            keep_aspect=keep_aspect,
            frames=frames,
            out=out,
            check_every=check_every,
            gate=gate,
            gates=gates,
            scene_cuts=scene_cuts,
            compile=compile_blocks,
            state_dtype=STATE_DTYPES[one_of("--state-dtype", state_dtype, STATE_DTYPES)],
        )
        summary = run(settings, Console(stderr=True))
    show(summary, json_output, table)
    if summary["interrupted"]:
        raise typer.Exit(130)
