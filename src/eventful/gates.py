"""Token gates: which tokens of a tensor are worth passing on (paper, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eventful.ops import Index
from eventful.policies import Policy

GateKind = Literal["token", "stgt"]


@dataclass
class GateState:
    """What a gate remembers, and what it did on the last frame.

    Attributes:
        reference: u (batch, tokens, dim), each token's value when it was last let through.
        error: (batch, tokens) L2 norm of u - c on the last frame; 0 on a frame without a choice.
        index: The tokens let through on the last frame.
    """

    reference: Tensor
    error: Tensor
    index: Index

    @classmethod
    def of(cls, reference: Tensor) -> GateState:
        """Start from a reference (batch, tokens, dim), as if it had just been let through."""
        batch, tokens, _ = reference.shape
        everything = Index.everything(batch, tokens, reference.device)
        return cls(reference, reference.new_zeros(batch, tokens), everything)


@dataclass(frozen=True)
class TokenGate:
    """Lets through the tokens whose error e = u - c the policy picks, and remembers them.

        index = policy(||u - c||);   c~ = c[index];   u[index] <- c~

    With kind "stgt" the reference is the previous input instead, u <- c, as in spatio-temporal
    gated transformers (the paper's baseline): what moves slowly is then never let through.

    Args:
        kind: "token" or "stgt".
        prefix: Tokens at the front that are always let through, beside those the policy picks.

    Example:
        >>> from eventful.policies import TopR
        >>> gate, c = TokenGate(), torch.zeros(1, 3, 2)
        >>> state = gate.new_state(c)
        >>> c[0, 1] = 1.0
        >>> gate.update(state, c, TopR(1), gate.measure(state, c), flush=[]).flat.tolist()
        [1]
    """

    kind: GateKind = "token"
    prefix: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("token", "stgt"):
            raise ValueError(f"gate must be 'token' or 'stgt', got {self.kind!r}")

    def new_state(self, c: Tensor) -> GateState:
        """Take a whole tensor c (batch, tokens, dim) in, as on the first frame."""
        return GateState.of(c.clone(memory_format=torch.contiguous_format))

    def measure(self, state: GateState, c: Tensor) -> Tensor:
        """Compute the error's norm ||u - c|| of every token, (batch, tokens)."""
        return torch.linalg.vector_norm(state.reference - c, dim=-1)

    def update(
        self, state: GateState, c: Tensor, policy: Policy, error: Tensor, flush: list[int]
    ) -> Index:
        """Choose the tokens of this frame and remember their values.

        Args:
            state: Changed in place.
            c: (batch, tokens, dim) the frame's values.
            policy: Picks among the tokens behind the prefix.
            error: (batch, tokens) from `measure`.
            flush: Batch rows of which every token is let through.

        Returns:
            The index set; `index.gather(c)` is c~.
        """
        index = policy.select(error[:, self.prefix :]).after_prefix(self.prefix).with_rows(flush)
        state.error, state.index = error, index
        if self.kind == "stgt":
            state.reference.copy_(c)
        else:
            index.scatter_(state.reference, index.gather(c))
        return index
