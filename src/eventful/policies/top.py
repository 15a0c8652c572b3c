"""A fixed number or share of the tokens: those whose change is largest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

from torch import Tensor

from eventful.ops import Index
from eventful.policies.policy import Policy, is_number, real, whole


@dataclass(frozen=True)
class TopR(Policy):
    """Update the r tokens of the largest error: a fixed cost per frame (the paper's main policy).

    Example:
        >>> import torch
        >>> TopR(2).select(torch.tensor([[0.1, 0.5, 0.3]])).flat.tolist()
        [1, 2]
    """

    texts: ClassVar[Mapping[str, str]] = {
        "top:256": "the 256 tokens that changed most at every gate"
    }

    r: int

    def __post_init__(self) -> None:
        if not is_number(Integral, self.r) or self.r < 1:
            raise ValueError(f"TopR(r) needs a whole number r of at least 1, got {self.r!r}")

    def select(self, error: Tensor) -> Index:
        """Choose the r largest errors of each row."""
        tokens = error.shape[1]
        if self.r > tokens:
            raise ValueError(
                f"TopR({self.r}) asks for more tokens than a frame has to choose from ({tokens}); "
                f"use r <= {tokens}, or KeepAll() to update all of them"
            )
        return Index.from_positions(error.topk(self.r, dim=1, sorted=False).indices, tokens)

    def count(self, tokens: int) -> int:
        """The same number on every frame."""
        return self.r

    @classmethod
    def from_text(cls, name: str, number: str) -> TopR:
        """Build it from its number."""
        return cls(whole(number))

    def __str__(self) -> str:
        return f"top:{self.r}"


@dataclass(frozen=True)
class TopFraction(Policy):
    """Update the max(1, floor(f N)) tokens of the largest error.

    Example:
        >>> import torch
        >>> TopFraction(0.5).select(torch.tensor([[0.1, 0.5, 0.3]])).flat.tolist()
        [1]
    """

    texts: ClassVar[Mapping[str, str]] = {
        "fraction:0.25": "the quarter of the tokens that changed most at every gate"
    }

    f: float

    def __post_init__(self) -> None:
        if not is_number(Real, self.f) or not 0 <= self.f <= 1:
            raise ValueError(f"TopFraction(f) needs a fraction f from 0 to 1, got {self.f!r}")

    def select(self, error: Tensor) -> Index:
        """Choose the largest errors of each row."""
        return TopR(self.count(error.shape[1])).select(error)

    def count(self, tokens: int) -> int:
        """The same number on every frame."""
        return max(1, math.floor(self.f * tokens))

    @classmethod
    def from_text(cls, name: str, number: str) -> TopFraction:
        """Build it from its number."""
        return cls(real(number))

    def __str__(self) -> str:
        return f"fraction:{self.f}"
