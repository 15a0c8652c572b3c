"""Exact attention kept up to date from an output and a log-sum-exp a row (docs, section 4.4)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from eventful.attention.form import Attention, AttentionState, Bias, Keys, split_heads
from eventful.ops import Index, attend, exchange_keys
from eventful.ops.index import flatten_positions
from eventful.ops.recompute import State, recompute_, take


def crossover(tokens: int) -> float:
    """Share of updated tokens from which full attention takes less time than an update.

    By pairs of queries and keys the two are equal at one half. An update runs more and smaller
    operators, which weigh the more the fewer tokens there are: below about 150 the share is 0. A
    fit to measurements at 197 to 4,096 tokens on a CPU (docs, speed, "Crossovers").

    Example:
        >>> [round(crossover(tokens), 2) for tokens in (100, 577, 4096)]
        [0.0, 0.26, 0.43]
    """
    return max(0.0, 0.53 - 6.5 / math.sqrt(tokens))


class Incremental(Attention):
    """Exact attention from an output and a log-sum-exp per row: linear memory (docs, section 4).

    Rows of updated tokens are computed against all keys. Every other row has the updated keys'
    old state taken out and their new state put in (`ops.exchange_keys`).

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
            set and the output must not be used. Otherwise as many as are due.
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

    def start(
        self, qkv: Tensor, bias: Bias = None, kv: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """Compute outputs and log-sum-exps in full; outputs are kept in at least float32."""
        batch, tokens, _ = qkv.shape
        o, lse = (x.transpose(1, 2) for x in attend(*self.split(qkv, kv), self.scale, bias))
        kept = o.to(lse.dtype)
        state = AttentionState(
            {"output": kept, "lse": lse, "peak": lse.clone()},
            turn=torch.zeros((), dtype=torch.int64, device=qkv.device),
            corrected=(0,) * batch,
            planned=(tokens,) * batch,
        )
        return kept.flatten(2).to(qkv.dtype), state

    def update(
        self,
        state: AttentionState,
        qkv: Tensor,
        old: Tensor,
        index: Index,
        bias: Bias = None,
        keys: Keys | None = None,
    ) -> Tensor:
        """Correct or recompute every row."""
        if keys is None:
            width = qkv.shape[-1] // 3
            keys = Keys(qkv[..., width:], index, old[..., width:])
        if index.is_even and keys.index.is_even:
            done = self._update(_rows(state), state.turn, qkv, index.even_positions(), keys, bias)
            work = [done] * len(qkv)
        else:
            work = self._update_one_by_one(state, qkv, index, keys, bias)
        state.corrected = tuple(done.corrected for done in work)
        state.planned = tuple(done.updated for done in work)
        state.more = torch.stack([done.more for done in work])
        state.overflow = torch.stack([done.overflow for done in work]).any()
        state.turn += 1
        return state.tensors["output"].flatten(2).to(qkv.dtype)

    def _update_one_by_one(
        self, state: AttentionState, qkv: Tensor, index: Index, keys: Keys, bias: Bias
    ) -> list[_Work]:
        """Update a batch whose rows hold different numbers of updated tokens."""
        work = []
        changed = zip(keys.index.rows(), keys.old.split(keys.index.counts), strict=True)
        for row, (active, (some, old)) in enumerate(zip(index.rows(), changed, strict=True)):
            one = slice(row, row + 1)
            own = None if bias is None else bias.of_rows(one)
            new = Index.from_positions(some[None], keys.index.tokens)
            mine = Keys(keys.kv[one], new, old)
            rows = _rows(state, one)
            work.append(self._update(rows, state.turn, qkv[one], active[None], mine, own))
        return work

    def _update(
        self, rows: State, turn: Tensor, qkv: Tensor, active: Tensor, keys: Keys, bias: Bias
    ) -> _Work:
        """Update rows with as many updated tokens, and as many new keys, each.

        Args:
            rows: Output, log-sum-exp and its peak, changed in place.
            turn: Frames updated before.
            qkv: (batch, tokens, 3 * heads * dim).
            active: (batch, active) positions of the updated tokens, ascending.
            keys: Keys and values.
            bias: Of all queries on all keys.
        """
        batch, tokens, _ = qkv.shape
        count = active.shape[1]
        q, k, v = self.split(qkv, keys.kv)
        if self.full_is_cheaper(count, tokens, keys.index.counts[0] / keys.index.tokens):
            o, lse = (x.transpose(1, 2) for x in attend(q, k, v, self.scale, bias))
            for x, new in zip(rows, (o, lse, lse), strict=True):
                x.copy_(new)
            nothing = torch.zeros_like(turn)
            return _Work(0, tokens, nothing, nothing > 0)
        fresh = torch.zeros(batch, tokens, dtype=torch.bool, device=qkv.device)
        fresh = fresh.scatter(1, active, True)
        due = self._rotating(turn, tokens) & ~fresh
        corrected = None
        if count:
            kept = fresh.to(torch.uint8).argsort(dim=1, stable=True)[:, : tokens - count]
            changed = keys.index.even_positions()
            old_k, old_v = split_heads(keys.old.view(*changed.shape, -1), self.heads, parts=2)
            own = None if bias is None else bias.of_queries(kept).of_keys(changed)
            new = take(k, changed), take(v, changed)
            values, lost = self._correct(rows, kept, take(q, kept), (old_k, old_v), new, own)
            due = due | torch.zeros_like(due).scatter(1, kept, lost)
            corrected = kept, values
        spare = self.spare_rows(tokens) if self.fixed else None
        more, overflow = recompute_(
            rows, (q, k, v), self.scale, active, due, bias, spare, corrected
        )
        return _Work(tokens - count if count else 0, count, more, overflow)

    def _correct(
        self,
        state: State,
        rows: Tensor,
        q: Tensor,
        old: tuple[Tensor, Tensor],
        new: tuple[Tensor, Tensor],
        bias: Bias,
    ) -> tuple[State, Tensor]:
        """Exchange keys in the given rows (batch, rows), whose queries are q.

        Returns:
            The rows' new values, and which rows (batch, rows) must be computed anew.
        """
        flat = flatten_positions(rows, state[0].shape[1])
        o, lse, peak = (x.flatten(0, 1)[flat].unflatten(0, rows.shape) for x in state)
        o, lse = o.transpose(1, 2), lse.transpose(1, 2)
        o, lse = exchange_keys(q, o, lse, old, new, self.scale, bias)
        o, lse = o.transpose(1, 2), lse.transpose(1, 2)
        peak = torch.maximum(peak, lse)
        lost = ~(lse >= peak + self._log_guard(q.dtype))
        return (o, lse, peak), lost.any(dim=2)

    def spare_rows(self, tokens: int) -> int:
        """How many rows beside the updated ones are computed anew on each frame if `fixed`."""
        return self.rotated_rows(tokens) + math.ceil(tokens / 64)

    def rotated_rows(self, tokens: int) -> int:
        """How many rows are computed anew on each frame because of their age."""
        return 0 if self.max_age is None else math.ceil(tokens / self.max_age)

    def _rotating(self, turn: Tensor, tokens: int) -> Tensor:
        """Which rows (tokens,) it is the turn of."""
        share = self.rotated_rows(tokens)
        return (torch.arange(tokens, device=turn.device) - turn * share) % tokens < share

    @staticmethod
    def full_is_cheaper(active: int, tokens: int, changed: float | None = None) -> bool:
        """Whether full attention takes less time than an update.

        Args:
            active: Updated tokens.
            tokens: N.
            changed: Share of keys that are new, if it is not that of the tokens.
        """
        share = active / tokens
        most = crossover(tokens)
        work = share + 2 * (share if changed is None else changed) * (1 - share)
        return active > 0 and work >= most + 2 * most * (1 - most)

    def _log_guard(self, dtype: torch.dtype) -> float:
        half = dtype in (torch.bfloat16, torch.float16)
        return math.log(self.guard if self.guard is not None else (0.5 if half else 0.05))


class _Work(NamedTuple):
    """What an update of a batch row did."""

    corrected: int
    updated: int
    more: Tensor  # further rows computed anew
    overflow: Tensor


def _rows(state: AttentionState, rows: slice = slice(None)) -> State:
    output, lse, peak = (state.tensors[name][rows] for name in ("output", "lse", "peak"))
    return output, lse, peak
