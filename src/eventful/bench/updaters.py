"""Contenders that run attention alone, step by step over one sequence of q, k, v."""

from __future__ import annotations

from abc import ABC, abstractmethod
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from eventful.attention import Attention, Cached, Dense, Incremental, join_heads, split_heads
from eventful.bench.sequences import DIM, HEADS, Sequence
from eventful.block.state import STAGES
from eventful.counting import BlockSize, block_operations, dense_operations
from eventful.ops import Index

SCALE = DIM**-0.5


class Updater(ABC):
    """A contender; its output (1, tokens, heads * dim) of the latest step is kept for tests."""

    dense = False

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.output = torch.empty(0)

    @abstractmethod
    def run(self) -> None:
        """Take one step."""

    def operations(self) -> int:
        """Multiply-accumulates of a step."""
        return dense_operations(_size(), self.sequence.qkv.shape[1]).total

    def figures(self) -> dict[str, float]:
        """What else is worth knowing about the timed steps."""
        return {}

    def begin(self) -> None:  # noqa: B027 - most have nothing to count
        """Count from here."""


class Fused(Updater):
    """PyTorch's own fused attention."""

    dense = True

    def run(self) -> None:
        """Compute attention in full."""
        q, k, v = split_heads(self.sequence.qkv, HEADS)
        self.output = join_heads(scaled_dot_product_attention(q, k, v))


class Naive(Updater):
    """softmax(q k^T) v by the letter."""

    dense = True

    def run(self) -> None:
        """Compute attention in full."""
        q, k, v = split_heads(self.sequence.qkv, HEADS)
        self.output = join_heads((q @ k.mT * SCALE).softmax(-1) @ v)


class Form(Updater):
    """One of the package's attention forms, uncompiled."""

    def __init__(
        self, form: Attention, sequence: Sequence, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(sequence)
        self.form, self.dtype = form, dtype or sequence.qkv.dtype
        self.output, self.state = form.start(sequence.qkv.to(self.dtype))
        self.corrected: list[int] = []
        self.recomputed: list[int] = []

    def run(self) -> None:
        """Bring attention up to date with the step."""
        s = self.sequence
        self.output = self._step(s.qkv.to(self.dtype), s.old.to(self.dtype), s.index)
        self.corrected.append(sum(self.state.corrected))
        self.recomputed.append(sum(self.state.recomputed))

    def _step(self, qkv: Tensor, old: Tensor, index: Index) -> Tensor:
        return self.form.update(self.state, qkv, old, index)

    def operations(self) -> int:
        """Multiply-accumulates of a step, mean over those since `begin`."""
        tokens, active = self.sequence.qkv.shape[1], self.sequence.index.counts[0]
        name = {Cached: "cached", Dense: "dense", Incremental: "incremental"}[type(self.form)]
        total = block_operations(
            _size(),
            name,  # type: ignore[arg-type]
            tokens,
            dict.fromkeys(STAGES, active),
            corrected=round(fmean(self.corrected)),
            recomputed=round(fmean(self.recomputed)),
        ).total
        return total - tokens * HEADS * DIM  # the block's projection gate

    def figures(self) -> dict[str, float]:
        """Rows sent back by the guard: recomputed, and neither updated nor in rotation."""
        form, tokens = self.form, self.sequence.qkv.shape[1]
        active = self.sequence.index.counts[0]
        if not isinstance(form, Incremental) or form.full_is_cheaper(active, tokens):
            return {}
        expected = active + form.rotated_rows(tokens)
        rows = [max(0, count - expected) for count in self.recomputed]
        return {"guard_rows_mean": fmean(rows), "guard_rows_max": max(rows)}

    def begin(self) -> None:
        """Count from here."""
        self.corrected, self.recomputed = [], []


class Compiled(Form):
    """The update as a compiled stream runs it, one flag read back included.

    Where the flag says that more rows were due than there was room for, attention is computed in
    full, as a stream does.
    """

    def __init__(self, form: Incremental, sequence: Sequence) -> None:
        super().__init__(form, sequence)
        self.update = torch.compile(_update, fullgraph=True, dynamic=False)
        self.fallbacks = 0

    def _step(self, qkv: Tensor, old: Tensor, index: Index) -> Tensor:
        output = self.update(self.form, self.state, qkv, old, index)
        if self.state.overflow.item():
            output, self.state = self.form.start(qkv)
            self.fallbacks += 1
        return output

    def figures(self) -> dict[str, float]:
        """Rows sent back, those that make up a fixed number among them, and steps in full."""
        return super().figures() | {"fallbacks": self.fallbacks}

    def begin(self) -> None:
        """Count from here."""
        super().begin()
        self.fallbacks = 0


def _update(form: Attention, state: object, qkv: Tensor, old: Tensor, index: Index) -> Tensor:
    return form.update(state, qkv, old, index)  # type: ignore[arg-type]


def _size() -> BlockSize:
    """Attention without the linear layers around it."""
    width = HEADS * DIM
    return BlockSize(0, HEADS, width, 3 * width, dict.fromkeys(STAGES, 0))
