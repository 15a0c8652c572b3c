"""Pose: the share of key points that lie where the dense model sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from eventful.pretrained.pictures import dotted
from eventful.pretrained.tasks.task import Scores, Shown, Task, field

_NEAR = 0.05  # of the longer side of the person's box, as PCK@0.05


class Points(NamedTuple):
    """Key points of one person.

    Attributes:
        places: (points, 2) x and y as shares of the frame's longer side.
        scores: (points,) of the heat maps.
        shape: Height and width of the frame as shares of its longer side.
    """

    places: Tensor
    scores: Tensor
    shape: tuple[float, float]


@final
class Pose(Task):
    """Key points against the dense model's: PCK at 0.05 of the longer side of the frame.

    The whole frame is the person's box.

    Example:
        >>> scores = torch.tensor([0.9, 0.8, 0.1])
        >>> dense = Points(torch.zeros(3, 2), scores, (1.0, 1.0))
        >>> ours = Points(torch.tensor([[0.01, 0.0], [0.3, 0.0], [0.9, 0.0]]), scores, (1.0, 1.0))
        >>> Pose(None, 0.3).differ(dense, ours)["pck"]
        0.5
    """

    name = "pose"
    autos = ("AutoModelForPoseEstimation", "AutoModelForKeypointDetection")
    named = ("VitPoseForPoseEstimation",)
    measures: ClassVar[Mapping[str, str]] = {
        "pck": "share of the dense model's key points within 5 % of the longer side; 1 is best",
        "distance": "mean distance to them, in shares of the longer side; 0 is best",
    }

    def read(self, shown: Shown, size: tuple[int, int]) -> Points:
        """The highest place of each heat map."""
        maps = field(shown.output, "heatmaps")[0].float().cpu()
        height, width = maps.shape[-2:]
        best = maps.flatten(1).max(dim=1)
        y, x = best.indices // width, best.indices % width
        h, w = (side / max(size) for side in size)
        places = torch.stack([(x + 0.5) / width * w, (y + 0.5) / height * h], dim=1)
        return Points(places, best.values, (h, w))

    def differ(self, dense: Points, ours: Points) -> Scores:
        """Compare the points that the dense model is sure of."""
        sure = dense.scores >= self.threshold
        if not sure.any():
            return {"pck": None, "distance": None}
        away = (dense.places - ours.places).norm(dim=1)[sure]
        return {"pck": float((away <= _NEAR).float().mean()), "distance": float(away.mean())}

    def draw(self, picture: np.ndarray, read: Points) -> np.ndarray:
        """Dots on the frame."""
        sure = read.places[read.scores >= self.threshold]
        return dotted(picture, (sure * max(picture.shape[:2])).tolist())
