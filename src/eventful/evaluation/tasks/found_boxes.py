"""What tasks that find objects share: a detector on patch tokens, and the boxes that are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from torch import Tensor

from eventful.datasets import Sample
from eventful.datasets.regions import Regions
from eventful.evaluation.measures.boxes import Boxes, average_precision
from eventful.evaluation.measures.patches import Size
from eventful.evaluation.scores import Scores
from eventful.evaluation.tasks.pictures import BLUE, GREEN, boxed
from eventful.evaluation.tasks.token_task import PATCH
from eventful.models.detector import PatchDetector
from eventful.models.vitdet import Detections

SURE = 0.3  # the score from which boxes are drawn


@final
@dataclass
class BoxJudge:
    """Detections and regions of one video.

    Attributes:
        detector: On the tokens.
        grid: Patches (h, w).
        shape: (height, width) of the frames.
        there: What is to be found by a frame's target.
        every: Of the frames, this one in so many is scored, if it has a target.
    """

    detector: PatchDetector
    grid: Size
    shape: Size
    there: Callable[[Any], Regions]
    every: int = 1
    collected: Boxes = field(default_factory=Boxes)

    def see(self, number: int, tokens: Tensor, sample: Sample[Any]) -> None:
        """Detect on a frame that is scored."""
        if sample.target is None or number % self.every:
            return
        self.collected.add(self._boxes(tokens), self.there(sample.target))

    def picture(self, tokens: Tensor, sample: Sample[Any]) -> Tensor:
        """Boxes of a score that makes them likely."""
        found = self._boxes(tokens)
        return boxed(sample.image, found.boxes[found.scores >= SURE].cpu())

    def _boxes(self, tokens: Tensor) -> Detections:
        """What is found, in pixels of the frame."""
        tokens = tokens[None].to(next(self.detector.parameters()).device)
        (found,) = self.detector(tokens, self.grid)
        size = (self.grid[0] * PATCH, self.grid[1] * PATCH)
        return found.scaled(size, self.shape)

    def found(self) -> dict[str, np.ndarray]:
        """What `precision` takes."""
        return self.collected.arrays()


def precision(found: Mapping[str, np.ndarray]) -> Scores:
    """Average precision at an overlap of 0.5, in percent; None where nothing is to be found."""
    value = average_precision(found)
    return {"map50": None if value is None else 100 * value}


def drawn(image: Tensor, regions: Regions) -> Tensor:
    """Boxes to find in green, and in blue those that do not count."""
    return boxed(boxed(image, regions.doubtful, BLUE), regions.boxes, GREEN)
