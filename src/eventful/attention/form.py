"""What an attention form is; the plainest recomputes everything."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eventful.ops import Index, RelativePositions, attend

Bias = RelativePositions | None


def split_heads(x: Tensor, heads: int, parts: int = 3) -> tuple[Tensor, ...]:
    """View (batch, tokens, parts * heads * dim) as q, k, v, each (batch, heads, tokens, dim)."""
    return x.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def join_heads(o: Tensor) -> Tensor:
    """Undo the split: (batch, heads, tokens, dim) -> (batch, tokens, heads * dim)."""
    return o.transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class Keys:
    """Keys and values, and which of them are new.

    Attributes:
        kv: (batch, keys, 2 * heads * dim).
        index: The new ones.
        old: (total, 2 * heads * dim) what stood there before.
    """

    kv: Tensor
    index: Index
    old: Tensor


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
    turn: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64, device="cpu"))
    overflow: Tensor = field(
        default_factory=lambda: torch.zeros((), dtype=torch.bool, device="cpu")
    )
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

    Keys and values are those of the tokens, or their own where they are pooled over cells of tokens
    (`Pooling`).

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
    def start(
        self, qkv: Tensor, bias: Bias = None, kv: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """Compute everything.

        Args:
            qkv: (batch, tokens, 3 * heads * dim).
            bias: Relative positions of all queries on all keys.
            kv: Keys and values (batch, keys, 2 * heads * dim), if not those of the tokens.

        Returns:
            The output (batch, tokens, heads * dim) and the state. They may share memory: read
            the output, do not change it.
        """

    @abstractmethod
    def update(
        self,
        state: AttentionState,
        qkv: Tensor,
        old: Tensor,
        index: Index,
        bias: Bias = None,
        keys: Keys | None = None,
    ) -> Tensor:
        """Bring the state up to date and return the output.

        Args:
            state: Changed in place.
            qkv: (batch, tokens, 3 * heads * dim) with the updated tokens' new values in it.
            old: (total, 3 * heads * dim) what stood at `index` before.
            index: The updated tokens.
            bias: Relative positions of all queries, the updated ones' new, on all keys.
            keys: Keys and values, if not those of the tokens.

        Returns:
            (batch, tokens, heads * dim). It may share memory with the state: read it, do not
            change it.
        """

    def split(self, qkv: Tensor, kv: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """View q, k, v by head; keys and values from `kv`, where they have their own."""
        q, k, v = split_heads(qkv, self.heads)
        if kv is not None:
            k, v = split_heads(kv, self.heads, parts=2)
        return q, k, v


class Dense(Attention):
    """Recompute attention over the buffered q, k, v (the paper's token-wise-only variant)."""

    def start(
        self, qkv: Tensor, bias: Bias = None, kv: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """Compute attention in full."""
        o, _ = attend(*self.split(qkv, kv), self.scale, bias)
        rows = (qkv.shape[1],) * qkv.shape[0]
        return join_heads(o), AttentionState(corrected=(0,) * len(rows), planned=rows)

    def update(
        self,
        state: AttentionState,
        qkv: Tensor,
        old: Tensor,
        index: Index,
        bias: Bias = None,
        keys: Keys | None = None,
    ) -> Tensor:
        """Compute attention in full again."""
        return self.start(qkv, bias, keys and keys.kv)[0]
