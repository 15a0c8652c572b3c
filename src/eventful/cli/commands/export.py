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
from eventful.cli.subjects import check_size, find


def export(
    model: str, size: int | None, weights: Path | None, runtime: str, method: str, out: Path
) -> dict[str, Any]:
    """Write a model as graphs.

    Args:
        model: "demo", or "timm:NAME".
        size: Side of the input; None for the model's own.
        weights: Of a timm model; None downloads them.
        runtime: "openvino" or "onnxruntime".
        method: The model's method to run.
        out: The folder.

    Raises:
        ValueError: There is no such model, or it cannot be exported.
    """
    check_folder(out)
    unbuilt = find(model, weights)
    side = size or unbuilt.size
    check_size(side, unbuilt.patch)
    backbone = eventful.convert(unbuilt.build(side, side).backbone)
    frame = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    eventful.export(backbone, out, frame, runtime=runtime, method=method)
    loaded = eventful.load(out)
    return {
        "model": model,
        "runtime": runtime,
        "method": method,
        "size": side,
        "grid": list(loaded.layout.grid),
        "prefix_tokens": loaded.layout.prefix,
        "taps": list(loaded.layout.taps),
        "out": str(out),
        "files": sorted(path.name for path in out.iterdir()),
    }


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    height, width = report["grid"]
    lines = (
        f"{report['model']} at {report['size']} for {report['runtime']}: {report['out']}",
        f"tokens  a grid of {height} x {width}, and {report['prefix_tokens']} in front of it",
        f"taps    {', '.join(report['taps'])}",
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
    json_output: Json = False,
) -> None:
    """Write a model's dense and step graphs, for a stream without the model's own code."""
    with errors():
        report = export(model, size, weights, runtime, method, out)
    show(report, json_output, table)
