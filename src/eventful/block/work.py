"""One pass of chosen tokens through all blocks, as frame policies ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from eventful.attention import Windows
from eventful.block.attend import tables
from eventful.block.block import EventfulBlock
from eventful.block.state import BlockState, Grid, KeysValues, Pass, Place
from eventful.ops import Index, RelativePositions, attend


class ShapesError(ValueError):
    """Blocks are of several shapes, and frame policies need one."""


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
        raise ShapesError(
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
    new = _keys(block, qkv)
    lines = block.bias_grid(grid)
    q, table = _queries(block, qkv, index.positions, grid)
    if work.stale is not None:
        work.new[block.name] = new
        bias = _beside_bias(work.stale, index.positions, table, lines)
        return _beside(block, q, state.kv, new, bias)
    if work.each is not None:
        return _row_by_row(block, q, _of_each(block, work.each, new, index), table, lines, index)
    if work.beside is not None:
        kept = KeysValues.joined([kept[block.name] for kept in work.beside])
        kept.write_(index.flat, new)
    elif index.is_everything:
        kept = _by_head(new, len(index.counts))
        if work.keep:
            state.kv = kept.to(work.state_dtype)
    elif work.keep:
        assert state.kv is not None  # the first frame is whole
        kept = state.kv
        kept.write_(index.flat, new)
    else:
        kept = _padded_rows(new, index)
    if index.is_even:
        q, table = (x if x is None else x.unflatten(0, (len(index.counts), -1)) for x in (q, table))
        assert q is not None
        return _attend(block, q, kept, table, lines).flatten(0, 1)
    rows = [kept.row(row) for row in range(len(index.counts))]
    return _row_by_row(block, q, rows, table, lines, index)


def _of_each(
    block: EventfulBlock,
    each: Sequence[Mapping[str, KeysValues]],
    new: KeysValues,
    index: Index,
) -> list[KeysValues]:
    """The keys and values of rows of several streams, with new ones written over those kept."""
    rows = [kept[block.name] for kept in each]
    parts = (x.split(index.counts) for x in (index.positions, *new))
    for row, places, k, v in zip(rows, *parts, strict=True):
        row.write_(places, KeysValues(k, v))
    return rows


def _row_by_row(
    block: EventfulBlock,
    q: Tensor,
    rows: Sequence[KeysValues],
    table: Tensor | None,
    lines: Grid | None,
    index: Index,
) -> Tensor:
    """Attention (total, width) where rows have different numbers of queries."""
    found = []
    for kept, start, count in zip(rows, index.starts, index.counts, strict=True):
        some = slice(start, start + count)
        own = None if table is None else table[None, some]
        if count:
            found.append(_attend(block, q[None, some], kept, own, lines)[0])
    return torch.cat(found)


def _beside(
    block: EventfulBlock, q: Tensor, kept: KeysValues | None, new: KeysValues, bias: Tensor
) -> Tensor:
    """The same for one row, with nothing written: new keys stand behind the kept ones.

        o = softmax(q [k, k']^T + bias) [v, v']

    Args:
        block: The block.
        q: (chosen, heads, dim).
        kept: k and v (1, heads, tokens, dim).
        new: k' and v' (chosen, heads, dim) of the chosen tokens.
        bias: (1, 1 or heads, chosen, tokens + chosen), -inf at the kept keys that these replace.
    """
    assert kept is not None  # the first frame is whole
    own = _by_head(new, 1)
    k, v = (torch.cat(pair, dim=2) for pair in zip(kept, own, strict=True))
    o, _ = attend(q.transpose(0, 1)[None], k, v, block.scale, bias)
    return o[0].transpose(0, 1).flatten(1)


def _beside_bias(
    stale: Tensor, positions: Tensor, table: Tensor | None, lines: Grid | None
) -> Tensor:
    """The bias of chosen queries on kept keys and on their own: [stale, 0] + relative positions."""
    bias = torch.cat([stale, stale.new_zeros(positions.shape[0])])
    if table is None or lines is None:
        return bias.expand(1, 1, positions.shape[0], -1)
    keys = torch.cat([torch.arange(stale.shape[0], device=stale.device), positions])
    return bias + RelativePositions(table.transpose(0, 1)[None], lines, keys[None]).bias()


def _within_windows(
    block: EventfulBlock,
    qkv: Tensor,
    grid: Grid | None,
    work: Pass,
    index: Index,
    state: BlockState,
) -> Tensor:
    """The same where attention stays within windows: a query sees those of its own window.

    Keys and values are kept by window, padding among them.
    """
    assert grid is not None
    windows, new = Windows(grid, block.window_size), _keys(block, qkv)
    seats = work.seats_in(windows)
    if work.stale is None:
        kv = _by_window(block, qkv, windows, work, index, state)
        kv.write_(windows.slots_of(index), new)
        if work.each is not None:
            for kept, rows in zip(work.each, kv.split(len(work.each)), strict=True):
                kept[block.name].copy_(rows)
        if work.keep and index.is_everything and not (work.beside or work.each):
            state.kv = kv.to(work.state_dtype)
        kv = kv.rows(seats.touched)
    else:
        assert state.kv is not None  # the first frame is whole
        work.new[block.name] = new
        kv = state.kv.rows(seats.touched)
        kv.write_(seats.place, new)
    q, table = _queries(block, qkv, index.positions, grid)
    table = None if table is None else seats.seated(table)
    return seats.risen(_attend(block, seats.seated(q), kv, table, block.bias_grid(grid)))


def _by_window(
    block: EventfulBlock,
    qkv: Tensor,
    windows: Windows,
    work: Pass,
    index: Index,
    state: BlockState,
) -> KeysValues:
    """The keys and values (batch * windows, heads, area, dim) to write to: kept, or padding."""
    if (others := work.beside or work.each) is not None:
        return KeysValues.joined([kept[block.name] for kept in others])
    if work.keep and not index.is_everything:
        assert state.kv is not None  # the first frame is whole
        return state.kv
    nothing = qkv.new_zeros(1, block.dim)
    first = torch.zeros(1, dtype=torch.int64, device=qkv.device)
    padding = _keys(block, block.to_qkv(nothing, Place(None, windows.grid, first)))
    rows = len(index.counts) * windows.count
    k, v = (x.transpose(0, 1).repeat(rows, 1, windows.size**2, 1) for x in padding)
    return KeysValues(k, v)


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
    block: EventfulBlock, q: Tensor, kv: KeysValues, table: Tensor | None, lines: Grid | None
) -> Tensor:
    """Attention (rows, queries, width) of q (rows, queries, heads, dim) over kv."""
    k, v = kv.to(q.dtype)
    bias = None
    if table is not None and lines is not None:
        bias = RelativePositions(table.transpose(1, 2), lines)
    o, _ = attend(q.transpose(1, 2), k, v, block.scale, bias)
    return o.transpose(1, 2).flatten(2)


def _keys(block: EventfulBlock, qkv: Tensor) -> KeysValues:
    """The keys and values (total, heads, dim) in q, k, v."""
    k, v = qkv[:, block.width // 3 : block.width].unflatten(1, (2, block.heads, -1)).unbind(1)
    return KeysValues(k, v)


def _by_head(kv: KeysValues, rows: int) -> KeysValues:
    """All tokens' keys and values, as they are kept: (rows, heads, tokens, dim)."""
    k, v = (x.unflatten(0, (rows, -1)).transpose(1, 2).contiguous() for x in kv)
    return KeysValues(k, v)


def _padded_rows(kv: KeysValues, index: Index) -> KeysValues:
    """The same, of rows that are whole or empty."""
    _, heads, dim = kv.k.shape
    k, v = (x.new_zeros(len(index.counts), heads, index.tokens, dim) for x in kv)
    rows = KeysValues(k, v)
    rows.write_(index.flat, kv)
    return rows
