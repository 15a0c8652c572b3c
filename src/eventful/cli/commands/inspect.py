"""`eventful inspect`: what of a model converts, which policies work, and what it would cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from eventful.block.block import eventful_blocks
from eventful.cli.choices import Gates, as_option, named_blocks, read_policy
from eventful.cli.frame_costs import frame_costs
from eventful.cli.gate_costs import gate_costs
from eventful.cli.options import Attention, Blocks, Gating, Json, Measure, Task
from eventful.cli.output import errors, show
from eventful.cli.trials import timm_trial, transformers_trial
from eventful.policies import POLICIES, FramePolicy, Policy
from eventful.policies.text import examples
from eventful.pretrained.loading import PREFIX


def inspect(
    model: str,
    policy: FramePolicy | Policy,
    size: int | None,
    gates: Gates,
    task: str | None = None,
    blocks: Sequence[str] = (),
) -> dict[str, Any]:
    """Describe a model of timm or transformers, built without weights.

    Args:
        model: Its name.
        policy: What is done with frames; a token policy's gates are described too.
        size: Side of the input; None for the model's own.
        gates: How gates work under a token policy.
        task: What a model of transformers is for; None for what it says.
        blocks: Names (or patterns) of the blocks to convert; without any, all.

    Raises:
        ValueError: There is no such model, it does not take that size, or the policy does not fit.
    """
    if isinstance(policy, FramePolicy) and gates != Gates():
        raise ValueError(
            f"--attention, --gating and --measure concern the gates of token policies, and "
            f"{policy} decides about frames; leave them out, or give --policy fraction:0.125"
        )
    if model.startswith(PREFIX):
        if size is not None:
            raise ValueError(f"--size is for models of timm; the processor of {model} says it")
        trial, shape = transformers_trial(model, task, named_blocks(blocks))
    elif task is not None:
        raise ValueError(f"--task is for models of transformers (hf:...), not for {model}")
    else:
        trial, shape = timm_trial(model, size, named_blocks(blocks))
    report: dict[str, Any] = {"model": model, "policy": str(policy)}
    if isinstance(policy, Policy):
        report |= gates.names()
    converted = trial.build()
    try:
        gates.convert(converted, policy, trial.where)
    except ValueError as error:
        return report | {"converts": False, "reason": as_option(error)}
    found = eventful_blocks(converted).values()
    report |= {
        "converts": True,
        "blocks": {block.name: type(block.original).__name__ for block in found},
        "size": shape,
    }
    if isinstance(policy, Policy):
        report |= gate_costs(converted, lambda: trial.dense(converted), gates)
    return report | frame_costs(trial)


def table(report: dict[str, Any]) -> Any:
    """The report for people."""
    if not report["converts"]:
        return f"{report['model']} does not convert: {report['reason']}"
    blocks = report["blocks"]
    kinds = ", ".join(sorted(set(blocks.values())))
    lines = [f"blocks   {len(blocks)} convert: {', '.join(blocks)} ({kinds})"]
    if "grid" in report:
        height, width = report["grid"]
        lines += [
            f"tokens   {report['tokens']}: a grid of {height} x {width}, and "
            f"{report['prefix_tokens']} in front of it (class token, registers)",
            f"taps     {', '.join(report['taps'])} (outputs that the rest of the model reads)",
        ]
        if report["apart"]:
            lines.append(f"apart    {', '.join(report['apart'])} need all tokens on every frame")
    parts = [_gates(report), *_gate_lines(report)] if "updated_by_gate" in report else []
    costs = [_costs(report)] if "costs" in report else []
    return Group(*map(escape, lines), *costs, *parts, _policies(report["policies"]))


def _costs(report: dict[str, Any]) -> Table:
    """What each kind of frame costs."""
    costs = report["costs"]
    result = Table(title=escape(f"{report['model']} at {_size(report)}"))
    for column in ("frame", "operations (10⁹)", "of dense"):
        result.add_column(column, justify="left" if column == "frame" else "right")
    names = {"partial_eighth": "partial, an eighth of the patches"}
    for kind in ("dense", "partial_eighth", "carried", "held"):
        share = costs[kind] / costs["dense"]
        result.add_row(names.get(kind, kind), f"{costs[kind] / 1e9:.3f}", f"{100 * share:.1f} %")
    return result


def _size(report: dict[str, Any]) -> str:
    size = report["size"]
    return str(size) if isinstance(size, int) else " x ".join(map(str, reversed(size)))


def _policies(policies: dict[str, str | None]) -> Table:
    result = Table("policies", "work", title="which policies work")
    for kind, reason in policies.items():
        result.add_row(kind, "yes" if reason is None else escape(f"no: {reason}"))
    return result


def _gates(report: dict[str, Any]) -> Table:
    """Operations under a token policy."""
    kinds = Table(title=escape(f"{report['model']} at {_size(report)}, {report['policy']}"))
    for column in ("operations (10⁹)", "dense", "eventful"):
        kinds.add_column(column, justify="left" if column.startswith("op") else "right")
    dense, used = report["operations"]["dense"], report["operations"]["eventful"]
    for kind in dense:
        ours = "depends on the video" if used is None else f"{used[kind] / 1e9:.3f}"
        kinds.add_row(kind, f"{dense[kind] / 1e9:.3f}", ours)
    return kinds


def _gate_lines(report: dict[str, Any]) -> list[str]:
    lines = [
        f"gates    {len(report['updated_by_gate'])}, gating {report['gating']}, "
        f"by {report['measure']}; attention {report['attention']}",
        f"updated  {_counted(report)} of {report['tokens']} tokens on a frame, "
        f"{report['prefix_tokens']} prefix tokens among them",
        f"state    {report['state_bytes'] / 1e6:.1f} MB a stream in float32",
    ]
    if report["operations"]["eventful"] is not None:
        lines.append(f"ratio    {report['operations']['ratio']:.2f}x fewer operations")
    return [escape(line) for line in lines]


def _counted(report: dict[str, Any]) -> str:
    """Tokens updated on a frame."""
    counts = set(report["updated_by_gate"].values())
    if None in counts:
        return "depends on the video: any"
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}, by gate,"


def command(
    model: Annotated[
        str, typer.Argument(help="A timm model name, 'demo', 'hf:FOLDER' or 'hf:NAME'.")
    ],
    policy: Annotated[
        str,
        typer.Option(help=f"{examples(POLICIES)}. Token policies show what gates cost too."),
    ] = "error:0.15",
    size: Annotated[int | None, typer.Option(help="Side of the input [the model's own].")] = None,
    attention: Attention = "incremental",
    gating: Gating = "paper",
    measure: Measure = "error",
    task: Task = None,
    blocks: Blocks = None,
    json_output: Json = False,
) -> None:
    """Show which blocks of a model convert, which policies work, and what frames cost.

    No weights are downloaded: the model is built without any, and two frames of noise are run.
    """
    with errors():
        gates = Gates(attention, gating, measure)
        report = inspect(model, read_policy(policy), size, gates, task, blocks or ())
    show(report, json_output, table)
    if not report["converts"]:
        raise typer.Exit(1)
