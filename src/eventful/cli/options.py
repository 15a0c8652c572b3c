"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eventful.attention import FORMS
from eventful.block.gate import MEASURES
from eventful.cli.choices import GATINGS

Video = Annotated[
    Path | None,
    typer.Argument(help="A video file or a folder of images; without it, the demo."),
]
Model = Annotated[str, typer.Option(help="'demo', or 'timm:NAME' for any timm model.")]
Weights = Annotated[
    Path | None, typer.Option(help="Weights of a timm model; without it, timm downloads them.")
]
Size = Annotated[
    int | None, typer.Option(help="Side of the square input in pixels [the model's own].")
]
KeepAspect = Annotated[
    bool, typer.Option("--keep-aspect", help="Let --size be the long side of the video.")
]
Attention = Annotated[str, typer.Option(help=f"Of gates: one of {', '.join(FORMS)}.")]
Gating = Annotated[
    str,
    typer.Option(
        help=f"What a token that is not updated keeps: {', '.join(GATINGS)}. paper: what its "
        "layers last gave; hold: their input as well; input: everything, one gate for all blocks."
    ),
]
Measure = Annotated[str, typer.Option(help=f"What gates pick tokens by: {', '.join(MEASURES)}.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON alone to standard output.")]

CONVERTED = typer.Option(help="What `eventful weights` has written for the model.")
ConvertedWeights = Annotated[Path, CONVERTED]
FirstVideos = Annotated[int | None, typer.Option(min=1, help="Only the first so many.")]
Device = Annotated[str, typer.Option(help="Such as cpu or cuda [the GPU, if any].")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at a file of no use.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget what --out holds.")]
