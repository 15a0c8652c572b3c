"""What an attention form is, and the three forms of the paper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eventful.ops import Index, RelativePositions, attend

Bias = RelativePositions | None


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """View (batch, tokens, 3 * heads * dim) as q, k, v, each (batch, heads, tokens, dim)."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def join_heads(o: Tensor) -> Tensor:
    """Undo the split: (batch, heads, tokens, dim) -> (batch, tokens, heads * dim)."""
    return o.transpose(1, 2).flatten(2)


@dataclass
class AttentionState:
    """What an attention form remembers: named tensors, batch first, and what it did last.

    Attributes:
        tensors: The state proper.
        turn: Frames updated so far, one number; drives the rotation of `Incremental`.
        overflow: Whether the last frame had more rows to compute anew than there was room for.
        corrected: For each batch row, query rows corrected on the last frame.
        planned: For each batch row, query rows computed against all their keys on it, as far as
            their number followed from the updated tokens. Forms with a closed form for their
            operations leave both at 0.
        more: (batch,) further such rows, known to the device alone; None where there are none.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    turn: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))
    overflow: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.bool))
    corrected: tuple[int, ...] = ()
    planned: tuple[int, ...] = ()
    more: Tensor | None = None

    @property
    def recomputed(self) -> tuple[int, ...]:
        """For each batch row, query rows computed against all their keys on the last frame."""
        more = [0] * len(self.planned) if self.more is None else self.more.tolist()
        return tuple(map(sum, zip(self.planned, more, strict=True)))


class Attention(ABC):
    """An attention form: `start` on the first frame, `update` on every later one.

    Args:
        heads: H.
        scale: Factor on the scores q . k.
        fixed: Do the same amount of work on every frame with as many updated tokens, so that
            nothing has to be read back from the device.
    """

    def __init__(self, heads: int, scale: float, fixed: bool = False) -> None:
        self.heads = heads
        self.scale = scale
        self.fixed = fixed

    @abstractmethod
    def start(self, qkv: Tensor, bias: Bias = None) -> tuple[Tensor, AttentionState]:
        """Compute everything.

        Args:
            qkv: (batch, tokens, 3 * heads * dim).
            bias: Relative positions of all queries on all keys.

        Returns:
            The output (batch, tokens, heads * dim) and the state. They may share memory: read
            the output, do not change it.
        """

    @abstractmethod
    def update(
        self, state: AttentionState, qkv: Tensor, old: Tensor, index: Index, bias: Bias = None
    ) -> Tensor:
        """Bring the state up to date and return the output.

        Args:
            state: Changed in place.
            qkv: (batch, tokens, 3 * heads * dim) with the updated tokens' new values in it.
            old: (total, 3 * heads * dim) what stood at `index` before.
            index: The updated tokens.
            bias: Relative positions of all queries, the updated ones' new, on all keys.

        Returns:
            (batch, tokens, heads * dim). It may share memory with the state: read it, do not
            change it.
        """


class Dense(Attention):
    """Recompute attention over the buffered q, k, v (the paper's token-wise-only variant)."""

    def start(self, qkv: Tensor, bias: Bias = None) -> tuple[Tensor, AttentionState]:
        """Compute attention in full."""
        o, _ = attend(*split_heads(qkv, self.heads), self.scale, bias)
        rows = (qkv.shape[1],) * qkv.shape[0]
        return join_heads(o), AttentionState(corrected=(0,) * len(rows), planned=rows)

    def update(
        self, state: AttentionState, qkv: Tensor, old: Tensor, index: Index, bias: Bias = None
    ) -> Tensor:
        """Compute attention in full again."""
        return self.start(qkv, bias)[0]


class QueryKey(Attention):
    """Keep B = q k^T and rewrite the rows and columns of the updated tokens (paper, section 4.2).

        B[J, :] <- q[J] k^T;   B[:, J] <- q k[J]^T;   o = softmax(B) v

    Computed and kept in at least float32.
    """

    def start(self, qkv: Tensor, bias: Bias = None) -> tuple[Tensor, AttentionState]:
        """Compute B and the output in full."""
        q, k, v = split_heads(_widen(qkv), self.heads)
        product = _scores(q * self.scale, k, bias)
        output = join_heads(product.softmax(-1) @ v).to(qkv.dtype)
        none = (0,) * len(qkv)
        return output, AttentionState({"product": product}, corrected=none, planned=none)

    def update(
        self, state: AttentionState, qkv: Tensor, old: Tensor, index: Index, bias: Bias = None
    ) -> Tensor:
        """Rewrite B and redo softmax and the attention-value product in full."""
        product = state.tensors["product"]
        q, k, v = split_heads(_widen(qkv), self.heads)
        _update_product_(product, q * self.scale, k, index, bias)
        return join_heads(product.softmax(-1) @ v).to(qkv.dtype)


class Cached(Attention):
    """The paper's full form: B as in `QueryKey`, and A v kept up to date by deltas.

        (A v) <- (A v) + A~n v~d + A~d (v~n - v~d)

    with delta gates on v and on the columns of A = softmax(B), both open at the updated tokens. A
    row of which every token is updated is computed in full. Computed and kept in at least float32.
    """

    def start(self, qkv: Tensor, bias: Bias = None) -> tuple[Tensor, AttentionState]:
        """Compute B, A and A v in full; the gates' references are A and v."""
        q, k, v = split_heads(_widen(qkv), self.heads)
        product = _scores(q * self.scale, k, bias)
        a = product.softmax(-1)
        output = a @ v
        references = {"a_reference": a, "v_reference": v.clone()}
        tensors = {"product": product, "output": output} | references
        none = (0,) * len(qkv)
        state = AttentionState(tensors, corrected=none, planned=none)
        return join_heads(output).to(qkv.dtype), state

    def update(
        self, state: AttentionState, qkv: Tensor, old: Tensor, index: Index, bias: Bias = None
    ) -> Tensor:
        """Apply the deltas of the updated tokens to the accumulated output."""
        product, output = state.tensors["product"], state.tensors["output"]
        q, k, v = split_heads(_widen(qkv), self.heads)
        _update_product_(product, q * self.scale, k, index, bias)
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


def _scores(q: Tensor, k: Tensor, bias: Bias) -> Tensor:
    return q @ k.mT if bias is None else q @ k.mT + bias.bias().to(q.dtype)


def _update_product_(product: Tensor, q: Tensor, k: Tensor, index: Index, bias: Bias) -> None:
    """Rewrite the updated rows and columns of B (batch, heads, tokens, tokens)."""
    for row, active in enumerate(index.rows()):
        one = slice(row, row + 1)
        own = None if bias is None else bias.of_rows(one)
        if len(active) == index.tokens:
            product[one] = _scores(q[one], k[one], own)
            continue
        queries = own and own.of_queries(active[None])
        keys = own and own.of_keys(active[None])
        product[row][:, active] = _scores(q[one][:, :, active], k[one], queries)[0]
        product[row][:, :, active] = _scores(q[one], k[one][:, :, active], keys)[0]
