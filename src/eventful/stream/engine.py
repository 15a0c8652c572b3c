"""What a stream asks of the two ways to run its frames, and what they report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eventful.stream.bound import Bound
from eventful.stream.budget import Budget
from eventful.stream.plan import Decision
from eventful.stream.stats import Report


class Taken(NamedTuple):
    """A frame as an engine takes it.

    Attributes:
        x: What the model takes.
        images: The same as pictures in [0, 1], where the policy needs them.
        inputs: What else the model takes.
    """

    x: Tensor
    images: Tensor | None
    inputs: Mapping[str, Any]


class Asked(NamedTuple):
    """A frame of which it is decided what to do.

    Attributes:
        taken: The frame.
        decisions: What each row is given.
        repeats: Whether it gives the last output again.
        seconds: Time taken so far.
    """

    taken: Taken
    decisions: list[Decision]
    repeats: bool
    seconds: float


class Engine(ABC):
    """Runs the frames of a stream.

    Args:
        bound: The model.
        check: Hold blocks to their originals on first frames.
    """

    def __init__(self, bound: Bound, check: bool) -> None:
        self.bound, self._check = bound, check

    def set_budget(self, budget: Budget | None) -> None:
        """Share another budget from the next frame on, or none; token policies have none."""
        return

    @property
    @abstractmethod
    def rows(self) -> int:
        """Batch rows of a frame; 0 before the first."""

    @abstractmethod
    def first(self, taken: Taken, reason: str) -> tuple[Any, Report]:
        """Compute a frame in full, into new state; what was remembered stays until it is done.

        Args:
            taken: The frame.
            reason: Why nothing remembered can be used.
        """

    @abstractmethod
    def run(self, taken: Taken, flush: Mapping[int, str], number: int) -> tuple[Any, Report]:
        """Compute a frame from what is remembered.

        Args:
            taken: The frame.
            flush: Rows to compute in full whatever the policy, and why.
            number: The frame's, for messages.
        """

    @property
    @abstractmethod
    def computed(self) -> Tensor | None:
        """Tokens computed on the last frame, bool (batch, tokens); None before the first."""

    @property
    @abstractmethod
    def interrupted(self) -> bool:
        """Whether a frame that fails now leaves what is remembered half changed."""

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """Memory of all that is remembered."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that is needed to go on, for a snapshot."""

    @abstractmethod
    def load(self, content: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `state` gave."""

    @staticmethod
    def _check_rows(rows: int, x: Tensor) -> int:
        """Refuse a model whose blocks see other rows than its frames have.

        Raises:
            ValueError: They do.
        """
        if rows != len(x):
            raise ValueError(
                f"this model makes {rows} rows of tokens of a frame of {len(x)} rows (tiles, or a "
                f"copy of the frame), which a stream cannot tell apart; cut the frame yourself and "
                f"pass its parts as a batch"
            )
        return rows
