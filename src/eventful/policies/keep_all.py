"""Every token: the dense model, for comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from eventful.ops import Index
from eventful.policies.policy import Policy


@dataclass(frozen=True)
class KeepAll(Policy):
    """Update every token: the dense model, for comparison.

    Example:
        >>> import torch
        >>> KeepAll().select(torch.zeros(2, 3)).counts
        (3, 3)
    """

    texts: ClassVar[Mapping[str, str]] = {"all": "every token: the dense model"}

    def select(self, error: Tensor) -> Index:
        """Choose all tokens."""
        batch, tokens = error.shape
        return Index.everything(batch, tokens, error.device)

    def count(self, tokens: int) -> int:
        """All of them."""
        return tokens

    @classmethod
    def from_text(cls, name: str, number: str) -> KeepAll:
        """Build it; it has no number."""
        if number:
            raise ValueError("it takes no number")
        return cls()

    def __str__(self) -> str:
        return "all"
