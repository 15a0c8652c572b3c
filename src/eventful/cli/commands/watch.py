"""`eventful watch`: a model over live cameras, one budget for all of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from eventful.cli.choices import chosen_policy
from eventful.cli.options import Json, LatencyMs, MaxError, Model, Share, TimeShare, Weights
from eventful.cli.output import errors, show
from eventful.cli.subjects import find, timm_network
from eventful.policies.parse import FRAME_POLICIES
from eventful.policies.text import examples

if TYPE_CHECKING:
    from eventful.live import Status, Watcher

DEFAULT = 0.2  # share of the dense operations


def watcher(
    sources: list[str],
    config: Path | None,
    model: str,
    weights: Path | None,
    outputs: tuple[str, ...],
    size: int | None,
    json_lines: str | None,
    parquet: Path | None,
    **options: Any,
) -> Watcher:
    """Make ready what is asked for; see `eventful watch --help`.

    Args:
        sources: `name=PLACE`, or places.
        config: A YAML or TOML file of cameras.
        model: "demo", or "timm:NAME".
        weights: Of a timm model; None downloads them.
        outputs: What is computed of each frame.
        size: Long side of frames; None for the model's own.
        json_lines: A file, or "-" for standard output; None for neither.
        parquet: A folder, or None.
        **options: As for `eventful.live.Watcher`.

    Raises:
        ValueError, OSError: As `eventful.live.Watcher` raises.
    """
    from eventful import live  # noqa: PLC0415 - optional libraries
    from eventful.live.sources import read  # noqa: PLC0415
    from eventful.outputs import demo_network  # noqa: PLC0415
    from eventful.outputs.networks import OUTPUTS, check_outputs  # noqa: PLC0415

    check_outputs(outputs, OUTPUTS if model == "demo" else OUTPUTS[:2])
    cameras = read(sources, config)
    known = find(model, weights)
    build: Any = partial(demo_network, outputs=outputs)
    if model != "demo":
        name = model.partition(":")[2]
        build = partial(
            timm_network, name=name, weights=weights, outputs=outputs, patch=known.patch
        )
    written: list[live.Output] = []
    if json_lines is not None:
        written.append(live.JsonLines(None if json_lines == "-" else Path(json_lines)))
    if parquet is not None:
        written.append(live.ParquetFolder(parquet, about={"model": model, "outputs": outputs}))
    fit = {"size": size or known.size, "patch": known.patch}
    made = live.Watcher(build, model=model, outputs=written, **fit, **options)
    for camera in cameras:
        made.add(camera.name, camera.place)
    return made


def table(status: Status) -> Group:
    """How all cameras are doing, for people; below it what went wrong last."""
    shown = Table(title=escape(f"{status.model}, {status.policy}"), title_justify="left")
    shown.add_column("camera", min_width=8, overflow="fold")
    shown.add_column("state", no_wrap=True)
    for name in ("/s", "frame", "error", "saved", "ms", "done", "lost", "bad", "back"):
        shown.add_column(name, justify="right", no_wrap=True)
    for one in status.cameras:
        saved = one.dense_operations / one.operations if one.operations else 0.0
        state = one.state if one.retry_in is None else f"{one.state} {one.retry_in:.0f} s"
        shown.add_row(
            escape(one.name),
            escape(state),
            f"{one.rate:.1f}",
            one.kind,
            "" if one.estimate is None else f"{one.estimate:.3f}",
            f"{saved:.1f}x" if saved else "",
            "" if one.latency_ms is None else f"{one.latency_ms:.0f}",
            *map(str, (one.processed, one.dropped, one.failed, one.reconnects)),
        )
    told = [f"{one.name}: {one.reason}" for one in status.cameras if one.reason]
    return Group(shown, *map(escape, told))


def figures(status: Status) -> dict[str, Any]:
    """What JSON can hold of it."""
    cameras = {
        one.name: {
            "source": one.source,
            "state": one.state,
            "reason": one.reason,
            "processed": one.processed,
            "dropped": one.dropped,
            "failed": one.failed,
            "reconnects": one.reconnects,
            "operations_ratio": one.dense_operations / max(1, one.operations),
        }
        for one in status.cameras
    }
    return {"model": status.model, "policy": status.policy, "cameras": cameras}


@contextmanager
def stopped_by_signals(watcher: Watcher) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the watch after the frame at hand."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(number, lambda *_: watcher.stop()) for number in known]
    try:
        yield
    finally:
        for number, handler in zip(known, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def screen(watcher: Watcher, console: Console) -> Iterator[None]:
    """Show the cameras in the terminal while it runs; nothing where nobody looks at one."""
    if not console.is_terminal:
        yield
        return
    shown = lambda: table(watcher.status())  # noqa: E731
    with Live(get_renderable=shown, console=console, refresh_per_second=4):
        yield


def command(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE...",
            help="name=PLACE, or a place: rtsp, rtmp and http URLs (HLS too), webcams such as "
            "/dev/video0, video files, - for standard input.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML or TOML file with places by name in 'cameras'.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help=f"{examples(FRAME_POLICIES)} [auto:{DEFAULT:g}].")
    ] = None,
    share: Share = None,
    time_share: TimeShare = None,
    max_error: MaxError = None,
    latency_ms: LatencyMs = None,
    model: Model = "demo",
    weights: Weights = None,
    outputs: Annotated[
        str,
        typer.Option(
            help="Of pooled, patches; with the demo also vehicles, saliency; joined by commas."
        ),
    ] = "pooled",
    size: Annotated[
        int | None, typer.Option(help="Long side of frames in pixels [the model's own].")
    ] = None,
    square: Annotated[
        bool, typer.Option("--square", help="Squeeze frames into squares of side --size.")
    ] = False,
    scene_cuts: Annotated[bool, typer.Option(help="Start over at scene cuts.")] = True,
    fast: Annotated[
        bool, typer.Option("--fast", help="Read files as fast as they are computed; drop nothing.")
    ] = False,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Never drop a frame; sources wait instead.")
    ] = False,
    runtime: Annotated[str, typer.Option(help="torch, openvino or onnxruntime.")] = "torch",
    json_lines: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Write a line of JSON for each result.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="Write Parquet files, a new one every five minutes.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="A folder to save to at the end, and to go on from.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Run a model over live cameras; dense frames go where pictures change.

    Ends when all sources have ended, on Ctrl-C or on SIGTERM, with the state of all cameras saved.
    """
    with errors():
        targets = {
            "share": share,
            "time": time_share,
            "max_error": max_error,
            "latency_ms": latency_ms,
        }
        if policy is None and all(value is None for value in targets.values()):
            targets["share"] = DEFAULT
        made = watcher(
            sources or [],
            config,
            model,
            weights,
            tuple(name.strip() for name in outputs.split(",") if name.strip()),
            size,
            json_lines,
            parquet,
            policy=str(chosen_policy(policy, targets)),
            square=square,
            scene_cuts=scene_cuts,
            fast=fast,
            lossless=lossless,
            runtime=runtime,
            state=state,
        )
        # `eventful.live.page.serve` goes around this, with `made.run(forever=True)` inside.
        with stopped_by_signals(made), screen(made, Console(stderr=True)):
            made.run()
        if json_lines != "-":
            status = made.status()
            show(figures(status), json_output, lambda _: table(status))
    if any(one.failed and not one.processed for one in made.status().cameras):
        raise typer.Exit(1)
