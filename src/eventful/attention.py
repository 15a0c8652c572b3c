"""Four ways to keep attention up to date when some tokens' q, k and v have changed.

All take the same buffered q, k, v and give the attention output of every token. `Dense`,
`QueryKey` and `Incremental` agree with full attention over the buffers up to rounding; `Cached`
follows the paper's equations, which drop part of the renormalisation (docs, method, section 4).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from eventful.ops import Index, attend, replace_keys

AttentionName = Literal["dense", "query_key", "cached", "incremental"]


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """View (batch, tokens, 3 * heads * dim) as q, k, v, each (batch, heads, tokens, dim)."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def join_heads(o: Tensor) -> Tensor:
    """Undo the split: (batch, heads, tokens, dim) -> (batch, tokens, heads * dim)."""
    return o.transpose(1, 2).flatten(2)


@dataclass
class AttentionState:
    """What an attention form remembers: named tensors, batch first, and small counters.

    Attributes:
        tensors: The state proper.
        turn: Frames updated so far; drives the rotation of `Incremental`.
        corrected: For each batch row, query rows corrected on the last frame.
        recomputed: For each batch row, query rows computed against all keys on the last frame.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    turn: int = 0
    corrected: tuple[int, ...] = ()
    recomputed: tuple[int, ...] = ()


class Attention(ABC):
    """An attention form: `start` on the first frame, `update` on every later one.

    Args:
        heads: H.
        scale: Factor on the scores q . k.
    """

    def __init__(self, heads: int, scale: float) -> None:
        self.heads = heads
        self.scale = scale

    @abstractmethod
    def start(self, qkv: Tensor) -> tuple[Tensor, AttentionState]:
        """Compute everything from qkv (batch, tokens, 3 * heads * dim).

        Returns:
            The output (batch, tokens, heads * dim) and the state. They may share memory: read
            the output, do not change it.
        """

    @abstractmethod
    def update(self, state: AttentionState, qkv: Tensor, old: Tensor, index: Index) -> Tensor:
        """Bring the state up to date and return the output.

        Args:
            state: Changed in place.
            qkv: (batch, tokens, 3 * heads * dim) with the updated tokens' new values in it.
            old: (total, 3 * heads * dim) what stood at `index` before.
            index: The updated tokens.

        Returns:
            (batch, tokens, heads * dim). It may share memory with the state: read it, do not
            change it.
        """


class Dense(Attention):
    """Recompute attention over the buffered q, k, v (the paper's token-wise-only variant)."""

    def start(self, qkv: Tensor) -> tuple[Tensor, AttentionState]:
        """Compute attention in full."""
        o, _ = attend(*split_heads(qkv, self.heads), self.scale)
        rows = (qkv.shape[1],) * qkv.shape[0]
        return join_heads(o), AttentionState(corrected=(0,) * len(rows), recomputed=rows)

    def update(self, state: AttentionState, qkv: Tensor, old: Tensor, index: Index) -> Tensor:
        """Compute attention in full again."""
        return self.start(qkv)[0]


class QueryKey(Attention):
    """Keep B = q k^T and rewrite the rows and columns of the updated tokens (paper, section 4.2).

        B[J, :] <- q[J] k^T;   B[:, J] <- q k[J]^T;   o = softmax(B) v

    Computed and kept in at least float32.
    """

    def start(self, qkv: Tensor) -> tuple[Tensor, AttentionState]:
        """Compute B and the output in full."""
        q, k, v = split_heads(_widen(qkv), self.heads)
        product = (q * self.scale) @ k.mT
        output = join_heads(product.softmax(-1) @ v).to(qkv.dtype)
        return output, AttentionState({"product": product})

    def update(self, state: AttentionState, qkv: Tensor, old: Tensor, index: Index) -> Tensor:
        """Rewrite B and redo softmax and the attention-value product in full."""
        product = state.tensors["product"]
        q, k, v = split_heads(_widen(qkv), self.heads)
        _update_product_(product, q * self.scale, k, index)
        return join_heads(product.softmax(-1) @ v).to(qkv.dtype)


class Cached(Attention):
    """The paper's full form: B as in `QueryKey`, and A v kept up to date by deltas.

        (A v) <- (A v) + A~n v~d + A~d (v~n - v~d)

    with delta gates on v and on the columns of A = softmax(B), both open at the updated tokens. A
    row of which every token is updated is computed in full. Computed and kept in at least float32.
    """

    def start(self, qkv: Tensor) -> tuple[Tensor, AttentionState]:
        """Compute B, A and A v in full; the gates' references are A and v."""
        q, k, v = split_heads(_widen(qkv), self.heads)
        product = (q * self.scale) @ k.mT
        a = product.softmax(-1)
        output = a @ v
        references = {"a_reference": a, "v_reference": v.clone()}
        state = AttentionState({"product": product, "output": output} | references)
        return join_heads(output).to(qkv.dtype), state

    def update(self, state: AttentionState, qkv: Tensor, old: Tensor, index: Index) -> Tensor:
        """Apply the deltas of the updated tokens to the accumulated output."""
        product, output = state.tensors["product"], state.tensors["output"]
        q, k, v = split_heads(_widen(qkv), self.heads)
        _update_product_(product, q * self.scale, k, index)
        for row, active in enumerate(index.rows()):
            a = product[row].softmax(-1)
            a_reference = state.tensors["a_reference"][row]
            v_reference = state.tensors["v_reference"][row]
            if len(active) == index.tokens:
                output[row] = a @ v[row]
            else:
                a_new, v_new = a[:, :, active], v[row][:, active]
                a_delta, v_delta = a_new - a_reference[:, :, active], v_new - v_reference[:, active]
                output[row] += a_new @ v_delta
                output[row] += a_delta @ (v_new - v_delta)
            a_reference[:, :, active] = a[:, :, active]
            v_reference[:, active] = v[row][:, active]
        return join_heads(output).to(qkv.dtype)


def _widen(qkv: Tensor) -> Tensor:
    """At least float32: what is kept from frame to frame must not round as half types do."""
    return qkv.to(torch.promote_types(qkv.dtype, torch.float32))


def _update_product_(product: Tensor, q: Tensor, k: Tensor, index: Index) -> None:
    """Rewrite the updated rows and columns of B (batch, heads, tokens, tokens)."""
    for row, active in enumerate(index.rows()):
        if len(active) == index.tokens:
            product[row] = q[row] @ k[row].mT
            continue
        product[row][:, active] = q[row][:, active] @ k[row].mT
        product[row][:, :, active] = q[row] @ k[row][:, active].mT


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

    Where most tokens are updated and this would take more query-key pairs than full attention,
    full attention from the buffers it is.

    Args:
        heads: H.
        scale: Factor on the scores q . k.
        guard: Smallest share of its peak mass that a row may fall to; None picks it by dtype.
        max_age: Frames within which every row is computed anew; None never does.
    """

    def __init__(
        self, heads: int, scale: float, guard: float | None = None, max_age: int | None = 256
    ) -> None:
        if guard is not None and not 0 < guard <= 1:
            raise ValueError(f"guard must lie above 0 and be at most 1, got {guard!r}")
        if max_age is not None and max_age < 1:
            raise ValueError(f"max_age must be at least 1 frame, or None, got {max_age!r}")
        super().__init__(heads, scale)
        self.guard = guard
        self.max_age = max_age

    def start(self, qkv: Tensor) -> tuple[Tensor, AttentionState]:
        """Compute outputs and log-sum-exps in full; outputs are kept in at least float32."""
        q, k, v = split_heads(qkv, self.heads)
        o, lse = attend(q, k, v, self.scale)
        batch, tokens = len(q), q.shape[2]
        kept = o.transpose(1, 2).to(lse.dtype).contiguous()
        return kept.flatten(2).to(qkv.dtype), AttentionState(
            {"output": kept, "lse": lse, "peak": lse.clone()},
            corrected=(0,) * batch,
            recomputed=(tokens,) * batch,
        )

    def update(self, state: AttentionState, qkv: Tensor, old: Tensor, index: Index) -> Tensor:
        """Correct or recompute every row, one batch row after the other."""
        q, k, v = split_heads(qkv, self.heads)
        _, old_k, old_v = split_heads(old[None], self.heads)
        removed = zip(old_k.split(index.counts, 2), old_v.split(index.counts, 2), strict=True)
        work = []
        for row, (active, old_keys) in enumerate(zip(index.rows(), removed, strict=True)):
            one = slice(row, row + 1)
            view = _RowState(*(state.tensors[name][one] for name in ("output", "lse", "peak")))
            work.append(
                self._update_row(view, (q[one], k[one], v[one]), old_keys, active, state.turn)
            )
        state.corrected, state.recomputed = (tuple(counts) for counts in zip(*work, strict=True))
        state.turn += 1
        return state.tensors["output"].flatten(2).to(qkv.dtype)

    def _update_row(
        self,
        state: _RowState,
        qkv: tuple[Tensor, Tensor, Tensor],
        old_keys: tuple[Tensor, Tensor],
        active: Tensor,
        turn: int,
    ) -> tuple[int, int]:
        """Update one batch row; returns how many query rows were corrected and recomputed."""
        q, k, v = qkv
        fresh = torch.zeros(q.shape[2], dtype=torch.bool, device=q.device)
        fresh[active] = True
        fresh[self._rotation(q.shape[2], turn)] = True
        kept = (~fresh).nonzero().squeeze(1)
        if self.full_is_cheaper(len(active), len(kept), len(fresh)):
            fresh[:], kept = True, kept[:0]
        if len(active) and len(kept):
            q_kept = q.index_select(2, kept)
            removed = attend(q_kept, *old_keys, self.scale)
            added = attend(q_kept, k[:, :, active], v[:, :, active], self.scale)
            fresh[kept] = state.correct_(kept, removed, added, self._log_guard(q.dtype))
        redo = fresh.nonzero().squeeze(1)
        state.recompute_(redo, attend(q.index_select(2, redo), k, v, self.scale))
        return (len(kept) if len(active) else 0), len(redo)

    def rotated_rows(self, tokens: int) -> int:
        """How many rows are computed anew on each frame because of their age."""
        return 0 if self.max_age is None else math.ceil(tokens / self.max_age)

    def _rotation(self, tokens: int, turn: int) -> slice:
        """The rows whose turn it is to be computed anew."""
        share = self.rotated_rows(tokens)
        start = turn % math.ceil(tokens / max(1, share)) * share
        return slice(start, start + share)

    @staticmethod
    def full_is_cheaper(active: int, kept: int, tokens: int) -> bool:
        """Whether correcting the kept rows takes at least as many query-key pairs as all of them.

        Args:
            active: Updated tokens.
            kept: Rows that are neither updated nor computed anew because of their age.
            tokens: N.
        """
        return (tokens - kept) * tokens + 2 * active * kept >= tokens * tokens

    def _log_guard(self, dtype: torch.dtype) -> float:
        half = dtype in (torch.bfloat16, torch.float16)
        return math.log(self.guard if self.guard is not None else (0.5 if half else 0.05))


@dataclass
class _RowState:
    """One batch row of the incremental state; writes go through to the whole."""

    output: Tensor  # (1, tokens, heads, dim)
    lse: Tensor  # (1, heads, tokens)
    peak: Tensor  # (1, heads, tokens), the largest lse since the row was computed in full

    def correct_(
        self,
        rows: Tensor,
        removed: tuple[Tensor, Tensor],
        added: tuple[Tensor, Tensor],
        log_guard: float,
    ) -> Tensor:
        """Replace keys in the given rows; returns which of them must be computed anew."""
        o = self.output.index_select(1, rows).transpose(1, 2)
        o, lse = replace_keys(o, self.lse.index_select(2, rows), removed, added)
        peak = torch.maximum(self.peak.index_select(2, rows), lse)
        self._write_(rows, o, lse, peak)
        return (~(lse >= peak + log_guard)).any(dim=1).squeeze(0)

    def recompute_(self, rows: Tensor, state: tuple[Tensor, Tensor]) -> None:
        """Put in rows that were computed against all keys."""
        self._write_(rows, *state, state[1])

    def _write_(self, rows: Tensor, o: Tensor, lse: Tensor, peak: Tensor) -> None:
        self.output.index_copy_(1, rows, o.transpose(1, 2).to(self.output.dtype))
        self.lse.index_copy_(2, rows, lse)
        self.peak.index_copy_(2, rows, peak)


FORMS: dict[AttentionName, type[Attention]] = {
    "dense": Dense,
    "query_key": QueryKey,
    "cached": Cached,
    "incremental": Incremental,
}
