"""`eventful archive`: a model over many videos, into Parquet files with a row a frame."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

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
from eventful.cli.output import errors, progress_bar, show
from eventful.cli.subjects import find, timm_network
from eventful.policies.parse import FRAME_POLICIES
from eventful.policies.text import examples

if TYPE_CHECKING:
    from eventful.archive import Progress, Report

SHOWN = 20  # problems in the table


def archive(
    sources: list[str],
    out: Path,
    model: str,
    weights: Path | None,
    outputs: tuple[str, ...],
    size: int | None,
    lance: bool,
    **options: Any,
) -> dict[str, Any]:
    """Do the whole job; see `eventful archive --help`.

    Args:
        sources: Files, folders, globs, lists, URLs.
        out: The folder to write to.
        model: "demo", or "timm:NAME".
        weights: Of a timm model; None downloads them.
        outputs: What is kept of each frame.
        size: Long side of frames; None for the model's own.
        lance: Write a Lance data set too.
        **options: As for `eventful.archive.run`.

    Raises:
        ValueError, OSError: As `eventful.archive.run` raises.
    """
    from eventful import archive as archives  # noqa: PLC0415 - optional libraries
    from eventful.outputs.networks import OUTPUTS, check_outputs  # noqa: PLC0415

    if lance and find_spec("lance") is None:
        raise ValueError("--lance needs Lance; pip install pylance")
    check_outputs(outputs, OUTPUTS if model == "demo" else OUTPUTS[:2])
    known = find(model, weights)
    build: Any = partial(archives.demo_network, outputs=outputs)
    if model != "demo":
        name = model.partition(":")[2]
        build = partial(
            timm_network, name=name, weights=weights, outputs=outputs, patch=known.patch
        )
    options |= {"size": size or known.size, "patch": known.patch, "outputs": ",".join(outputs)}
    report = archives.run(sources, out, build, model=model, **options)
    if lance and report.rows:
        from eventful.archive.to_lance import to_lance  # noqa: PLC0415

        to_lance(out)
    return figures(report)


def figures(report: Report) -> dict[str, Any]:
    """What JSON can hold of a report."""
    return {
        "out": str(report.out),
        "videos": report.videos,
        "segments": report.segments,
        "segments_done": report.done,
        "segments_there_before": report.there,
        "rows": report.rows,
        "kinds": dict(report.kinds),
        "operations_ratio": report.dense_operations / max(1, report.operations),
        "seconds": {name: round(value, 3) for name, value in report.seconds.items()},
        "problems": [asdict(problem) for problem in report.problems],
    }


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    wall = report["seconds"]["wall"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in report["kinds"].items())
    rate = f"{report['rows'] / wall:.1f} frames/s" if report["rows"] else "nothing left to compute"
    lines = [
        f"{report['out']}: {report['videos']} videos, {report['segments_done']} of "
        f"{report['segments']} segments done, {report['segments_there_before']} of them before",
        f"rows        {report['rows']} in {wall:.1f} s, {rate}",
    ]
    if report["rows"]:
        lines += [
            f"kinds       {kinds}",
            f"operations  {report['operations_ratio']:.2f}x fewer than dense",
        ]
    problems = report["problems"]
    lines.append(f"problems    {len(problems)}" + (", in problems.parquet" if problems else ""))
    for one in problems[:SHOWN]:
        part = "" if one["segment"] is None else f", segment {one['segment']}"
        lines.append(f"  {one['video']}{part} ({one['kind']}): {one['reason']}")
    lines += [f"  and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return escape("\n".join(lines))


def command(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Videos, folders, globs, CSV or Parquet lists with a column 'path', URLs.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write to, or to go on in.")],
    policy: Annotated[
        str | None, typer.Option(help=f"{examples(FRAME_POLICIES)} [error:0.15].")
    ] = None,
    max_error: MaxError = None,
    share: Share = None,
    time_share: TimeShare = None,
    model: Model = "demo",
    weights: Weights = None,
    outputs: Outputs = "pooled",
    size: LongSide = None,
    square: Square = False,
    segment: Annotated[int, typer.Option(help="Frames of a segment.")] = 1500,
    scene_cuts: StartOver = True,
    lookahead: Annotated[
        int,
        typer.Option(help="Frames that may wait to be carried from both sides; 0 for none."),
    ] = 16,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster [start one here].")] = None,
    workers: Annotated[int | None, typer.Option(help="Workers [as processors allow].")] = None,
    threads: Annotated[int, typer.Option(help="Threads of a worker.")] = 1,
    runtime: Annotated[str, typer.Option(help="torch, openvino or onnxruntime.")] = "torch",
    lance: Annotated[bool, typer.Option("--lance", help="Write a Lance data set too.")] = False,
    json_output: Json = False,
) -> None:
    """Run a model over many videos, into Parquet files with a row for each frame.

    The same command again goes on where a run ended, however it ended, and adds new videos.
    """
    with errors():
        targets = {"max_error": max_error, "share": share, "time": time_share}
        chosen = chosen_policy(policy, targets)
        with progress_bar(Console(stderr=True)) as bar:
            task = bar.add_task("opening", total=None)

            def progress(now: Progress) -> None:
                text = f"{now.doing}, {now.rows} rows" if now.rows else now.doing
                bar.update(task, completed=now.done, total=now.total, description=text)

            report = archive(
                sources,
                out,
                model,
                weights,
                tuple(name.strip() for name in outputs.split(",") if name.strip()),
                size,
                lance,
                policy=str(chosen),
                square=square,
                segment=segment,
                scene_cuts=scene_cuts,
                lookahead=lookahead,
                engine=engine,
                address=address,
                workers=workers,
                threads=threads,
                runtime=runtime,
                progress=progress,
            )
    show(report, json_output, table)
    if report["problems"]:
        raise typer.Exit(1)
