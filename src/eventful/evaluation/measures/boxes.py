"""Average precision of boxes of one class, with places where finding something does not count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from torch import Tensor

from eventful.datasets.regions import Regions
from eventful.models.vitdet import Detections

try:
    import pycocotools as _pycocotools  # noqa: F401
    from torchmetrics.detection import MeanAveragePrecision
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"mean average precision needs {error.name}; pip install 'eventful-transformers[eval]'",
        name=error.name,
    ) from error


@final
class Boxes:
    """What was found and what is there on one frame after another.

    Example:
        >>> boxes = Boxes()
        >>> there = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
        >>> found = Detections(there[:1], torch.tensor([0.9]), torch.tensor([0]))
        >>> boxes.add(found, Regions(there, there[:0]))
        >>> round(average_precision(boxes.arrays()), 3)
        0.505
    """

    def __init__(self) -> None:
        self._found: list[np.ndarray] = []
        self._there: list[np.ndarray] = []

    def add(self, found: Detections, there: Regions) -> None:
        """Keep a frame."""
        self._found.append(np.column_stack(_numpy(found.boxes, found.scores)))
        kinds = torch.cat([torch.zeros(len(there.boxes)), torch.ones(len(there.doubtful))])
        boxes = torch.cat([there.boxes, there.doubtful])
        self._there.append(np.column_stack(_numpy(boxes, kinds)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Rows of all frames: "found" (x0, y0, x1, y1, score), "there" (x0, y0, x1, y1, doubtful).

        Also the number of each frame's rows, and the number of "scored" frames.
        """
        return {
            "found": np.concatenate([np.empty((0, 5), np.float32), *self._found]),
            "found_counts": np.array([len(rows) for rows in self._found], np.int64),
            "there": np.concatenate([np.empty((0, 5), np.float32), *self._there]),
            "there_counts": np.array([len(rows) for rows in self._there], np.int64),
            "scored": np.array(len(self._found)),
        }


def _numpy(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().float().cpu().numpy() for tensor in tensors]


def average_precision(found: Mapping[str, np.ndarray]) -> float | None:
    """Average precision at an overlap of 0.5, as COCO defines it; None without a vehicle.

    A detection half or more of which lies in a doubtful box does not count.

    Args:
        found: What `Boxes.arrays` gives.

    Example: see `Boxes`.
    """
    if not (found["there"][:, 4] == 0).any():
        return None
    metric = MeanAveragePrecision(iou_thresholds=[0.5], backend="pycocotools")
    rows = zip(_split(found, "found"), _split(found, "there"), strict=True)
    for ours, theirs in rows:
        labels, true_labels = (torch.zeros(len(part), dtype=torch.int64) for part in (ours, theirs))
        metric.update(
            [{"boxes": ours[:, :4], "scores": ours[:, 4], "labels": labels}],
            [{"boxes": theirs[:, :4], "labels": true_labels, "iscrowd": theirs[:, 4].long()}],
        )
    return float(metric.compute()["map_50"])


def _split(found: Mapping[str, np.ndarray], name: str) -> list[Tensor]:
    """The rows of each frame."""
    ends = np.cumsum(found[f"{name}_counts"])[:-1]
    return [torch.from_numpy(rows) for rows in np.split(found[name], ends)]
