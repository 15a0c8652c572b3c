"""`eventful run`: a model over a video, beside the dense model on some frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from eventful.cli.choices import chosen_policy, gates_of, read_point
from eventful.cli.clips import DEMO_SECONDS, DEMO_SIZE, Clip, demo_clips
from eventful.cli.job import Settings, run
from eventful.cli.options import (
    AnyModel,
    Blocks,
    Json,
    LatencyMs,
    MaxError,
    Point,
    Share,
    Task,
    Texts,
    TimeShare,
    Video,
    Weights,
)
from eventful.cli.output import errors, show
from eventful.cli.report import table
from eventful.policies import POLICIES
from eventful.policies.text import examples
from eventful.pretrained import Extras

_IN_PYTHON = "{} from Python"
REMOVED = {
    "--attention": _IN_PYTHON.format("eventful.convert(model, policy, attention=...)"),
    "--gating": _IN_PYTHON.format("eventful.convert(model, policy, gating=...)"),
    "--measure": _IN_PYTHON.format("eventful.convert(model, policy, measure=...)"),
    "--gate": _IN_PYTHON.format("stream.gate(name)"),
    "--compile": _IN_PYTHON.format("eventful.Stream(model, compile=True)"),
    "--state-dtype": _IN_PYTHON.format("eventful.Stream(model, state_dtype=...)"),
    "--keep-aspect": "nothing (the aspect is kept), or --square for squares",
}


class Command(TyperCommand):
    """Says what replaces an option that is gone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        with errors():
            for arg in args:
                name = arg.partition("=")[0]
                if name in REMOVED:
                    raise ValueError(f"eventful run has no {name} any more; use {REMOVED[name]}")
        return super().parse_args(ctx, args)


def command(
    video: Video = None,
    policy: Annotated[
        str | None,
        typer.Option(help=f"{examples(POLICIES)}, or a file of calibrate [error:0.15]."),
    ] = None,
    max_error: MaxError = None,
    latency_ms: LatencyMs = None,
    share: Share = None,
    time_share: TimeShare = None,
    model: AnyModel = "demo",
    weights: Weights = None,
    size: Annotated[
        int | None,
        typer.Option(help=f"Long side in pixels [the model's own; {DEMO_SIZE} for the demo]."),
    ] = None,
    square: Annotated[
        bool, typer.Option("--square", help="Squeeze frames into squares of side --size.")
    ] = False,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many frames (of each clip).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("eventful-out"),
    check_every: Annotated[
        int | None,
        typer.Option(min=1, help="Run the dense model too on one of so many frames [10]."),
    ] = None,
    scene_cuts: Annotated[
        bool, typer.Option(help="Compute frames after a scene cut in full.")
    ] = True,
    task: Task = None,
    text: Texts = None,
    point: Point = None,
    blocks: Blocks = None,
    json_output: Json = False,
) -> None:
    """Run a model over a video; see what it saves, and how far it is from the dense model.

    Without VIDEO it runs the demo: a moving camera and a still one, in less than 90 seconds.

    Writes overlay.mp4 (input, dense result, eventful result, what was computed), summary.png and
    report.json. Ctrl-C ends early and leaves all three for the frames done.
    """
    with errors():
        targets = {
            "max_error": max_error,
            "latency_ms": latency_ms,
            "share": share,
            "time": time_share,
        }
        chosen = chosen_policy(policy, targets)
        demo = video is None
        clips = demo_clips(frames) if video is None else [Clip(video, 0, frames)]
        settings = Settings(
            clips=clips,
            model=model,
            weights=weights,
            policy=chosen,
            gates=gates_of(chosen, model),
            size=DEMO_SIZE if demo and size is None and model == "demo" else size,
            square=square,
            out=out,
            check_every=check_every,
            scene_cuts=scene_cuts,
            seconds=DEMO_SECONDS if demo and frames is None else None,
            task=task,
            extras=Extras(tuple(text or ()), read_point(point)),
            blocks=tuple(blocks or ()),
        )
        report = run(settings, Console(stderr=True))
    show(report, json_output, table)
    if report["interrupted"]:
        raise typer.Exit(130)
