"""`eventful advise`: what to expect of a model on a video, before anything is built."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

import eventful
from eventful.advice import Advice, Range, advise
from eventful.cli.choices import Gates, as_option, named_blocks, read_point
from eventful.cli.clips import Clip
from eventful.cli.job import fitted
from eventful.cli.options import AnyModel, Blocks, Json, Point, Square, Task, Texts, Weights
from eventful.cli.output import errors, progress_bar, show
from eventful.cli.players import Player, model_of
from eventful.policies import Auto
from eventful.pretrained import Extras
from eventful.provenance import machine
from eventful.stream.cuts import SceneCuts
from eventful.video import Reader
from eventful.video.stills import is_image

SECONDS = 60.0
NOW_AND_THEN, MOSTLY = 0.1, 0.6  # shares of the looks at which the camera moves


@dataclass(frozen=True)
class Settings:
    """The options of the command."""

    video: Path
    model: str = "demo"
    weights: Path | None = None
    size: int | None = None
    square: bool = False
    seconds: float = SECONDS
    frames: int | None = None
    task: str | None = None
    extras: Extras = field(default_factory=Extras)
    blocks: Sequence[str] = ()

    @property
    def next(self) -> str:
        """What to type to run the model on the video, up to the policy."""
        words = ["eventful", "run", str(self.video)]
        words += [] if self.model == "demo" else ["--model", self.model]
        words += [] if self.weights is None else ["--weights", str(self.weights)]
        words += [] if self.size is None else ["--size", str(self.size)]
        words += ["--square"] if self.square else []
        words += [] if self.task is None else ["--task", self.task]
        words += [word for text in self.extras.texts for word in ("--text", text)]
        if self.extras.point is not None:
            words += ["--point", "{:g},{:g}".format(*self.extras.point)]
        words += [word for pattern in self.blocks for word in ("--blocks", pattern)]
        return shlex.join(words)


def look(settings: Settings, console: Console) -> dict[str, Any]:
    """Look at the video and the model; see `eventful advise --help`.

    Raises:
        ValueError, OSError: The model, the video and the options do not go together.
    """
    if settings.video.is_file() and is_image(settings.video):
        raise ValueError(
            f"{settings.video} is a picture; advise looks at how pictures change, give a video or "
            f"a folder of its frames"
        )
    model = model_of(
        settings.model,
        settings.weights,
        settings.size,
        settings.square,
        settings.task,
        settings.extras,
        named_blocks(settings.blocks),
    )
    with model.open(settings.video) as reader, progress_bar(console) as bar:
        clip = Clip(settings.video, 0, _count(settings, reader))
        shown = bar.add_task("building the model", total=None)

        def progress(text: str, done: int, total: int | None) -> None:
            bar.update(shown, description=text, completed=done, total=total)

        player = model.player(reader)
        try:
            player.start(Auto(), Gates(), SceneCuts())
            found = advise(
                lambda: _prepared(clip, reader, player),
                player,
                float(reader.rate),
                total=clip.total(reader),
                progress=progress,
            )
        except ValueError as error:
            raise ValueError(f"{settings.video.name}: {as_option(error)}") from error
        finally:
            player.close()
        return _report(settings, reader, found)


def _count(settings: Settings, reader: Reader) -> int:
    """How many frames to look at, at most."""
    count = ceil(settings.seconds * reader.rate)
    return count if settings.frames is None else min(count, settings.frames)


def _prepared(clip: Clip, reader: Reader, player: Player) -> Iterator[Any]:
    for frame, _ in clip.frames(reader):
        yield player.prepare(fitted(reader, frame))


def _report(settings: Settings, reader: Reader, found: Advice) -> dict[str, Any]:
    footage, price = found.footage, found.price
    minutes = footage.frames / footage.rate / 60
    policy = found.verdict.policy
    return {
        "eventful": eventful.__version__,
        "model": settings.model,
        "video": settings.video.name,
        "size": [reader.height, reader.width],
        "damage": reader.damage,
        "frames": footage.frames,
        "seconds": footage.frames / footage.rate,
        "dense_frames": found.dense_frames,
        "windows": found.windows,
        "camera": {
            "moving": footage.moving,
            "widths_a_second": footage.speed,
            "cuts": list(footage.cuts),
            "cuts_a_minute": len(footage.cuts) / minutes,
        },
        "changing": footage.changing,
        "unexplained": footage.unexplained,
        "dense": {"operations": price.counted.dense, "milliseconds": price.dense_ms},
        "costs": price.timed.to_dict(),
        "expected": [asdict(one) for one in found.expectations],
        "verdict": asdict(found.verdict),
        "next": None if policy is None else f"{settings.next} --policy {policy}",
        "machine": machine(),
    }


def table(report: dict[str, Any]) -> Any:
    """The report for people."""
    title = escape(f"{report['model']} on {report['video']}")
    view = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("error", "operations", "time of dense", "a frame", "time, skipping"):
        view.add_column(name, justify="right", no_wrap=True)
    for one in report["expected"]:
        ms, every = Range(**one["milliseconds"]), one["skipping"]["every"]
        view.add_row(
            f"{one['error']:g}",
            _share(Range(**one["operations"])),
            _share(Range(**one["time"])),
            f"{ms.value:.0f} ms",
            f"{100 * one['skipping_time']:.0f} % (1 of {every:.1f})",
        )
    return Group(*map(escape, _seen(report)), view, *map(escape, _said(report)))


def _share(found: Range) -> str:
    low, value, high = (100 * x for x in (found.low, found.value, found.high))
    return f"{value:.0f} % ({low:.0f}-{high:.0f})"


def _seen(report: dict[str, Any]) -> list[str]:
    """What the pixels tell."""
    camera = report["camera"]
    moving, speed = 100 * camera["moving"], 100 * camera["widths_a_second"]
    moves = f"{moving:.0f} % of the time, by {speed:.0f} % of the picture's width a second"
    what = "stands still" if camera["moving"] <= NOW_AND_THEN else f"moves {moves}"
    if camera["moving"] > MOSTLY:
        what = f"moves: {moves}"
    return [
        f"looked at  {report['frames']} frames ({report['seconds']:.0f} s); ran the model on "
        f"{report['dense_frames']} of them, {report['dense']['milliseconds']:.0f} ms each",
        f"camera     {what}; {camera['cuts_a_minute']:.1f} cuts a minute",
        f"changes    {100 * report['changing']:.0f} % of the picture within 0.2 s, "
        f"{100 * report['unexplained']:.0f} % beyond what motion explains",
    ]


def _said(report: dict[str, Any]) -> list[str]:
    """What to do."""
    found = report["verdict"]
    uses = {
        "auto": f"use {found['policy']}: {found['reason']}",
        "skip": f"use {found['policy']}: {found['reason']}",
        "nothing": f"do not use this, it would not pay: {found['reason']}",
    }
    notes = [
        "shares of the dense model's; in brackets where nine of ten such videos come out",
        "skipping: the dense model on 1 of K frames, for the same error",
    ]
    if report["windows"] == 1:
        notes.append("the video is short: how much its parts differ is not known")
    if report["damage"]:
        notes.append(f"warning: {report['damage']}")
    notes.append(uses[found["use"]])
    if report["next"] is not None:
        notes.append(f"next: {report['next']}")
    return notes


def command(
    video: Annotated[Path, typer.Argument(help="A video file or a folder of images.")],
    model: AnyModel = "demo",
    weights: Weights = None,
    size: Annotated[int | None, typer.Option(help="Long side in pixels [the model's own].")] = None,
    square: Square = False,
    seconds: Annotated[
        float, typer.Option(min=0, help="Look at so many seconds from the start.")
    ] = SECONDS,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Look at no more frames than these.")
    ] = None,
    task: Task = None,
    text: Texts = None,
    point: Point = None,
    blocks: Blocks = None,
    json_output: Json = False,
) -> None:
    """Say what eventful would save on your video with your model, and whether it pays at all.

    Looks at the pixels of a minute, runs the model on at most 78 of its frames, and foretells what
    errors of 0.1, 0.15 and 0.2 would cost. Nothing is written.
    """
    with errors():
        settings = Settings(
            video=video,
            model=model,
            weights=weights,
            size=size,
            square=square,
            seconds=seconds,
            frames=frames,
            task=task,
            extras=Extras(tuple(text or ()), read_point(point)),
            blocks=tuple(blocks or ()),
        )
        try:
            report = look(settings, Console(stderr=True))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    show(report, json_output, table)
