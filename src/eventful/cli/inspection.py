"""`eventful inspect`: what of a model converts, and what it would cost."""

from __future__ import annotations

import math
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from torch import Tensor, nn

from eventful.attention import Incremental
from eventful.blocks import EventfulBlock, Options, eventful_blocks
from eventful.cli.subjects import check_name, check_size, input_size, patch_size
from eventful.convert import convert
from eventful.counting import (
    BlockSize,
    Operations,
    block_operations,
    dense_operations,
    outside,
    state_values,
)
from eventful.policies import Policy
from eventful.state import STAGES, Grid


def inspect(model: str, policy: Policy, size: int | None, attention: str) -> dict[str, Any]:
    """Describe a timm model, built without weights on no device.

    Raises:
        ValueError: There is no such model, or it does not take that size.
    """
    name = "vit_small_patch14_dinov2" if model == "demo" else model.removeprefix("timm:")
    check_name(name)
    Options(attention=attention)  # type: ignore[arg-type]  # raises if there is no such form
    backbone = _build(name, size)
    report: dict[str, Any] = {"model": model, "policy": str(policy), "attention": attention}
    try:
        convert(backbone, policy, attention=attention)  # type: ignore[arg-type]
    except ValueError as error:
        return report | {"converts": False, "reason": str(error)}
    side = input_size(backbone) if size is None else size
    if hasattr(backbone, "patch_embed"):
        check_size(side, patch_size(backbone))
    tokens, grid, other = _trace(backbone, side)
    blocks = eventful_blocks(backbone)
    first = next(iter(blocks.values()))
    prefix = first.prefix_tokens
    updated = _updated(policy, tokens - prefix, prefix)
    dense = used = Operations(other=other)
    values = 0
    for block in blocks.values():
        sizes = BlockSize.of(block, grid)
        dense += dense_operations(sizes, tokens)
        values += sum(state_values(sizes, block.options.attention, tokens))
        if updated is not None:
            used += _block(sizes, attention, tokens, updated)
    return report | {
        "converts": True,
        "blocks": {name: type(block.original).__name__ for name, block in blocks.items()},
        "size": side,
        "tokens": tokens,
        "prefix_tokens": prefix,
        "updated_tokens": updated,
        "operations": {
            "dense": dense.as_dict() | {"total": dense.total},
            "eventful": None if updated is None else used.as_dict() | {"total": used.total},
            "ratio": None if updated is None else dense.total / used.total,
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


def _updated(policy: Policy, patches: int, prefix: int) -> int | None:
    """Tokens that a policy updates on every frame; None where it depends on the video."""
    policy.select(torch.zeros(1, patches))  # raises if it does not fit
    count = policy.count(patches)
    return None if count is None else count + prefix


def _block(size: BlockSize, attention: str, tokens: int, updated: int) -> Operations:
    """A frame of one block.

    What depends on the video is left out or taken at its largest: no row is sent back by the guard,
    and every window holds an updated token, as far as there are enough.
    """
    form = Incremental(size.heads, size.width**-0.5)
    if size.window:
        corrected, recomputed = 0, min(updated * size.window, size.places)
    elif form.full_is_cheaper(updated, tokens):
        corrected, recomputed = 0, tokens
    else:
        corrected = tokens - updated
        recomputed = updated + min(corrected, form.rotated_rows(tokens))
    return block_operations(
        size,
        attention,  # type: ignore[arg-type]
        tokens,
        dict.fromkeys(STAGES, updated),
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
        f"updated on a frame: {report['updated_tokens'] or 'depends on the video'}",
        f"state    {report['state_bytes'] / 1e6:.1f} MB a stream in float32",
    ]
    if used is not None:
        lines.append(f"ratio    {report['operations']['ratio']:.2f}x fewer operations")
    return Group(kinds, *lines)
