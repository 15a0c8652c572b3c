"""`eventful calibrate`: policies of their own for all gates, from a short clip."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from eventful import KeepAll, calibration
from eventful.calibration import KINDS, Survey, Target, Trials
from eventful.calibration.allocation import Kind
from eventful.cli.choices import Gates, one_of
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
from eventful.cli.subjects import check_size, find
from eventful.models import demo_clip
from eventful.video import Reader


@dataclass(frozen=True)
class Settings:
    """The options of the command."""

    video: Path | None
    model: str
    weights: Path | None
    error: float | None
    share: float | None
    kind: str
    size: int | None
    keep_aspect: bool
    frames: int
    out: Path
    gates: Gates


def calibrate(settings: Settings, console: Console) -> dict[str, Any]:
    """Calibrate a model on a clip and write the file; see `eventful calibrate --help`.

    Whatever can be refused is refused before the long work.

    Returns:
        What is in the file, and its name.

    Raises:
        FileNotFoundError: There is no such video, or no such weights.
        OSError: The file cannot be written.
        ValueError: Something does not fit; the message says what.
    """
    if (settings.error is None) == (settings.share is None):
        raise ValueError("give one of --error, such as 0.1, and --share, such as 0.25")
    target = Target(settings.error, settings.share)
    kind: Kind = one_of("--kind", settings.kind, KINDS)  # type: ignore[assignment]
    out = calibration.check_writable(settings.out)
    path = settings.video or demo_clip()
    model = find(settings.model, settings.weights)
    size = model.size if settings.size is None else settings.size
    if not settings.keep_aspect:
        check_size(size, model.patch)
    with Reader(path, size, keep_aspect=settings.keep_aspect, patch=model.patch) as reader:
        subject = model.build(reader.height, reader.width)
        settings.gates.convert(subject.backbone, KeepAll())
        frames = [subject.normalize(frame.image) for frame in islice(reader, settings.frames)]

    def patches(tokens: Tensor) -> Tensor:
        return tokens[:, subject.prefix :]

    trials = Trials(subject.backbone, frames, patches, normalize=False, method="forward_features")
    with _progress(console) as progress:
        task = progress.add_task("runs of the clip", total=None)
        survey = Survey.of(
            trials,
            target,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
        found = survey.calibrate(kind)
        progress.update(task, total=progress.tasks[task].completed)  # often fewer than feared
    about = {
        "model": settings.model,
        "video": path.name,
        "frames": len(frames),
        "size": [reader.height, reader.width],
        **settings.gates.names(),
    }
    calibration.write(found, out, about)
    if reader.damage:
        console.print(f"warning: {path.name}: {reader.damage}", style="yellow", markup=False)
    if not found.reached:
        console.print(f"warning: {_missed(target, found)}", style="yellow", markup=False)
    return calibration.content(found, about) | {"file": str(out)}


def _missed(target: Target, found: calibration.Calibration) -> str:
    came = found.measured
    return (
        f"{target.text} was not reached on this clip; the file has what comes closest: an error of "
        f"{came.error:.4g} at {came.share:.4g} of the dense operations"
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    about, target = result["about"], Target(**result["target"])
    title = f"{about['model']} on {about['frames']} frames of {about['video']}"
    view = Table(title=escape(title))
    view.add_column(target.text)
    for name in ("relative error", "operations, of dense"):
        view.add_column(name, justify="right")
    rows = {
        "calibrated, foretold": "predicted",
        "calibrated, measured": "measured",
        "an equal share at all gates": "equal",
    }
    for label, name in rows.items():
        figures = result[name]
        view.add_row(label, f"{figures['error']:.4f}", f"{figures['share']:.1%}")
    view.caption = f"{'' if result['reached'] else 'not reached; '}{escape(result['file'])}"
    return view


def command(
    video: Video = None,
    model: Model = "demo",
    weights: Weights = None,
    error: Annotated[
        float | None, typer.Option(help="Mean relative error not to be exceeded, such as 0.1.")
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="Share of the dense operations not to be exceeded.")
    ] = None,
    kind: Annotated[
        str,
        typer.Option(help="threshold: an error for each gate. top: a share of tokens for each."),
    ] = "threshold",
    size: Size = None,
    keep_aspect: KeepAspect = False,
    frames: Annotated[int, typer.Option(min=2, help="Use the first so many frames.")] = 16,
    out: Annotated[Path, typer.Option(help="The .json file to write.")] = Path("calibration.json"),
    attention: Attention = "incremental",
    gating: Gating = "paper",
    measure: Measure = "error",
    json_output: Json = False,
) -> None:
    """Find policies of their own for all gates that reach a target on a short clip of one scene.

    --error asks for the least operations at an error, --share for the least error at a cost; frames
    computed in full do not count. The file is used with: eventful run --policy FILE, with the same
    --attention, --gating and --measure. The exit code is 1 if the target was not reached; the file
    then has what comes closest.
    """
    with errors():
        settings = Settings(
            video=video,
            model=model,
            weights=weights,
            error=error,
            share=share,
            kind=kind,
            size=size,
            keep_aspect=keep_aspect,
            frames=frames,
            out=out,
            gates=Gates(attention, gating, measure),
        )
        result = calibrate(settings, Console(stderr=True))
    show(result, json_output, table)
    if not result["reached"]:
        raise typer.Exit(1)
