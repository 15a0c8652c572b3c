"""The paper's equations in float64, one video at a time, slow and plain.

Written from the paper's section 4 and its supplement. Nothing here comes from the package: the
tests beside this file hold the package to it. Notation: N tokens of dimension D, H heads of size
d, M tokens that are updated on a frame; u is a gate's reference, c its current input.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tests.paper import grids

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Choice = Callable[[Array], Indices]  # errors (tokens,) to the tokens that pass

erf = np.vectorize(math.erf, otypes=[float])


def top(r: int, prefix: int = 0) -> Choice:
    """The r largest errors; the first `prefix` tokens pass on every frame, beside r."""

    def choose(error: Array) -> Indices:
        largest = prefix + np.argsort(-error[prefix:])[:r]
        return np.concatenate([np.arange(prefix), largest])

    return choose


def above(h: float, prefix: int = 0) -> Choice:
    """The errors above h; the first `prefix` tokens pass on every frame."""
    return lambda error: np.flatnonzero((error > h) | (np.arange(len(error)) < prefix))


def everything(error: Array) -> Indices:
    return np.arange(len(error))


@dataclass(frozen=True)
class Variant:
    """What the paper varies.

    Attributes:
        attention: "dense" (token-wise only), "query_key", or "full".
        stgt: Whether a token gate's reference is the previous input.
        gate_before_norm: Whether QKV and MLP gates sit before their layer norm.
        pooling: Side of the cells that keys and values are averaged over, in global blocks.
        sampling: For some blocks, how many tokens go on behind their attention.
        half: Whether the attention-value product has operands in float16.
        positions: How relative positions get to another grid: "linear" or "paper".
    """

    attention: str = "full"
    stgt: bool = False
    gate_before_norm: bool = False
    pooling: int = 1
    sampling: Mapping[int, int] = field(default_factory=dict)
    half: bool = False
    positions: str = "linear"


class TokenGate:
    """Lets through c[index], the tokens that have moved; u[index] <- c[index]."""

    def __init__(self, choose: Choice, stgt: bool) -> None:
        self.choose, self.stgt = choose, stgt
        self.u: Array | None = None

    def __call__(self, c: Array) -> Indices:
        index = np.arange(len(c))
        if self.u is not None:
            error = np.linalg.norm(self.u - c, axis=1)
            index = np.sort(self.choose(error))
            assert len(set(index)) == len(index)
        if self.u is None or self.stgt:
            self.u = c.copy()
        else:
            self.u[index] = c[index]
        self.index = index
        return index


class TokenBuffer:
    """b[index] <- f(c~); all of b is what follows reads."""

    def __init__(self) -> None:
        self.b: Array | None = None

    def __call__(self, index: Indices, tokens: Array, of: int) -> Array:
        if self.b is None:
            self.b = np.full((of, *tokens.shape[1:]), np.nan)
        self.b[index] = tokens
        return self.b


class DeltaGate:
    """For an index set that is given: c~n = c[index] and c~d = c[index] - u[index]."""

    def __init__(self) -> None:
        self.u: Array | None = None

    def __call__(self, c: Array, index: Indices) -> tuple[Array, Array]:
        """Gate the rows of c."""
        assert self.u is not None
        new, delta = c[index], c[index] - self.u[index]
        self.u[index] = new
        return new, delta


class QueryKey:
    """B = q k^T of one head: rows of updated queries and columns of updated keys are rewritten."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.b: Array | None = None

    def __call__(self, q: Array, k: Array, rows: Indices, columns: Indices) -> Array:
        if self.b is None or self.variant.attention == "dense":
            self.b = q @ k.T
        else:
            self.b[rows] = q[rows] @ k.T
            self.b[:, columns] = q @ k[columns].T
        return self.b


class AttentionValue:
    """A v of one head, by deltas; both gates take the index set of v.

    In half precision the factors and the result of every product are rounded; references and the
    sum are not.
    """

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.v_gate, self.a_gate = DeltaGate(), DeltaGate()
        self.sum: Array | None = None

    def __call__(self, a: Array, v: Array, index: Indices, all_updated: bool) -> Array:
        if self.sum is None or all_updated or self.variant.attention != "full":
            self.v_gate.u, self.a_gate.u = v.copy(), a.T.copy()
            self.sum = self.product(a, v)
            return self.sum
        v_new, v_delta = self.v_gate(v, index)
        a_new, a_delta = (columns.T for columns in self.a_gate(a.T, index))
        self.sum = self.sum + self.product(a_new, v_delta) + self.product(a_delta, v_new - v_delta)
        return self.sum

    def product(self, a: Array, v: Array) -> Array:
        return half(half(a) @ half(v)) if self.variant.half else a @ v


class Attention:
    """Attention of a block over its buffered q, k, v: N queries to N keys, or to pooled ones."""

    def __init__(self, heads: int, variant: Variant, positions: tuple[Array, Array] | None) -> None:
        self.variant, self.positions = variant, positions
        self.query_key = [QueryKey(variant) for _ in range(heads)]
        self.attention_value = [AttentionValue(variant) for _ in range(heads)]

    def __call__(self, qkv: Array, index: Indices, grid: tuple[int, int] | None) -> Array:
        """Attend; qkv (N, 3, H, d) to (N, H, d). The weights stay in `self.a` (H, N, keys)."""
        q, k, v = qkv.transpose(1, 2, 0, 3)
        self.keys = index
        if self.variant.pooling > 1:
            assert grid is not None
            k, v = (grids.pool_cells(x, grid, self.variant.pooling) for x in (k, v))
            self.keys = grids.pooled_index(index, grid, self.variant.pooling)
        all_updated = len(index) == q.shape[1]
        self.a, self.v, outputs = [], v, []
        for head, (q_h, k_h, v_h) in enumerate(zip(q, k, v, strict=True)):
            scores = self.query_key[head](q_h, k_h, index, self.keys) / math.sqrt(q.shape[-1])
            if self.positions is not None:
                assert grid is not None
                scores = scores + grids.bias(q_h, grid, *self.positions)
            self.a.append(softmax(scores))
            outputs.append(self.attention_value[head](self.a[-1], v_h, self.keys, all_updated))
        return np.stack(outputs, axis=1)


class Sampler:
    """Adaptive token sampling, top-k form, whose kept tokens keep their slots between frames."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.slots: Indices | None = None

    def __call__(self, a: list[Array], v: Array) -> Indices:
        """Choose tokens by the class token's row of A times the norms of the values.

        Args:
            a: H matrices of attention weights, N x N; the class token is the first.
            v: (H, N, d).
        """
        rows = np.stack([a_h[0] for a_h in a])
        score = (rows * np.linalg.norm(v, axis=2)).sum(axis=0)
        best = 1 + np.argsort(-score[1:])[: self.tokens - 1]
        kept = np.sort(np.concatenate([[0], best]))
        if self.slots is None:
            self.slots = kept
        else:
            free = ~np.isin(self.slots, kept)
            self.slots = self.slots.copy()
            self.slots[free] = np.setdiff1d(kept, self.slots)  # ascending
        return self.slots


class Block:
    """An eventful transformer block over the frames of one video.

    Args:
        weights: Of the dense block, by name.
        heads: Number of heads.
        window: Side of its windows; 0 is global attention.
        choose: For "qkv", "proj" and "mlp", the policy of that gate.
        variant: What is on.
        sampling: How many tokens go on behind attention; 0 is all.
        eps: Of the layer norms.
    """

    def __init__(
        self,
        weights: Mapping[str, Array],
        heads: int,
        window: int,
        choose: Mapping[str, Choice],
        variant: Variant,
        sampling: int = 0,
        eps: float = 1e-6,
    ) -> None:
        self.weights, self.heads, self.window, self.variant = weights, heads, window, variant
        self.eps = eps
        self.gates = {name: TokenGate(choose[name], variant.stgt) for name in choose}
        self.buffers = {name: TokenBuffer() for name in choose}
        self.attention: Attention | None = None
        self.sampler = Sampler(sampling) if sampling else None

    def __call__(self, x: Array, grid: tuple[int, int] | None) -> Array:
        """Process the tokens (N, D) of the next frame."""
        qkv = self.gated("qkv", x, self.norm1, self.qkv)
        o = self.attend(qkv, grid)
        if self.sampler is not None:
            assert self.attention is not None
            kept = self.sampler(self.attention.a, self.attention.v)
            o, x = o[kept], x[kept]
        x = x + self.gated("proj", o, None, self.proj)
        return x + self.gated("mlp", x, self.norm2, self.mlp)

    def gated(self, name: str, x: Array, norm: Callable | None, function: Callable) -> Array:
        """A gate, a token-wise function and a buffer: b[index] <- f(norm(x)[index])."""
        norm = norm or np.copy
        c = x if self.variant.gate_before_norm else norm(x)
        index = self.gates[name](c)
        tokens = norm(c[index]) if self.variant.gate_before_norm else c[index]
        return self.buffers[name](index, function(tokens), len(x))

    def attend(self, qkv: Array, grid: tuple[int, int] | None) -> Array:
        if self.window:
            assert grid is not None
            return self.attend_in_windows(qkv, grid)
        if self.attention is None:
            self.attention = Attention(self.heads, self.variant, self.positions(grid))
        o = self.attention(qkv, self.gates["qkv"].index, grid)
        return o.reshape(len(o), -1)

    def attend_in_windows(self, qkv: Array, grid: tuple[int, int]) -> Array:
        """Attention within each window, in full; padding tokens are projected from zero tokens."""
        side, variant = self.window, Variant("dense")  # in full precision, as the paper's code
        positions = self.positions((side, side))
        padded = [-(-length // side) * side for length in grid]
        cells = np.empty((*padded, *qkv.shape[1:]))
        cells[:] = self.qkv(np.zeros((1, self.weights["norm1.weight"].size)))[0]
        cells[: grid[0], : grid[1]] = qkv.reshape(*grid, *qkv.shape[1:])
        out = np.empty((*padded, self.heads, qkv.shape[-1]))
        for y in range(0, padded[0], side):
            for x in range(0, padded[1], side):
                window = cells[y : y + side, x : x + side].reshape(side * side, *qkv.shape[1:])
                attention = Attention(self.heads, variant, positions)
                o = attention(window, np.arange(side * side), (side, side))
                out[y : y + side, x : x + side] = o.reshape(side, side, *o.shape[1:])
        return out[: grid[0], : grid[1]].reshape(len(qkv), -1)

    def positions(self, grid: tuple[int, int] | None) -> tuple[Array, Array] | None:
        """R of both axes, (queries, keys, d): R[y, y'] is added for a query at y and a key at y'.

        With pooled keys it is the mean over the pooled cells.
        """
        if "attn.rel_pos_h" not in self.weights:
            return None
        assert grid is not None
        pooling = 1 if self.window else self.variant.pooling
        resize = {"linear": grids.linear, "paper": grids.bicubic}[self.variant.positions]
        tables_h_w = (
            grids.pool_keys(resize(self.weights[f"attn.rel_pos_{axis}"], length), pooling)
            for axis, length in zip("hw", grid, strict=True)
        )
        return tuple(tables_h_w)  # type: ignore[return-value]

    def qkv(self, c: Array) -> Array:
        """(M, D) to (M, 3, H, d)."""
        qkv = self.linear("attn.qkv", c).reshape(len(c), 3, self.heads, -1)
        if "attn.q_norm.weight" in self.weights:
            qkv[:, 0] = self.layer_norm("attn.q_norm", qkv[:, 0])
            qkv[:, 1] = self.layer_norm("attn.k_norm", qkv[:, 1])
        return qkv

    def proj(self, c: Array) -> Array:
        return self.linear("attn.proj", c) * self.weights.get("ls1.gamma", 1.0)

    def mlp(self, c: Array) -> Array:
        hidden = self.linear("mlp.fc1", c)
        hidden = hidden * (1 + erf(hidden / math.sqrt(2))) / 2
        return self.linear("mlp.fc2", hidden) * self.weights.get("ls2.gamma", 1.0)

    def norm1(self, x: Array) -> Array:
        return self.layer_norm("norm1", x)

    def norm2(self, x: Array) -> Array:
        return self.layer_norm("norm2", x)

    def layer_norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.eps)
        return centred / deviation * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)


def softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def half(x: Array) -> Array:
    """Rounded to float16."""
    return x.astype(np.float16).astype(np.float64)
