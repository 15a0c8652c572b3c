"""`eventful export`: a model's dense and step graphs for an inference runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.markup import escape

import eventful
from eventful.cli.options import Json, Size, Weights
from eventful.cli.output import check_folder, errors, show
from eventful.cli.subjects import Subject, check_size, find
from eventful.video import read

CALIBRATION = 16  # frames of the clip: of more, ranges hardly change


def export(
    model: str,
    size: int | None,
    weights: Path | None,
    runtime: str,
    method: str,
    precision: str,
    clip: Path | None,
    out: Path,
) -> dict[str, Any]:
    """Write a model as graphs.

    Args:
        model: "demo", or "timm:NAME".
        size: Side of the input; None for the model's own.
        weights: Of a timm model; None downloads them.
        runtime: "openvino" or "onnxruntime".
        method: The model's method to run.
        precision: "float32", "bfloat16" or "int8".
        clip: A video to calibrate int8 activations on.
        out: The folder.

    Raises:
        FileNotFoundError: There is no such video, or no such weights.
        ValueError: There is no such model, or it cannot be exported.
    """
    check_folder(out)
    unbuilt = find(model, weights)
    side = size or unbuilt.size
    check_size(side, unbuilt.patch)
    subject = unbuilt.build(side, side)
    frames = None if clip is None else _frames(clip, side, subject)
    noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    eventful.export(
        eventful.convert(subject.backbone),
        out,
        frames[0] if frames else noise,
        runtime=runtime,
        method=method,
        precision=precision,
        calibrate=frames,
    )
    loaded = eventful.load(out)
    return {
        "model": model,
        "runtime": runtime,
        "method": method,
        "precision": precision,
        "error": loaded.error,
        "size": side,
        "grid": list(loaded.layout.grid),
        "prefix_tokens": loaded.layout.prefix,
        "taps": list(loaded.layout.taps),
        "out": str(out),
        "files": sorted(path.name for path in out.iterdir()),
    }


def _frames(clip: Path, side: int, subject: Subject) -> list[torch.Tensor]:
    """Frames from the whole of a video, as the model takes them."""
    kept: list[torch.Tensor] = []
    distance = 1
    for number, image in enumerate(read(clip, size=side)):
        if number % distance == 0:
            kept.append(subject.normalize(image))
        if len(kept) == 2 * CALIBRATION:  # so that they are spread evenly, whatever its length
            kept, distance = kept[::2], 2 * distance
    return kept


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    height, width = report["grid"]
    lines = (
        f"{report['model']} at {report['size']} for {report['runtime']}: {report['out']}",
        f"tokens  a grid of {height} x {width}, and {report['prefix_tokens']} in front of it",
        f"taps    {', '.join(report['taps'])}",
        f"error   {report['error']:.2g}, relative, in {report['precision']}",
        f"files   {', '.join(report['files'])}",
        f'run it  eventful.Stream(eventful.load("{report["out"]}"), normalize=True)',
    )
    return escape("\n".join(lines))


def command(
    model: Annotated[str, typer.Argument(help="'demo', or 'timm:NAME' for any timm model.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.")],
    size: Size = None,
    weights: Weights = None,
    runtime: Annotated[str, typer.Option(help="openvino or onnxruntime.")] = "openvino",
    method: Annotated[str, typer.Option(help="The model's method to run.")] = "forward_features",
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or int8.")] = "float32",
    calibrate: Annotated[
        Path | None, typer.Option(help="A short video, for int8 activations in OpenVINO.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Write a model's dense and step graphs, for a stream without the model's own code."""
    with errors():
        report = export(model, size, weights, runtime, method, precision, calibrate, out)
    show(report, json_output, table)
