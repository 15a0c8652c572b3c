"""The commands around the paper: its checkpoints, its tables, its data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from eventful.cli import evaluating, paper_table, papers, tuning
from eventful.cli import weights as checkpoints
from eventful.cli.output import Json, errors, show
from eventful.evaluation import TASKS, VARIANTS
from eventful.models.weights import KINDS

paper = typer.Typer(no_args_is_help=True, help="The paper's tables, counted and run again.")


def add_to(app: typer.Typer) -> None:
    """Add these commands to others."""
    app.command()(weights)
    app.command()(evaluate)
    tuning.add_to(app)
    app.add_typer(paper, name="paper")


def weights(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    file: Annotated[Path, typer.Argument(help="The checkpoint as published.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    json_output: Json = False,
) -> None:
    """Convert a published checkpoint into safetensors; no code in it runs.

    Prints which names were used and which were left out, and why.
    """
    with errors():
        result = checkpoints.convert(kind, file, out)
    show(result, json_output, checkpoints.table)


def evaluate(
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
    videos: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a video at most.")] = None,
    tuned: Annotated[
        Path | None,
        typer.Option(help="A checkpoint that `eventful finetune train` has written."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("eventful-evaluation"),
    sheet: Annotated[
        str | None,
        typer.Option(
            help="Draw a contact sheet of this policy, one of those given: some frames, the truth, "
            "dense, the policy, and what it computed anew (annotated video).",
            metavar="POLICY",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a file of no use.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what --out holds.")] = False,
    times: Annotated[
        bool, typer.Option("--times/--no-times", help="Report how long frames took.")
    ] = True,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda [the GPU, if any].")] = "",
    json_output: Json = False,
) -> None:
    """Run a model over a data set and put its quality beside what it cost.

    Every variant runs with every policy; `dense` and `spatial` gate nothing and run once. State is
    reset before each video. Writes <task>.json, .csv, .png and .svg. A run that was ended goes on
    where it was.
    """
    with errors():
        settings = evaluating.Settings(
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
        )
        try:
            report = evaluating.evaluate(settings, Console(stderr=True))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    show(report, json_output, evaluating.table)


@paper.command("ops")
def paper_ops(json_output: Json = False) -> None:
    """Count every entry of the paper's tables, beside the paper's own figure.

    Nothing heavy is run: models are built without weights. What depends on which tokens change is
    found on the demo clip, and says so.
    """
    with errors():
        report = papers.ops()
    show(report, json_output, papers.ops_table)


@paper.command("table")
def paper_table_(
    name: Annotated[str, typer.Argument(help="1, A, B, C, D or E.", metavar="TABLE")],
    root: Annotated[Path, typer.Option(help="Folder of the table's data set.")],
    weights: Annotated[
        Path | None, typer.Option(help="What `eventful weights` has written for the model.")
    ] = None,
    tuned: Annotated[
        Path | None,
        typer.Option(help="Folder with DIR/<r> as `eventful finetune train` writes it (A, D)."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("eventful-paper"),
    videos: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of a video at most (ImageNet VID).")
    ] = None,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda [the GPU, if any].")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a file of no use.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what --out holds.")] = False,
    json_output: Json = False,
) -> None:
    """Run every row of a table of the paper on real data, beside the paper's figures.

    Rows without data, or without the temporal model tuned for them, are skipped and say why. A run
    that was ended goes on where it was. The exit code is 1 if every row was skipped.
    """
    with errors():
        result = paper_table.table(
            paper_table.TableSettings(
                table=name,
                root=root,
                weights=weights,
                tuned=tuned,
                out=out,
                videos=videos,
                frames=frames,
                device=device,
                strict=strict,
                fresh=fresh,
            ),
            Console(stderr=True),
        )
    show(result, json_output, paper_table.table_table)
    if all(row["measured"] is None for row in result["rows"]):
        raise typer.Exit(1)
