"""Exact attention kept up to date from an output and a log-sum-exp a row (docs, section 4.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eventful.attention.forms import Attention, AttentionState, Bias, split_heads
from eventful.ops import Index, attend, replace_keys
from eventful.ops.index import flatten_positions

CROSSOVER = 0.42  # share of updated tokens from which full attention takes less time


class Incremental(Attention):
    """Exact attention from an output and a log-sum-exp per row: linear memory (docs, section 4).

    Rows of updated tokens are computed against all keys. Every other row has the updated keys'
    old state taken out and their new state put in (`ops.replace_keys`).

    Rounding stays at the size of the largest mass a row has held since it was last computed, so
    relative error grows as mass falls below that peak, over one update or over many. A row whose
    mass falls by more than `guard` below its peak in any head is therefore computed anew. A test
    on each update alone would not do: losses of 0.06, one after the other, compound. Besides, rows
    are computed anew in rotation so that none is older than `max_age` frames. The bound is on mass:
    a value far larger than all others leaves rounding at its own size until then.

    Where most tokens are updated, full attention from the buffers is faster, and done instead.

    Args:
        heads: H.
        scale: Factor on the scores q . k.
        fixed: Compute the same number of further rows anew on every frame (`spare_rows`): those
            that are due, and others to make up the number. If more are due, `state.overflow` is
            set and the output must not be used. Otherwise as many as are due, which has to be read
            back from the device.
        guard: Smallest share of its peak mass that a row may fall to; None picks it by dtype.
        max_age: Frames within which every row is computed anew; None never does.
    """

    def __init__(
        self,
        heads: int,
        scale: float,
        fixed: bool = False,
        guard: float | None = None,
        max_age: int | None = 256,
    ) -> None:
        if guard is not None and not 0 < guard <= 1:
            raise ValueError(f"guard must lie above 0 and be at most 1, got {guard!r}")
        if max_age is not None and max_age < 1:
            raise ValueError(f"max_age must be at least 1 frame, or None, got {max_age!r}")
        super().__init__(heads, scale, fixed)
        self.guard = guard
        self.max_age = max_age

    def start(self, qkv: Tensor, bias: Bias = None) -> tuple[Tensor, AttentionState]:
        """Compute outputs and log-sum-exps in full; outputs are kept in at least float32."""
        batch, tokens, _ = qkv.shape
        o, lse = (
            x.transpose(1, 2) for x in attend(*split_heads(qkv, self.heads), self.scale, bias)
        )
        kept = o.to(lse.dtype)
        state = AttentionState(
            {"output": kept, "lse": lse, "peak": lse.clone()},
            turn=torch.zeros((), dtype=torch.int64, device=qkv.device),
            corrected=(0,) * batch,
            recomputed=(tokens,) * batch,
        )
        return kept.flatten(2).to(qkv.dtype), state

    def update(
        self,
        state: AttentionState,
        qkv: Tensor,
        old: Tensor,
        index: Index,
        bias: Bias = None,
    ) -> Tensor:
        """Correct or recompute every row."""
        if index.is_even:
            counts = self._update(_Rows.of(state), qkv, old[None], index.even_positions(), bias)
            state.corrected, state.recomputed = ((n,) * len(qkv) for n in counts)
        else:
            self._update_one_by_one(state, qkv, old, index, bias)
        state.turn += 1
        return state.tensors["output"].flatten(2).to(qkv.dtype)

    def _update_one_by_one(
        self, state: AttentionState, qkv: Tensor, old: Tensor, index: Index, bias: Bias
    ) -> None:
        """Update a batch whose rows hold different numbers of updated tokens."""
        work = []
        for row, (active, old_row) in enumerate(
            zip(index.rows(), old.split(index.counts), strict=True)
        ):
            one = slice(row, row + 1)
            own = None if bias is None else bias.of_rows(one)
            rows = _Rows.of(state, one)
            work.append(self._update(rows, qkv[one], old_row[None], active[None], own))
        state.corrected, state.recomputed = (tuple(counts) for counts in zip(*work, strict=True))

    def _update(
        self, rows: _Rows, qkv: Tensor, old: Tensor, active: Tensor, bias: Bias
    ) -> tuple[int, int]:
        """Update rows with as many updated tokens each.

        Args:
            rows: Changed in place.
            qkv: (batch, tokens, 3 * heads * dim).
            old: The old values of the updated tokens, batch * active of them in any shape.
            active: (batch, active) positions of the updated tokens, ascending.
            bias: Of all queries on all keys.

        Returns:
            How many query rows of each batch row were corrected, and how many recomputed.
        """
        batch, tokens, width = qkv.shape
        count = active.shape[1]
        q, k, v = split_heads(qkv, self.heads)
        if self.full_is_cheaper(count, tokens):
            rows.write_(None, _Values.of(*attend(q, k, v, self.scale, bias)))
            return 0, tokens
        fresh = torch.zeros(batch, tokens, dtype=torch.bool, device=qkv.device)
        fresh = fresh.scatter(1, active, True)
        kept = fresh.to(torch.uint8).argsort(dim=1, stable=True)[:, : tokens - count]
        due = self._rotating(rows.turn, kept, tokens)
        corrected = None
        if count:
            _, old_k, old_v = split_heads(old.view(batch, count, width), self.heads)
            own = None if bias is None else bias.of_queries(kept).of_keys(active)
            q_kept = take(q, kept)
            removed = attend(q_kept, old_k, old_v, self.scale, own)
            added = attend(q_kept, take(k, active), take(v, active), self.scale, own)
            corrected = rows.corrected(kept, removed, added)
            due = due | corrected.lost(self._log_guard(qkv.dtype))
        spare = self._spare(due, tokens)
        rows.overflow.copy_(due.sum(dim=1).amax() > spare)
        first = due.to(torch.uint8).topk(spare, dim=1, sorted=False).indices
        redo = torch.cat([active, kept.gather(1, first)], dim=1)
        own = None if bias is None else bias.of_queries(redo)
        fresh_rows = _Values.of(*attend(take(q, redo), k, v, self.scale, own))
        if corrected is None:
            rows.write_(redo, fresh_rows)
            return 0, spare
        corrected.put_(first, fresh_rows.part(slice(count, None)))
        everything = torch.cat([kept, active], dim=1)
        rows.write_(everything, corrected.joined(fresh_rows.part(slice(count))))
        return tokens - count, count + spare

    def _spare(self, due: Tensor, tokens: int) -> int:
        """How many further rows are computed anew, given which of the kept ones are due."""
        if self.fixed:
            return min(self.spare_rows(tokens), due.shape[1])
        return int(due.sum(dim=1).amax()) if due.shape[1] else 0

    def spare_rows(self, tokens: int) -> int:
        """How many rows beside the updated ones are computed anew on each frame if `fixed`."""
        return self.rotated_rows(tokens) + math.ceil(tokens / 64)

    def rotated_rows(self, tokens: int) -> int:
        """How many rows are computed anew on each frame because of their age."""
        return 0 if self.max_age is None else math.ceil(tokens / self.max_age)

    def _rotating(self, turn: Tensor, positions: Tensor, tokens: int) -> Tensor:
        """Which of the rows it is the turn of."""
        share = self.rotated_rows(tokens)
        return (positions - turn * share) % tokens < share

    @staticmethod
    def full_is_cheaper(active: int, tokens: int) -> bool:
        """Whether full attention takes less time than an update of so many tokens.

        By pairs of queries and keys the two are equal at half of the tokens. The measured
        crossover (`CROSSOVER`) lies a little below that.
        """
        return active >= CROSSOVER * tokens

    def _log_guard(self, dtype: torch.dtype) -> float:
        half = dtype in (torch.bfloat16, torch.float16)
        return math.log(self.guard if self.guard is not None else (0.5 if half else 0.05))


def take(x: Tensor, rows: Tensor) -> Tensor:
    """Pick rows (batch, rows) of x (batch, heads, tokens, dim)."""
    x = x.transpose(1, 2)
    if len(x) == 1:
        return x[0].index_select(0, rows[0])[None].transpose(1, 2)
    return x[torch.arange(len(rows), device=x.device)[:, None], rows].transpose(1, 2)


class _Values(NamedTuple):
    """New values of some rows of every batch row."""

    output: Tensor  # (batch, rows, heads, dim)
    lse: Tensor  # (batch, rows, heads)
    peak: Tensor  # (batch, rows, heads), the largest lse since the row was computed in full

    @classmethod
    def of(cls, o: Tensor, lse: Tensor) -> _Values:
        """Take a state (batch, heads, rows, ...) that was computed against all keys."""
        o, lse = o.transpose(1, 2), lse.transpose(1, 2)
        return cls(o.to(lse.dtype), lse, lse)

    def lost(self, log_guard: float) -> Tensor:
        """Which rows (batch, rows) have lost too much of their peak in any head, or are NaN."""
        return (~(self.lse >= self.peak + log_guard)).any(dim=2)

    def part(self, rows: slice) -> _Values:
        return _Values(*(x[:, rows] for x in self))

    def put_(self, rows: Tensor, values: _Values) -> None:
        """Write other values over the given ones (batch, rows) of these rows."""
        flat = flatten_positions(rows, self.lse.shape[1])
        for x, new in zip(self, values, strict=True):
            x.flatten(0, 1).index_copy_(0, flat, new.flatten(0, 1))

    def joined(self, others: _Values) -> _Values:
        return _Values(*(torch.cat(pair, dim=1) for pair in zip(self, others, strict=True)))


@dataclass
class _Rows:
    """The incremental state of some batch rows; writes go through to the whole."""

    values: _Values
    turn: Tensor
    overflow: Tensor

    @classmethod
    def of(cls, state: AttentionState, rows: slice = slice(None)) -> _Rows:
        parts = (state.tensors[name][rows] for name in ("output", "lse", "peak"))
        return cls(_Values(*parts), state.turn, state.overflow)

    def corrected(
        self, rows: Tensor, removed: tuple[Tensor, Tensor], added: tuple[Tensor, Tensor]
    ) -> _Values:
        """Replace keys in the given rows (batch, rows); returns their new values."""
        flat = flatten_positions(rows, self.values.lse.shape[1])
        o, lse, peak = (x.flatten(0, 1)[flat].unflatten(0, rows.shape) for x in self.values)
        old, new = ((o.transpose(1, 2), lse.transpose(1, 2)) for o, lse in (removed, added))
        o, lse = replace_keys(o, lse, old, new)
        return _Values(o, lse, torch.maximum(peak, lse))

    def write_(self, rows: Tensor | None, values: _Values) -> None:
        """Put in new values of some rows (batch, rows), or of all."""
        if rows is None:
            for x, new in zip(self.values, values, strict=True):
                x.copy_(new)
        else:
            self.values.put_(rows, values)
