"""`eventful watch`: a model over live cameras, one budget for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from eventful.cli import watching
from eventful.cli.choices import chosen_policy
from eventful.cli.options import (
    Json,
    LongSide,
    MaxError,
    Model,
    Outputs,
    Share,
    Square,
    StartOver,
    TimeShare,
    Weights,
)
from eventful.cli.output import errors, show
from eventful.cli.page import TOKEN, Place, served
from eventful.policies.parse import FRAME_POLICIES
from eventful.policies.text import examples

DEFAULT = 0.2  # share of the dense operations


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
    latency_ms: Annotated[
        float | None,
        typer.Option(
            help="Short for --policy latency:T: mean ms of a frame of every camera, together."
        ),
    ] = None,
    model: Model = "demo",
    weights: Weights = None,
    outputs: Outputs = "pooled",
    size: LongSide = None,
    square: Square = False,
    scene_cuts: StartOver = True,
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
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Show the cameras on a page for browsers.")
    ] = True,
    host: Annotated[
        str,
        typer.Option(help="Address of the page; one that other machines reach needs a token."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The page's port; 0 takes a free one.")
    ] = 8008,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help=f"A file that holds the token which the page asks for [the environment's {TOKEN}]."
        ),
    ] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(help="A name by which browsers call this machine. Repeatable."),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="The page's certificate (PEM), for HTTPS.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="The certificate's key, unless its file has that too.")
    ] = None,
    allow: Annotated[
        str,
        typer.Option(
            metavar="SCHEMES",
            help="Schemes of cameras that the page may add, joined by commas; '' for none.",
        ),
    ] = "rtsp,rtsps",
) -> None:
    """Run a model over live cameras; dense frames go where pictures change.

    A page at http://127.0.0.1:8008/ shows them. Ends when all sources have ended, on Ctrl-C or on
    SIGTERM, with the state of all cameras saved. The exit code is 1 if all sources have ended and
    one of them gave no result, and 2 after a mistake or on a full disk.
    """
    with errors():
        from eventful.live.sources import read  # noqa: PLC0415 - optional libraries

        targets = {
            "share": share,
            "time": time_share,
            "max_error": max_error,
            "latency_ms": latency_ms,
        }
        if policy is None and all(value is None for value in targets.values()):
            targets["share"] = DEFAULT
        cameras = read(sources or [], config)
        made = watching.watcher(
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
        names = tuple(host_name or ())
        place = Place(host, port, token_file, allow, names, certificate, key) if page else None
        with watching.stopped_by_signals(made) as stopped, served(made, place):
            watching.run(made, cameras, Console(stderr=True))
        status = made.status()
        if json_lines != "-":
            show(watching.figures(status), json_output, lambda _: watching.table(status))
    lacking = [] if stopped.is_set() else watching.fruitless(status)
    for line in lacking:
        typer.echo(f"error: {line}", err=True)
    if lacking:
        raise typer.Exit(1)
