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
AnyModel = Annotated[
    str, typer.Option(help="'demo', 'timm:NAME', or 'hf:FOLDER' or 'hf:NAME' of transformers.")
]
Weights = Annotated[
    Path | None, typer.Option(help="Weights of a timm model; without it, timm downloads them.")
]
MaxError = Annotated[
    float | None, typer.Option(help="Short for --policy error:E: a mean error to hold.")
]
LatencyMs = Annotated[
    float | None, typer.Option(help="Short for --policy latency:T: ms that a frame may take.")
]
Share = Annotated[
    float | None, typer.Option(help="Short for --policy auto:F: a share of the operations.")
]
TimeShare = Annotated[
    float | None, typer.Option("--time", help="Short for --policy time:F: a share of the time.")
]
Size = Annotated[
    int | None, typer.Option(help="Side of the square input in pixels [the model's own].")
]
KeepAspect = Annotated[
    bool, typer.Option("--keep-aspect", help="Let --size be the long side of the video.")
]
LongSide = Annotated[
    int | None, typer.Option(help="Long side of frames in pixels [the model's own].")
]
Square = Annotated[
    bool, typer.Option("--square", help="Squeeze frames into squares of side --size.")
]
StartOver = Annotated[bool, typer.Option(help="Start over at scene cuts.")]
Outputs = Annotated[
    str,
    typer.Option(
        help="Of pooled, patches; with the demo also vehicles, saliency; joined by commas."
    ),
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

Task = Annotated[
    str | None,
    typer.Option(
        help="Of a model of transformers: depth, pose, detect, segment or features [the one that "
        "it was made for]."
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Option("--text", help="What an open-vocabulary model looks for. Repeatable."),
]
Point = Annotated[
    str | None,
    typer.Option(help="X,Y in pixels, for a model that segments what is there [the middle]."),
]
Threshold = Annotated[
    float, typer.Option(help="Score that boxes and key points of the dense model count from.")
]
Blocks = Annotated[
    list[str] | None,
    typer.Option(
        help="Convert only the blocks of these names, such as 'blocks.[0-3]'. Repeatable."
    ),
]

CONVERTED = typer.Option(help="What `eventful weights` has written for the model.")
ConvertedWeights = Annotated[Path, CONVERTED]
FirstVideos = Annotated[int | None, typer.Option(min=1, help="Only the first so many.")]
Device = Annotated[str, typer.Option(help="Such as cpu or cuda [the GPU, if any].")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at a file of no use.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget what --out holds.")]
