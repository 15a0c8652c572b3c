"""`eventful evaluate folder`: a model of one's own on one's own video, dense and eventful."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

import eventful
from eventful.cli.choices import as_option, chosen_policies, named_blocks, read_point
from eventful.cli.clips import Clip, demo_clips
from eventful.cli.devices import device_of
from eventful.cli.options import (
    Blocks,
    Device,
    Json,
    LatencyMs,
    MaxError,
    Point,
    Share,
    Task,
    Texts,
    Threshold,
    TimeShare,
)
from eventful.cli.output import check_folder, errors, progress_bar, show, written_whole
from eventful.policies import POLICIES, FramePolicy, Policy
from eventful.policies.text import examples
from eventful.pretrained import Compared, Extras, Loaded, compare, load
from eventful.pretrained.pictures import sheet
from eventful.provenance import machine, write_json
from eventful.video import Reader

FILES = ("summary.png", "report.json")


@dataclass(frozen=True)
class Settings:
    """The options of the command."""

    model: str
    clip: Clip
    task: str | None = None
    policies: Sequence[FramePolicy | Policy] = ()
    extras: Extras = field(default_factory=Extras)
    blocks: Sequence[str] = ()
    threshold: float = 0.3
    beside: bool = True
    scene_cuts: bool = True
    device: str = ""
    out: Path = Path("eventful-out")


def evaluate(settings: Settings, console: Console) -> dict[str, Any]:
    """Compare, and write the picture and the report; see `eventful evaluate folder --help`.

    Returns:
        The report, as in report.json.

    Raises:
        ValueError, OSError: The model, the video and the options do not go together.
    """
    check_folder(settings.out)
    with Reader(settings.clip.path) as reader:
        total = settings.clip.total(reader)
    loaded = load(settings.model, settings.task, settings.threshold)
    loaded.model.to(device_of(settings.device))
    frames = _Frames(settings.clip)
    clips = None if total is None else total // loaded.clip
    with progress_bar(console) as bar:
        shown = bar.add_task("", total=clips)

        def progress(text: str, frames: int, total: int | None) -> None:
            bar.update(shown, description=text, completed=frames, total=total)

        try:
            result = compare(
                loaded,
                frames,
                settings.policies,
                extras=settings.extras,
                where=named_blocks(settings.blocks),
                scene_cuts=settings.scene_cuts,
                beside=settings.beside,
                total=clips,
                progress=progress,
            )
        except ValueError as error:
            raise ValueError(as_option(error)) from error
    report = {
        "eventful": eventful.__version__,
        "video": settings.clip.path.name,
        "damage": frames.damage,
        **result.report(loaded),
        "machine": machine(),
        "files": {name: str(settings.out / name) for name in FILES},
    }
    settings.out.mkdir(parents=True, exist_ok=True)
    with written_whole(settings.out / FILES[0]) as path:
        _draw(loaded, result, settings.clip.path.name, path)
    write_json(report, settings.out / FILES[1])
    return report


class _Frames:
    """The frames of a clip, from the start whenever it is called."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self.damage: str | None = None

    def __call__(self) -> Iterator[np.ndarray]:
        with Reader(self._clip.path) as reader:
            for frame, _ in self._clip.frames(reader):
                yield frame.pixels
            self.damage = reader.damage


def _draw(loaded: Loaded, result: Compared, video: str, path: Path) -> None:
    """Some frames: the frame, the dense output, and every policy's."""
    numbers = sorted(set(result.frame_pictures).intersection(*(r.pictures for r in result.runs)))
    rows = [
        [
            result.frame_pictures[number],
            result.dense_pictures[number],
            *(run.pictures[number] for run in result.runs),
        ]
        for number in numbers
    ]
    notes = [[f"frame {n}", "", *(run.notes[n] for run in result.runs)] for n in numbers]
    titles = ["input", f"dense {loaded.task.name}", *(str(run.policy) for run in result.runs)]
    heading = f"{Path(loaded.name).name} on {video}"
    sheet(rows, titles, notes, heading, path)


def table(report: dict[str, Any]) -> Any:
    """The report for people."""
    title = f"{report['class']} ({report['task']}) on {report['video']}"
    view = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD)
    view.add_column("policy", no_wrap=True)
    names = [*report["measures"]]
    for name in ("operations", "time", "taps:\nmean", "error\nlargest", *names):
        view.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    dense = report["dense"]
    cost = f"{dense['operations'] / 1e9:.3g} x 10⁹", f"{dense['milliseconds']:.0f} ms"
    view.add_row("dense", *cost, "0", "0", *("-" for _ in names))
    for row in report["policies"]:
        view.add_row(*_row(row, names))
    return Group(view, *_notes(report))


def _row(row: dict[str, Any], names: Sequence[str]) -> list[str]:
    error, scores = row["tap_error"], row["scores"]
    return [
        escape(f"{'  ' if row['beside'] else ''}{row['policy']}"),
        f"{row['operations_ratio']:.1f}x fewer",
        f"{row['milliseconds']:.0f} ms, {row['time_ratio']:.1f}x",
        f"{error['mean']:.3f}",
        f"{error['max']:.3f}",
        *("-" if scores[name] is None else f"{scores[name]:.3f}" for name in names),
    ]


def _notes(report: dict[str, Any]) -> list[str]:
    what = "frames" if report["clip"] == 1 else f"clips of {report['clip']} frames"
    sizes = ", ".join(f"{w} x {h}" for h, w, _ in report["sizes"])
    notes = [f"{report['frames']} {what} at {sizes}"]
    if len(report["sizes"]) > 1:
        notes.append("the model's processor changes the size; each change is computed in full")
    notes += [f"{name.replace('_', ' ')}: {text}" for name, text in report["measures"].items()]
    if all(score is None for row in report["policies"] for score in row["scores"].values()):
        notes.append("the dense model finds nothing to compare with; try a lower --threshold")
    beside = [row for row in report["policies"] if row["beside"]]
    if beside:
        texts = " and ".join(row["policy"] for row in beside)
        notes.append(f"{texts}: what one would do instead, every K-th frame dense")
    if report["damage"]:
        notes.append(f"warning: {report['damage']}")
    return [escape(note) for note in (*notes, *report["files"].values())]


def command(
    model: Annotated[
        str,
        typer.Option(help="hf:FOLDER that save_pretrained has written, or hf:NAME on the hub."),
    ],
    video: Annotated[
        Path | None,
        typer.Option(help="A video file or a folder of images [the demo's moving camera]."),
    ] = None,
    task: Task = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help=f"{examples(POLICIES)}. Repeatable [error:0.15]."),
    ] = None,
    max_error: MaxError = None,
    latency_ms: LatencyMs = None,
    share: Share = None,
    time_share: TimeShare = None,
    text: Texts = None,
    point: Point = None,
    threshold: Threshold = 0.3,
    blocks: Blocks = None,
    beside: Annotated[
        bool,
        typer.Option(
            help="Also show what skipping frames and carrying outputs along give for at least as "
            "many operations."
        ),
    ] = True,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    scene_cuts: Annotated[
        bool, typer.Option(help="Compute frames after a scene cut in full.")
    ] = True,
    device: Device = "",
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("eventful-out"),
    json_output: Json = False,
) -> None:
    """Run your own model of transformers on your own video, dense and eventful side by side.

    Says what is saved in operations and time, and how far the eventful output is from the dense
    one, in the task's own measure. Writes summary.png (outputs side by side) and report.json.
    """
    with errors():
        targets = {
            "max_error": max_error,
            "latency_ms": latency_ms,
            "share": share,
            "time": time_share,
        }
        settings = Settings(
            model=model,
            clip=demo_clips(frames)[0] if video is None else Clip(video, 0, frames),
            task=task,
            policies=chosen_policies(policy or [], targets),
            extras=Extras(tuple(text or ()), read_point(point)),
            blocks=tuple(blocks or ()),
            threshold=threshold,
            beside=beside,
            scene_cuts=scene_cuts,
            device=device,
            out=out,
        )
        try:
            report = evaluate(settings, Console(stderr=True))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    show(report, json_output, table)
