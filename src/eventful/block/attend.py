"""How a block brings its attention up to date over what it buffers."""

from __future__ import annotations

import torch
from torch import Tensor

from eventful.attention import Bias, Keys, Windows
from eventful.block import sampling
from eventful.block.block import EventfulBlock
from eventful.block.buffer import TokenBuffer
from eventful.block.state import Grid, Place
from eventful.ops import RelativePositions


def project(block: EventfulBlock, c: Tensor, place: Place) -> Tensor:
    """Compute what the QKV buffer holds of some tokens (total, dim): q, k, v and what follows."""
    qkv = block.to_qkv(c, place)
    if not block.table_width(place.grid):
        return qkv
    assert place.grid is not None
    assert place.positions is not None
    return torch.cat([qkv, tables(block, qkv, place.positions, place.grid).flatten(1)], dim=1)


def order_by_window(
    block: EventfulBlock, buffer: TokenBuffer, x: Tensor, grid: Grid | None
) -> None:
    """Put the tokens of a new QKV buffer in window order, padding among them."""
    assert grid is not None
    windows = Windows(grid, block.window_size)
    nothing = x.new_zeros(1, x.shape[-1])
    first = torch.zeros(1, dtype=torch.int64, device=x.device)
    padding = project(block, nothing, Place(None, grid, first))
    buffer.reorder(windows.slots(x.device), windows.places, padding[0])


def attend(block: EventfulBlock, buffer: TokenBuffer, qkv: Tensor, grid: Grid | None) -> Tensor:
    """Bring attention up to date over q, k, v, the first columns of the buffer.

    Args:
        block: The block.
        buffer: Its QKV buffer, the frame's tokens written.
        qkv: (batch, places, ...) what the buffer holds.
        grid: Height and width of the token grid.

    Returns:
        (batch, tokens, heads * head_dim).
    """
    assert block.binding is not None
    state, frame = block.binding.state, block.binding.frame
    form = block.attention_form(frame.bounded)
    bias = relative_positions(block, qkv, grid)
    pooled = _pool(block, buffer, qkv, grid)
    new = qkv[..., : block.width]
    if state.attention is None or frame.anew:
        kv = None if pooled is None else pooled.tokens.to(qkv.dtype)
        output, attention = form.start(new, bias, kv)
        if state.attention is not None:
            attention.turn = state.attention.turn
        state.attention = attention
    else:
        assert buffer.index is not None
        assert buffer.before is not None
        old = buffer.before[..., : block.width].to(qkv.dtype)
        keys = None if pooled is None else _keys(pooled, qkv.dtype)
        output = form.update(state.attention, new, old, buffer.index, bias, keys)
    return output if buffer.slots is None else output.index_select(1, buffer.slots)


def positions_of(block: EventfulBlock, qkv: Tensor, grid: Grid | None) -> Bias:
    """The relative positions of queries (batch, queries, ...), from what is buffered with them."""
    lines = block.key_grid(grid)
    if lines is None:
        return None
    table = qkv[..., -block.table_width(grid) :].unflatten(-1, (block.heads, -1))
    return RelativePositions(table.transpose(1, 2), lines)


def relative_positions(block: EventfulBlock, qkv: Tensor, grid: Grid | None) -> Bias:
    """The relative positions of all queries, from the buffer or from the queries in it."""
    lines = block.key_grid(grid)
    if lines is None or block.table_width(grid):
        return positions_of(block, qkv, grid)
    assert grid is not None
    batch, places, _ = qkv.shape
    side = block.window_size
    positions = torch.arange(places, device=qkv.device) % (side**2 or places)
    grid = (side, side) if side else grid
    table = tables(block, qkv.flatten(0, 1), positions.repeat(batch), grid)
    return RelativePositions(table.unflatten(0, (batch, places)).transpose(1, 2), lines)


def sample(
    block: EventfulBlock, x: Tensor, c: Tensor, qkv: Tensor, rope: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Leave tokens of x and c (batch, tokens, dim) out: those the class token takes least from."""
    assert block.binding is not None
    kept, state = block.options.sampling, block.binding.state
    if kept is None or kept >= x.shape[1]:
        return x, c
    if rope is not None or kept <= block.prefix_tokens:
        raise ValueError(
            f"{block.name} cannot hand on {kept} tokens: sampling needs more than the "
            f"{block.prefix_tokens} prefix tokens, and a model without rotary positions"
        )
    score = sampling.class_scores(qkv[..., : block.width], block.heads, block.scale)
    slots = sampling.sample(score, kept, block.prefix_tokens, state.kept)
    flush = block.binding.frame.flush
    if state.kept is not None and flush:
        slots[flush] = sampling.sample(score[flush], kept, block.prefix_tokens)
    state.kept = slots
    return sampling.take(x, slots), sampling.take(c, slots)


def _pool(
    block: EventfulBlock, buffer: TokenBuffer, qkv: Tensor, grid: Grid | None
) -> TokenBuffer | None:
    """Average keys and values over cells, and write those that hold an updated token."""
    assert block.binding is not None
    pooling, buffers = block.pooling(grid), block.binding.state.buffers
    if pooling is None:
        return None
    kv = pooling.pool(qkv[..., block.width // 3 : block.width])
    if "pooled" not in buffers:
        buffers["pooled"] = TokenBuffer.new(kv.flatten(0, 1), len(kv), buffer.tokens.dtype)
    else:
        assert buffer.index is not None
        index = pooling.index(buffer.index)
        buffers["pooled"].replace_(index, index.gather(kv))
    return buffers["pooled"]


def _keys(pooled: TokenBuffer, dtype: torch.dtype) -> Keys:
    assert pooled.index is not None
    assert pooled.before is not None
    return Keys(pooled.tokens.to(dtype), pooled.index, pooled.before.to(dtype))


def tables(block: EventfulBlock, qkv: Tensor, positions: Tensor, grid: Grid) -> Tensor:
    """Tables of relative positions (total, heads, lines) of queries (total, ...)."""
    q = qkv[:, : block.width // 3].unflatten(1, (block.heads, -1))
    table, pooling = block.relative_tables(q, positions, grid), block.pooling(grid)
    return table if pooling is None else pooling.pool_lines(table)
