"""The commands that people run, and their options; `research` has those of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from eventful.bench import SUITES
from eventful.cli import benching, calibrating, inspection, research, running
from eventful.cli.choices import (
    PLANS,
    POLICIES,
    STATE_DTYPES,
    Gates,
    Settings,
    one_of,
    policy_or_plan,
    refuse_foreign_file,
    refuse_gate_options,
)
from eventful.cli.options import (
    Attention,
    Gating,
    KeepAspect,
    Measure,
    Model,
    Size,
    Video,
    Weights,
)
from eventful.cli.output import Json, errors, show
from eventful.reuse import Plan

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Run vision transformers on video by recomputing only what changed.",
)


@app.callback()
def _commands() -> None:
    """Keep `eventful` a group of commands."""


@app.command()
def run(
    context: typer.Context,
    video: Video = None,
    model: Model = "demo",
    weights: Weights = None,
    policy: Annotated[
        str,
        typer.Option(help=f"A policy of gates: {POLICIES}. Or a plan, for a timm ViT: {PLANS}."),
    ] = "fraction:0.125",
    size: Size = None,
    keep_aspect: KeepAspect = False,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("eventful-out"),
    check_every: Annotated[
        int, typer.Option(min=1, help="Run the dense model too on one of so many frames.")
    ] = 10,
    gate: Annotated[
        str | None, typer.Option(help="The gate to picture [blocks.3.qkv, else the first].")
    ] = None,
    attention: Attention = "incremental",
    gating: Gating = "paper",
    measure: Measure = "error",
    scene_cuts: Annotated[
        bool, typer.Option(help="Compute frames behind a scene cut in full.")
    ] = True,
    compile_blocks: Annotated[
        bool, typer.Option("--compile", help="Compile the blocks first; needs top: or fraction:.")
    ] = False,
    state_dtype: Annotated[
        str, typer.Option(help=f"What is remembered is kept in: {', '.join(STATE_DTYPES)}.")
    ] = "float32",
    json_output: Json = False,
) -> None:
    """Run a model over a video; write what it saw, what it cost and how far it is from dense.

    Writes overlay.mp4 (input, result, an error, updated patches), frames.csv, summary.json and
    summary.png. Ctrl-C ends early and leaves all four for the frames done.

    A plan has no gates; the options of gates (--gate, --attention, --gating, --measure,
    --scene-cuts, --compile, --state-dtype) are refused beside one.
    """
    with errors():
        chosen = policy_or_plan(policy)
        if isinstance(chosen, Plan):
            refuse_gate_options(context, chosen)
        gates = Gates(attention, gating, measure)
        refuse_foreign_file(chosen, model, gates)
        settings = Settings(
            video=video,
            model=model,
            weights=weights,
            policy=chosen,
            size=size,
            keep_aspect=keep_aspect,
            frames=frames,
            out=out,
            check_every=check_every,
            gate=gate,
            gates=gates,
            scene_cuts=scene_cuts,
            compile=compile_blocks,
            state_dtype=STATE_DTYPES[one_of("--state-dtype", state_dtype, STATE_DTYPES)],
        )
        summary = running.run(settings, Console(stderr=True))
    show(summary, json_output, running.table)
    if summary["interrupted"]:
        raise typer.Exit(130)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A timm model name, or 'demo'.")],
    policy: Annotated[
        str, typer.Option(help=f"{POLICIES}. Plans have no gates.")
    ] = "fraction:0.125",
    size: Annotated[int | None, typer.Option(help="Side of the input [the model's own].")] = None,
    attention: Attention = "incremental",
    gating: Gating = "paper",
    measure: Measure = "error",
    json_output: Json = False,
) -> None:
    """Show which blocks of a model convert, and what they cost dense and eventful.

    Nothing is downloaded or computed: the model is built without weights.
    """
    with errors():
        gates = Gates(attention, gating, measure)
        report = inspection.inspect(model, policy_or_plan(policy), size, gates)
    show(report, json_output, inspection.table)
    if not report["converts"]:
        raise typer.Exit(1)


@app.command()
def bench(
    suite: Annotated[str, typer.Argument(help=f"One of {', '.join(SUITES)}, or all.")],
    case: Annotated[
        list[str] | None,
        typer.Option(help="Only cases of this name; * stands for anything. Repeatable."),
    ] = None,
    list_cases: Annotated[bool, typer.Option("--list", help="List the cases and stop.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, seconds each.")] = False,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Timed rounds [20; 3 with --quick].")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("eventful-bench"),
    compile_blocks: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Also measure compiled contenders.")
    ] = True,
    dtype: Annotated[str, typer.Option(help=f"One of {', '.join(benching.DTYPES)}.")] = "float32",
    device: Annotated[
        str, typer.Option(help="Such as cpu or cuda [the GPU, if there is one].")
    ] = "",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget earlier results in --out.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out cases that --out holds already.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Time dense and eventful contenders side by side in one process.

    Every case tests its contenders before it times them; one that fails has no speed, and the exit
    code is 1. Writes <suite>.json, .png and .svg; cases measured again replace their older entry.
    """
    with errors():
        settings = benching.Settings(
            suite=suite,
            patterns=tuple(case or ()),
            quick=quick,
            repeats=repeats,
            out=out,
            compile=compile_blocks,
            dtype=dtype,
            device=device,
            fresh=fresh,
            resume=resume,
        )
        if list_cases:
            names = [case.name for case in benching.chosen(settings)]
            show({"cases": names}, json_output, lambda result: "\n".join(result["cases"]))
            return
        result = benching.bench(settings, Console(stderr=True))
    show(result, json_output, benching.table)
    if not result["ok"]:
        raise typer.Exit(1)


calibrating.add_to(app)
research.add_to(app)
