"""Every token that has changed by more than a threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

from torch import Tensor

from eventful.ops import Index
from eventful.policies.policy import Policy, is_number, real


@dataclass(frozen=True)
class Threshold(Policy):
    """Update every token whose error exceeds h, or is NaN: the cost follows the video.

    Example:
        >>> import torch
        >>> Threshold(0.2).select(torch.tensor([[0.1, 0.5, 0.3], [0.0, 0.0, 0.0]])).counts
        (2, 0)
    """

    texts: ClassVar[Mapping[str, str]] = {"threshold:1.0": "every token whose change exceeds 1.0"}

    h: float

    def __post_init__(self) -> None:
        if not is_number(Real, self.h) or not 0 <= self.h < math.inf:
            raise ValueError(f"Threshold(h) needs a finite number h of at least 0, got {self.h!r}")

    def select(self, error: Tensor) -> Index:
        """Choose the errors above h."""
        return Index.from_mask(~(error <= self.h))

    @classmethod
    def from_text(cls, name: str, number: str) -> Threshold:
        """Build it from its number."""
        return cls(real(number))

    def __str__(self) -> str:
        return f"threshold:{self.h}"
