"""What token policies cost a model: gates, operations and memory, foretold without weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eventful.attention import Incremental
from eventful.block.block import EventfulBlock, eventful_blocks
from eventful.block.state import STAGES, Grid, Stage
from eventful.cli.choices import Gates
from eventful.counting import (
    BlockSize,
    Operations,
    block_operations,
    dense_operations,
    outside,
    state_values,
)


def gate_costs(backbone: nn.Module, run: Callable[[], Any], gates: Gates) -> dict[str, Any]:
    """What a model costs, converted with a token policy.

    Args:
        backbone: The converted model; its weights do not matter.
        run: Runs a frame through it.
        gates: How its gates work.
    """
    tokens, grid, other = _trace(backbone, run)
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


def _trace(backbone: nn.Module, run: Callable[[], Any]) -> tuple[int, Grid | None, int]:
    """Run a frame through the model: tokens and grid in its blocks, and operations outside them."""
    seen: list[tuple[int, ...]] = []

    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(tuple(args[0].shape[1:-1]))

    blocks: list[EventfulBlock] = list(eventful_blocks(backbone).values())
    handle = blocks[0].register_forward_pre_hook(note)
    try:
        with torch.inference_mode(), outside(blocks) as observer:
            run()
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
