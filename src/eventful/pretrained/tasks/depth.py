"""Depth: the relative error of depths, and the share of them that is right within 25 %."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from eventful.pretrained.pictures import heat, resized
from eventful.pretrained.tasks.task import Scores, Shown, Task, field

_LEAST = 1e-3  # of the largest depth; nearer to zero a relative error has no meaning
_RIGHT = 1.25


@final
class Depth(Task):
    """Depth against the dense model's.

    Example:
        >>> dense = torch.tensor([[1.0, 2.0], [4.0, 0.0]])
        >>> scores = Depth(None, 0.3).differ(dense, torch.tensor([[1.0, 3.0], [4.0, 9.0]]))
        >>> {name: round(value, 3) for name, value in scores.items()}
        {'relative_depth': 0.167, 'delta1': 0.667}
    """

    name = "depth"
    autos = ("AutoModelForDepthEstimation",)
    measures: ClassVar[Mapping[str, str]] = {
        "relative_depth": "mean of |d - dense| / dense over the pixels; 0 is best",
        "delta1": "share of the pixels whose depth is within a factor of 1.25; 1 is best",
    }
    _top: float | None = None

    def read(self, shown: Shown, size: tuple[int, int]) -> Tensor:
        """The depths (height, width) of the frame."""
        return field(shown.output, "predicted_depth")[0].float().cpu()

    def differ(self, dense: Tensor, ours: Tensor) -> Scores:
        """Compare the pixels where the dense depth is not nearly zero."""
        known = dense > _LEAST * dense.max()
        if not known.any():
            return {"relative_depth": None, "delta1": None}
        d, o = dense[known], ours[known]
        right = (o > d / _RIGHT) & (o < d * _RIGHT)
        return {
            "relative_depth": float(((o - d).abs() / d).mean()),
            "delta1": float(right.float().mean()),
        }

    def draw(self, picture: np.ndarray, read: Tensor) -> np.ndarray:
        """Depths as colours, on the scale of the first that was drawn."""
        if self._top is None:
            self._top = float(torch.quantile(read.flatten()[:: max(1, read.numel() >> 20)], 0.99))
        return resized(heat(read.numpy(), self._top), picture.shape[:2])
