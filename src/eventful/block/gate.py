"""Token gates: which tokens of a tensor are worth passing on (paper, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eventful.ops import Index, error_norm, remember_
from eventful.policies import Policy

GateKind = Literal["token", "stgt"]
Measure = Literal["error", "relative", "age", "relative-age"]
MEASURES: tuple[Measure, ...] = ("error", "relative", "age", "relative-age")


@dataclass
class GateState:
    """What a gate remembers, and what it did on the last frame.

    Attributes:
        reference: u (batch, tokens, dim), each token's value when it was last let through.
        error: (batch, tokens) L2 norm of u - c on the last frame; 0 on a frame without a choice.
        index: The tokens let through on the last frame.
        size: (batch, tokens) norm of the reference, where the policy sees relative errors.
        age: (batch, tokens) frames since a token was let through, where the policy weighs by it.
        before: What stood in the reference where the last frame wrote, kept for `undo_`.
        before_all: What `size` and `age` were.
    """

    reference: Tensor
    error: Tensor
    index: Index
    size: Tensor | None = None
    age: Tensor | None = None
    before: Tensor | None = None
    before_all: tuple[Tensor | None, Tensor | None] = None, None

    @classmethod
    def of(
        cls, reference: Tensor, size: Tensor | None = None, age: Tensor | None = None
    ) -> GateState:
        """Start from a reference (batch, tokens, dim), as if it had just been let through."""
        batch, tokens, _ = reference.shape
        everything = Index.everything(batch, tokens, reference.device)
        wide = torch.promote_types(reference.dtype, torch.float32)
        error = torch.zeros(batch, tokens, dtype=wide, device=reference.device)
        return cls(reference, error, everything, size, age)

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, by name."""
        named = {"reference": self.reference, "size": self.size, "age": self.age}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def undo_(self) -> None:
        """Take the last frame's writes back; error and index are left as they are."""
        if self.before is not None:
            self.size, self.age = self.before_all
            if self.before.shape == self.reference.shape:
                self.reference.copy_(self.before)
            else:
                self.index.scatter_(self.reference, self.before)
            self.before = None


@dataclass(frozen=True)
class TokenGate:
    """Lets through the tokens whose error e = u - c the policy picks, and remembers them.

        index = policy(||u - c||);   c~ = c[index];   u[index] <- c~

    With kind "stgt" the reference is the previous input instead, u <- c, as in spatio-temporal
    gated transformers (the paper's baseline): what moves slowly is then never let through.

    Args:
        kind: "token" or "stgt".
        prefix: Tokens at the front that are always let through, beside those the policy picks.
        measure_by: What the policy picks by: "error", the norm of e; "relative", that over the norm
            of u; "age" or "relative-age", either times the frames since the token was let through,
            so that a small error that lasts is let through in the end.
        suffix: Tokens at the back that are always let through too.

    Example:
        >>> from eventful.policies import TopR
        >>> gate, c = TokenGate(), torch.zeros(1, 3, 2)
        >>> state = gate.new_state(c)
        >>> c[0, 1] = 1.0
        >>> index, passed = gate.update(state, c, TopR(1), gate.measure(state, c), flush=[])
        >>> index.flat.tolist(), passed.tolist()
        ([1], [[1.0, 1.0]])
    """

    kind: GateKind = "token"
    prefix: int = 0
    measure_by: Measure = "error"
    suffix: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("token", "stgt"):
            raise ValueError(f"gate must be 'token' or 'stgt', got {self.kind!r}")
        if self.measure_by not in MEASURES:
            raise ValueError(f"measure must be one of {MEASURES}, got {self.measure_by!r}")

    @property
    def always(self) -> int:
        """Tokens that are let through whatever the policy picks."""
        return self.prefix + self.suffix

    def new_state(self, c: Tensor, dtype: torch.dtype | None = None) -> GateState:
        """Take a whole tensor c (batch, tokens, dim) in, as on the first frame.

        Args:
            c: The frame's values.
            dtype: What the reference is kept in; by default as c.
        """
        form = torch.contiguous_format
        state = GateState.of(c.to(dtype or c.dtype, copy=True, memory_format=form))
        if "relative" in self.measure_by:
            state.size = _norm(state.reference)
        if "age" in self.measure_by:
            state.age = torch.zeros_like(state.error)
        return state

    def measure(self, state: GateState, c: Tensor) -> Tensor:
        """Compute the error's norm ||u - c|| of every token, (batch, tokens).

        c is rounded as the reference is, so that what stays still has no error.
        """
        return error_norm(state.reference, c)

    def update(
        self,
        state: GateState,
        c: Tensor,
        policy: Policy,
        error: Tensor,
        flush: list[int],
        undo: bool = False,
    ) -> tuple[Index, Tensor]:
        """Choose the tokens of this frame and remember their values.

        Args:
            state: Changed in place.
            c: (batch, tokens, dim) the frame's values.
            policy: Picks among the tokens between prefix and suffix.
            error: (batch, tokens) from `measure`.
            flush: Batch rows of which every token is let through.
            undo: Keep what is overwritten, for `GateState.undo_`.

        Returns:
            The index set, and c~ (total, dim). It may share memory with c: read it, do not change
            it.
        """
        rank = self._rank(state, error)
        patches = rank[:, self.prefix : rank.shape[1] - self.suffix]
        index = policy.select(patches).between(self.prefix, self.suffix).with_rows(flush)
        state.error, state.index = error, index
        state.before_all = (state.size, state.age) if undo else (None, None)
        self._note(state, c, index)
        if self.kind == "stgt":
            state.before = state.reference.clone() if undo else None
            state.reference.copy_(c)
            return index, index.gather(c)
        state.before = index.gather(state.reference).clone() if undo else None
        return index, remember_(state.reference, c, index.flat)

    def _rank(self, state: GateState, error: Tensor) -> Tensor:
        """What the policy picks by, (batch, tokens)."""
        if state.size is not None:
            error = error / state.size.clamp_min(torch.finfo(error.dtype).tiny)
        return error if state.age is None else error * (state.age + 1)

    def _note(self, state: GateState, c: Tensor, index: Index) -> None:
        """Bring norms and ages up to date, in new tensors."""
        if state.size is not None:
            new = _norm(index.gather(c).to(state.reference.dtype))
            every = self.kind == "stgt"
            state.size = _norm(c) if every else _put(state.size, index, new)
        if state.age is not None:
            state.age = _put(state.age + 1, index, state.age.new_zeros(len(index.flat)))


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def _put(x: Tensor, index: Index, values: Tensor) -> Tensor:
    """Return x (batch, tokens) with other values (total,) at an index set."""
    return x.flatten().index_copy(0, index.flat, values.to(x.dtype)).view_as(x)
