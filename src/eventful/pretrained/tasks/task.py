"""What a task is to the rest: outputs that are read, compared and drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

import numpy as np
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Shown:
    """What a model gave for one frame.

    Attributes:
        output: What it returned.
        taps: (patches, dim) patch tokens that the rest of the model read last, as its final norm
            leaves them.
        grid: Height and width of their grid.
    """

    output: Any
    taps: Tensor
    grid: tuple[int, int]


Scores = Mapping[str, float | None]


class Task(ABC):
    """Reads, compares and draws what models of one task give.

    Args:
        processor: The model's image processor, whose post-processing some tasks need.
        threshold: The score that boxes and key points of the dense model count from.

    Attributes:
        name: What users call it.
        autos: The classes of transformers that load its models.
        named: Further models of it, which no such class loads.
        measures: The scores, and what each means.
    """

    name: ClassVar[str]
    autos: ClassVar[tuple[str, ...]]
    named: ClassVar[tuple[str, ...]] = ()
    measures: ClassVar[Mapping[str, str]]

    def __init__(self, processor: Any, threshold: float) -> None:
        self.processor, self.threshold = processor, threshold

    @abstractmethod
    def read(self, shown: Shown, size: tuple[int, int]) -> Any:
        """What is compared and drawn.

        Args:
            shown: What the model gave.
            size: Height and width of the frame as the model takes it.

        Raises:
            ValueError: The model gives nothing of the kind.
        """

    @abstractmethod
    def differ(self, dense: Any, ours: Any) -> Any:
        """How far what was read of the eventful model is from the dense model's, on one frame."""

    def scores(self, frames: Sequence[Any]) -> Scores:
        """The scores of a whole video: the means of what `differ` gave, of frames that have any."""
        return {name: _mean(frame[name] for frame in frames) for name in self.measures}

    @abstractmethod
    def draw(self, picture: np.ndarray, read: Any) -> np.ndarray:
        """Draw what was read over a frame, or in its place; RGB (height, width, 3), uint8."""


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def missing(field: str, output: Any) -> ValueError:
    """What to say of an output that lacks what a task needs."""
    has = ", ".join(output.keys()) if hasattr(output, "keys") else type(output).__name__
    return ValueError(f"this model gives no {field} (it gives {has}); choose another --task")


def field(output: Any, name: str) -> Tensor:
    """A field of a model's output.

    Raises:
        ValueError: It has none.
    """
    value = output.get(name) if hasattr(output, "get") else getattr(output, name, None)
    if not isinstance(value, Tensor):
        raise missing(name, output)
    return value.detach()
