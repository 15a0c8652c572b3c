"""The two forms of the paper that keep the product of queries and keys (section 4.2)."""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor

from eventful.attention.form import Attention, AttentionState, Bias, Keys, join_heads
from eventful.ops import Index


class Mapped(Attention, ABC):
    """A form that keeps B = q k^T, keys times queries of it, and rewrites rows and columns.

        B[J, :] <- q[J] k^T;   B[:, J] <- q k[J]^T          (paper, section 4.2)

    Relative positions are added to the whole of B on every frame. Computed and kept in at least
    float32.

    Args:
        heads: H.
        scale: Factor on the scores q . k.
        fixed: Not served.
        half: Round both factors of attention-value products to float16, as in the paper.
    """

    def __init__(self, heads: int, scale: float, fixed: bool = False, half: bool = False) -> None:
        super().__init__(heads, scale, fixed)
        self.half = half

    def split(self, qkv: Tensor, kv: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """View q, k, v by head, the scale applied, in at least float32.

        What is kept from frame to frame must not round as half types do.
        """
        wide = torch.promote_types(qkv.dtype, torch.float32)
        q, k, v = super().split(qkv.to(wide), None if kv is None else kv.to(wide))
        return q * self.scale, k, v

    def update_product_(
        self, product: Tensor, q: Tensor, k: Tensor, queries: Index, keys: Index
    ) -> None:
        """Rewrite rows and columns of B (batch, heads, queries, keys)."""
        both = zip(queries.rows(), keys.rows(), strict=True)
        for row, (some_queries, some_keys) in enumerate(both):
            if len(some_queries) == queries.tokens:
                product[row] = q[row] @ k[row].mT
                continue
            product[row][:, some_queries] = q[row][:, some_queries] @ k[row].mT
            product[row][:, :, some_keys] = q[row] @ k[row][:, some_keys].mT

    def weights(self, product: Tensor, bias: Bias) -> Tensor:
        """A = softmax(B), relative positions added."""
        return (product if bias is None else product + bias.bias().to(product.dtype)).softmax(-1)

    def weigh(self, a: Tensor, v: Tensor) -> Tensor:
        """A v."""
        return (a.half() @ v.half()).to(a.dtype) if self.half else a @ v


class QueryKey(Mapped):
    """Keep B; redo softmax and the attention-value product in full: o = softmax(B) v."""

    def start(
        self, qkv: Tensor, bias: Bias = None, kv: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """Compute B and the output in full."""
        q, k, v = self.split(qkv, kv)
        product = q @ k.mT
        output = join_heads(self.weigh(self.weights(product, bias), v)).to(qkv.dtype)
        none = (0,) * len(qkv)
        return output, AttentionState({"product": product}, corrected=none, planned=none)

    def update(
        self,
        state: AttentionState,
        qkv: Tensor,
        old: Tensor,
        index: Index,
        bias: Bias = None,
        keys: Keys | None = None,
    ) -> Tensor:
        """Rewrite B and redo the rest."""
        product = state.tensors["product"]
        q, k, v = self.split(qkv, keys and keys.kv)
        self.update_product_(product, q, k, index, keys.index if keys else index)
        return join_heads(self.weigh(self.weights(product, bias), v)).to(qkv.dtype)


class Cached(Mapped):
    """The paper's full form: B as in `QueryKey`, and A v kept up to date by deltas.

        (A v) <- (A v) + A~n v~d + A~d (v~n - v~d)

    with delta gates on v and on the columns of A = softmax(B), both open at the updated tokens. A
    row of which every token is updated is computed in full.
    """

    def start(
        self, qkv: Tensor, bias: Bias = None, kv: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """Compute B, A and A v in full; the gates' references are A and v."""
        q, k, v = self.split(qkv, kv)
        product = q @ k.mT
        a = self.weights(product, bias)
        output = self.weigh(a, v)
        references = {"a_reference": a, "v_reference": v.clone()}
        tensors = {"product": product, "output": output} | references
        none = (0,) * len(qkv)
        state = AttentionState(tensors, corrected=none, planned=none)
        return join_heads(output).to(qkv.dtype), state

    def update(
        self,
        state: AttentionState,
        qkv: Tensor,
        old: Tensor,
        index: Index,
        bias: Bias = None,
        keys: Keys | None = None,
    ) -> Tensor:
        """Apply the deltas of the updated keys to the accumulated output."""
        product, output = state.tensors["product"], state.tensors["output"]
        q, k, v = self.split(qkv, keys and keys.kv)
        changed = keys.index if keys else index
        self.update_product_(product, q, k, index, changed)
        for row, active in enumerate(changed.rows()):
            own = None if bias is None else bias.of_rows(slice(row, row + 1))
            a = self.weights(product[row : row + 1], own)[0]
            a_reference = state.tensors["a_reference"][row]
            v_reference = state.tensors["v_reference"][row]
            if index.counts[row] == index.tokens:
                output[row] = self.weigh(a, v[row])
            else:
                a_new, v_new = a[:, :, active], v[row][:, active]
                a_delta, v_delta = a_new - a_reference[:, :, active], v_new - v_reference[:, active]
                output[row] += self.weigh(a_new, v_delta)
                output[row] += self.weigh(a_delta, v_new - v_delta)
            a_reference[:, :, active] = a[:, :, active]
            v_reference[:, active] = v[row][:, active]
        return join_heads(output).to(qkv.dtype)
