"""One pass of chosen tokens through all blocks, as frame policies ask for it."""

from __future__ import annotations

import torch
from torch import Tensor

from eventful.attention import Windows, split_heads
from eventful.block.attend import tables
from eventful.block.block import EventfulBlock
from eventful.block.state import BlockState, Grid, Pass, Place
from eventful.ops import Index, RelativePositions, attend


def compute(block: EventfulBlock, x: Tensor, place: Place, work: Pass) -> Tensor:
    """Take a frame's chosen tokens through a block.

        kv[J] <- the keys and values of qkv(norm_1(x[J]))
        y      = x[J] + proj(attention of the queries of J over all of kv)
        y      = y + mlp(norm_2(y))

    Between two blocks only these tokens pass on; the tensor that the model hands around meanwhile
    is a stand-in. Where something else than the next block reads a block's output (a *tap*), it
    gets what is known of the other tokens, with y written over it.

    Args:
        block: A stream's.
        x: (batch, tokens, dim) what the model hands to the block.
        place: Where the tokens stand.
        work: The pass.

    Returns:
        (batch, tokens, dim).

    Raises:
        ValueError: Another block is handed another number of rows or tokens.
    """
    assert block.binding is not None
    index = work.index = work.index or Index.everything(len(x), x.shape[1], x.device)
    others = len(index.counts), index.tokens
    if x.shape[:2] != others:
        raise ValueError(
            f"frame policies need blocks of one shape; {block.name} is handed {len(x)} rows of "
            f"{x.shape[1]} tokens and blocks before it {others[0]} of {others[1]}; leave one or "
            f"the other out with convert(..., where=...)"
        )
    shown = work.shown.get(block.name)
    if index.is_nothing:
        return x if shown is None else shown.clone()  # the model may write to it
    if work.tokens is None or block.name not in work.linked:
        work.tokens = index.gather(x)
    c = work.tokens
    qkv = block.to_qkv(block.norm_1(c), place.at(index.positions))
    attention = _within_windows if block.window_size else _across
    o = attention(block, qkv, place.grid, work, index, block.binding.state)
    c = c + block.to_out(block.mix(o[None], qkv[None])[0])
    work.tokens = c = c + block.to_mlp(block.norm_2(c))
    if index.is_everything:
        whole = c.unflatten(0, (len(x), -1))
        work.note(block.name, x, whole)
        return whole
    if shown is None:
        return x
    index.scatter_(shown, c)
    return shown.clone()


def _across(
    block: EventfulBlock,
    qkv: Tensor,
    grid: Grid | None,
    work: Pass,
    index: Index,
    state: BlockState,
) -> Tensor:
    """Attention (total, width) of the chosen queries over the keys and values of their rows."""
    width = block.width
    kv = qkv[:, width // 3 : width]
    if index.is_everything:
        kept = kv.unflatten(0, (len(index.counts), -1))
        if work.keep:
            state.kv = kept.to(work.state_dtype or kept.dtype, copy=True).contiguous()
    elif work.keep:
        assert state.kv is not None  # the first frame is whole
        index.scatter_(state.kv, kv)
        kept = state.kv
    else:
        kept = _padded_rows(kv, index)
    lines = block.bias_grid(grid)
    q, table = _queries(block, qkv, index.positions, grid)
    if index.is_even:
        q, table = (x if x is None else x.unflatten(0, (len(kept), -1)) for x in (q, table))
        assert q is not None
        return _attend(block, q, kept, table, lines).flatten(0, 1)
    found = []
    for row, (start, count) in enumerate(zip(index.starts, index.counts, strict=True)):
        some = slice(start, start + count)
        own = None if table is None else table[None, some]
        if count:
            found.append(_attend(block, q[None, some], kept[row : row + 1], own, lines)[0])
    return torch.cat(found)


def _within_windows(
    block: EventfulBlock,
    qkv: Tensor,
    grid: Grid | None,
    work: Pass,
    index: Index,
    state: BlockState,
) -> Tensor:
    """The same where attention stays within windows: a query sees those of its own window.

    Keys and values are kept in window order, padding among them. The queries of a window stand side
    by side, filled up to as many as the fullest window has.
    """
    assert grid is not None
    third, area = block.width // 3, block.window_size**2
    windows = Windows(grid, block.window_size)
    slots = index.flat.div(index.tokens, rounding_mode="floor") * windows.places
    slots = slots + windows.slots(qkv.device)[index.positions]
    kv = _in_window_order(block, qkv, grid, work, index, state)
    kv.view(-1, 2 * third).index_copy_(0, slots, qkv[:, third : block.width].to(kv.dtype))
    if work.keep and index.is_everything:
        state.kv = kv.to(work.state_dtype or kv.dtype)
    order = (slots // area).sort(stable=True)
    touched, inverse, counts = order.values.unique_consecutive(
        return_inverse=True, return_counts=True
    )
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(slots), device=qkv.device) - starts[inverse]
    most = int(counts.max())
    seat = torch.empty_like(slots).index_copy_(0, order.indices, inverse * most + rank)

    def seated(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        empty = x.new_zeros(len(touched) * most, *x.shape[1:])
        return empty.index_copy_(0, seat, x).unflatten(0, (-1, most))

    q, table = map(seated, _queries(block, qkv, index.positions, grid))
    assert q is not None
    own = kv.view(-1, area, 2 * third).index_select(0, touched)
    o = _attend(block, q, own, table, block.bias_grid(grid))
    return o.flatten(0, 1).index_select(0, seat)


def _in_window_order(
    block: EventfulBlock, qkv: Tensor, grid: Grid, work: Pass, index: Index, state: BlockState
) -> Tensor:
    """The keys and values (batch, places, 2 * width) to write to: kept ones, or padding."""
    if work.keep and not index.is_everything:
        assert state.kv is not None  # the first frame is whole
        return state.kv
    nothing = qkv.new_zeros(1, block.dim)
    first = torch.zeros(1, dtype=torch.int64, device=qkv.device)
    padding = block.to_qkv(nothing, Place(None, grid, first))[0, block.width // 3 : block.width]
    places = Windows(grid, block.window_size).places
    return padding.expand(len(index.counts), places, -1).clone()


def _queries(
    block: EventfulBlock, qkv: Tensor, positions: Tensor, grid: Grid | None
) -> tuple[Tensor, Tensor | None]:
    """Queries (total, heads, dim) and their relative positions (total, heads, lines), if any."""
    q = qkv[:, : block.width // 3].unflatten(1, (block.heads, -1))
    if block.bias_grid(grid) is None:
        return q, None
    assert grid is not None
    return q, tables(block, qkv, positions, grid)


def _attend(
    block: EventfulBlock, q: Tensor, kv: Tensor, table: Tensor | None, lines: Grid | None
) -> Tensor:
    """Attention (batch, queries, width) of q (batch, queries, heads, dim) over kv."""
    k, v = split_heads(kv.to(q.dtype), block.heads, parts=2)
    bias = None
    if table is not None and lines is not None:
        bias = RelativePositions(table.transpose(1, 2), lines)
    o, _ = attend(q.transpose(1, 2), k, v, block.scale, bias)
    return o.transpose(1, 2).flatten(2)


def _padded_rows(kv: Tensor, index: Index) -> Tensor:
    """Keys and values (batch, tokens, width) of rows that are whole or empty."""
    rows = kv.new_zeros(len(index.counts), index.tokens, kv.shape[-1])
    index.scatter_(rows, kv)
    return rows
