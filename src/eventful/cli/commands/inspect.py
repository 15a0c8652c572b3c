"""`eventful inspect`: what of a model converts, and what it would cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
import typer
from rich.console import Group
from rich.table import Table
from torch import Tensor, nn

from eventful.attention import Incremental
from eventful.block.block import EventfulBlock, eventful_blocks
from eventful.block.state import STAGES, Grid, Stage
from eventful.cli.choices import POLICIES, Gates, policy_or_plan
from eventful.cli.options import Attention, Gating, Json, Measure
from eventful.cli.output import errors, show
from eventful.cli.subjects import check_name, check_size, input_size, patch_size
from eventful.counting import (
    BlockSize,
    Operations,
    block_operations,
    dense_operations,
    outside,
    state_values,
)
from eventful.policies import Policy
from eventful.reuse import Plan


def inspect(model: str, policy: Policy | Plan, size: int | None, gates: Gates) -> dict[str, Any]:
    """Describe a timm model, built without weights on no device.

    Args:
        model: Its name.
        policy: Of gates; a plan is refused.
        size: Side of the input; None for the model's own.
        gates: How gates work.

    Raises:
        ValueError: There is no such model, it does not take that size, or the policy is a plan.
    """
    name = "vit_small_patch14_dinov2" if model == "demo" else model.removeprefix("timm:")
    check_name(name)
    if isinstance(policy, Plan):
        raise ValueError(
            f"inspect shows what gates cost, and the plan {policy} has none; give a policy such as "
            f"fraction:0.125, or see what the plan costs with: eventful run --policy {policy}"
        )
    backbone = _build(name, size)
    report: dict[str, Any] = {"model": model, "policy": str(policy), **gates.names()}
    try:
        gates.convert(backbone, policy)
    except ValueError as error:
        return report | {"converts": False, "reason": str(error)}
    side = input_size(backbone) if size is None else size
    if hasattr(backbone, "patch_embed"):
        check_size(side, patch_size(backbone))
    return report | _costs(backbone, side, gates)


def _costs(backbone: nn.Module, side: int, gates: Gates) -> dict[str, Any]:
    """What a converted model costs at a size."""
    tokens, grid, other = _trace(backbone, side)
    blocks: list[EventfulBlock] = list(eventful_blocks(backbone).values())
    prefix = blocks[0].prefix_tokens
    updated = _updated(blocks, tokens - prefix, prefix)
    counts = [count for count in updated.values() if count is not None]
    fixed = len(counts) == len(updated)
    dense = used = Operations(other=other)
    values = 0
    for block in blocks:
        sizes = BlockSize.of(block, grid)
        dense += dense_operations(sizes, tokens)
        values += sum(state_values(sizes, block.options.attention, tokens))
        values += len(block.stages) * _measured(gates.measure) * tokens
        if fixed:
            used += _block(sizes, gates.attention, tokens, _stages(block, updated))
    return {
        "converts": True,
        "blocks": {block.name: type(block.original).__name__ for block in blocks},
        "size": side,
        "tokens": tokens,
        "prefix_tokens": prefix,
        "updated_tokens": counts[0] if fixed and len(set(counts)) == 1 else None,
        "updated_by_gate": updated,
        "operations": {
            "dense": dense.as_dict() | {"total": dense.total},
            "eventful": used.as_dict() | {"total": used.total} if fixed else None,
            "ratio": dense.total / used.total if fixed else None,
        },
        "state_bytes": 4 * values,
    }


def _build(name: str, size: int | None) -> nn.Module:
    import timm  # noqa: PLC0415

    options: dict[str, Any] = {} if size is None else {"img_size": size}
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, **options).eval()
    except (TypeError, AssertionError, ValueError) as error:
        raise ValueError(f"{name} cannot be built at size {size}: {error}") from error


def _trace(backbone: nn.Module, side: int) -> tuple[int, Grid | None, int]:
    """Run shapes through the model: tokens and grid in its blocks, and operations outside them."""
    seen: list[tuple[int, ...]] = []

    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(tuple(args[0].shape[1:-1]))

    blocks: list[EventfulBlock] = list(eventful_blocks(backbone).values())
    handle = blocks[0].register_forward_pre_hook(note)
    try:
        with torch.inference_mode(), outside(blocks) as observer:
            backbone(torch.empty(1, 3, side, side, device="meta"))
    except AssertionError as error:
        raise ValueError(f"the model takes no input of {side} x {side}: {error}") from error
    finally:
        handle.remove()
    return (
        math.prod(seen[0]),
        (seen[0][0], seen[0][1]) if len(seen[0]) == 2 else None,
        observer.total,
    )


def _updated(blocks: list[EventfulBlock], patches: int, prefix: int) -> dict[str, int | None]:
    """Tokens that each gate lets through on every frame; None where it depends on the video."""
    found: dict[str, int | None] = {}
    for block in blocks:
        for stage, policy in block.default_policies.items():
            policy.select(torch.zeros(1, patches))  # raises if it does not fit
            count = policy.count(patches)
            found[f"{block.name}.{stage}"] = None if count is None else count + prefix
    return found


def _stages(block: EventfulBlock, updated: Mapping[str, int | None]) -> dict[Stage, int]:
    """What a block updates; one without gates follows the first gate of the network."""
    first = next(iter(updated.values()))
    counts: dict[Stage, int] = {}
    for stage in STAGES:
        count = updated.get(f"{block.name}.{stage}", first)
        assert count is not None  # else nothing is foretold
        counts[stage] = count
    return counts


def _measured(measure: str) -> int:
    """Numbers that a gate remembers of each token beside its reference."""
    return ("relative" in measure) + ("age" in measure)


def _block(size: BlockSize, attention: str, tokens: int, updated: dict[Stage, int]) -> Operations:
    """A frame of one block.

    What depends on the video is left out or taken at its largest: no row is sent back by the guard,
    and every window holds an updated token, as far as there are enough.
    """
    form = Incremental(size.heads, size.width**-0.5)
    active = updated["qkv"]
    if size.window:
        corrected, recomputed = 0, min(active * size.window, size.places)
    elif form.full_is_cheaper(active, tokens):
        corrected, recomputed = 0, tokens
    else:
        corrected = tokens - active
        recomputed = active + min(corrected, form.rotated_rows(tokens))
    return block_operations(
        size,
        attention,  # type: ignore[arg-type]
        tokens,
        updated,
        corrected=corrected,
        recomputed=recomputed,
    )


def table(report: dict[str, Any]) -> Any:
    """The report for people."""
    if not report["converts"]:
        return f"{report['model']} does not convert: {report['reason']}"
    kinds = Table(title=f"{report['model']} at {report['size']}, {report['policy']}")
    for column in ("operations (10⁹)", "dense", "eventful"):
        kinds.add_column(column, justify="left" if column.startswith("op") else "right")
    dense, used = report["operations"]["dense"], report["operations"]["eventful"]
    for kind in dense:
        ours = "depends on the video" if used is None else f"{used[kind] / 1e9:.3f}"
        kinds.add_row(kind, f"{dense[kind] / 1e9:.3f}", ours)
    blocks = report["blocks"]
    lines = [
        f"blocks   {len(blocks)} convert: {', '.join(blocks)} ({', '.join(set(blocks.values()))})",
        f"tokens   {report['tokens']}, of which {report['prefix_tokens']} prefix tokens; "
        f"updated on a frame: {_counted(report)}",
        f"gates    {len(report['updated_by_gate'])}, gating {report['gating']}, "
        f"by {report['measure']}; attention {report['attention']}",
        f"state    {report['state_bytes'] / 1e6:.1f} MB a stream in float32",
    ]
    if used is not None:
        lines.append(f"ratio    {report['operations']['ratio']:.2f}x fewer operations")
    return Group(kinds, *lines)


def _counted(report: dict[str, Any]) -> str:
    """Tokens updated on a frame."""
    counts = set(report["updated_by_gate"].values())
    if None in counts:
        return "depends on the video"
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}, by gate"


def command(
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
        report = inspect(model, policy_or_plan(policy), size, gates)
    show(report, json_output, table)
    if not report["converts"]:
        raise typer.Exit(1)
