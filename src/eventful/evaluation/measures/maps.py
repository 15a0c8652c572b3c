"""How well maps of values in [0, 1] find the objects of masks, from counts alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

_STEPS = 512  # a unit of log-odds
_LOWEST, _HIGHEST = -48, 16  # behind 16, float32 knows only 1
_LEVELS = (_HIGHEST - _LOWEST) * _STEPS
THRESHOLDS = 256
BETA_SQUARED = 0.3


class MapScores(NamedTuple):
    """Scores of maps; None where there is no answer.

    Attributes:
        auc: Area under the ROC curve: the share of pairs (pixel of an object, other pixel) whose
            values are in this order, ties half. None unless there are both.
        f_beta: Largest F-beta (beta^2 = 0.3) over the thresholds 0, 1/255, ..., 1; None without an
            object.
        mae: Mean absolute difference from the mask; None without a pixel.
    """

    auc: float | None
    f_beta: float | None
    mae: float | None


@final
class MapCounts:
    """Counts over the pixels of one map after another, as much of them as scores need.

    Values are told apart for the ROC curve by their log-odds, in steps of 1/512 from -48 to 16.

    Example:
        >>> counts = MapCounts()
        >>> values = torch.tensor([0.75, 0.5, 0.25, 0.0])
        >>> counts.add(values, torch.tensor([True, False, True, False]))
        >>> map_scores(counts.arrays())
        MapScores(auc=0.75, f_beta=0.8125, mae=0.375)
    """

    def __init__(self) -> None:
        self._odds = torch.zeros(2 * _LEVELS, dtype=torch.int64)
        self._levels = torch.zeros(2 * THRESHOLDS, dtype=torch.int64)
        self._difference = 0.0

    def add(self, values: Tensor, mask: Tensor) -> None:
        """Count pixels.

        Args:
            values: In [0, 1], any shape.
            mask: bool, of the same shape, true on objects.

        Raises:
            ValueError: The shapes differ, or a value is NaN or outside.
        """
        if values.shape != mask.shape:
            raise ValueError(f"a map {tuple(values.shape)} for a mask {tuple(mask.shape)}")
        values, mask = values.flatten().float().cpu(), mask.flatten().cpu()
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError("expected values in [0, 1]; some are NaN or outside")
        odds = ((values.logit() - _LOWEST) * _STEPS).round()
        _count(self._odds, odds.clamp(0, _LEVELS - 1).long(), mask)
        _count(self._levels, (values * (THRESHOLDS - 1)).long(), mask)
        self._difference += float((values.double() - mask.double()).abs().sum())

    def arrays(self) -> dict[str, np.ndarray]:
        """What `map_scores` takes."""
        return {
            "odds": self._odds.view(2, _LEVELS).numpy(),
            "levels": self._levels.view(2, THRESHOLDS).numpy(),
            "difference": np.array(self._difference),
        }


def _count(counts: Tensor, level: Tensor, mask: Tensor) -> None:
    """The first half counts pixels of other things, the second half pixels of objects."""
    size = len(counts)
    counts += torch.bincount(level + mask * (size // 2), minlength=size)


def map_scores(counts: Mapping[str, np.ndarray]) -> MapScores:
    """Score what `MapCounts` has counted.

    Example: see `MapCounts`.
    """
    other, objects = counts["odds"]
    pixels = int(other.sum() + objects.sum())
    mae = float(counts["difference"]) / pixels if pixels else None
    return MapScores(auc(other, objects), _f_beta(*counts["levels"]), mae)


def auc(other: np.ndarray, objects: np.ndarray) -> float | None:
    """Area under the ROC curve from counts by rising value; None if one of them is empty.

    Example:
        >>> auc(np.array([1, 0, 1, 0]), np.array([0, 1, 0, 1])), auc(np.array([2]), np.array([3]))
        (0.75, 0.5)
    """
    pairs = float(other.sum()) * float(objects.sum())
    below = np.cumsum(other) - other
    return float((objects * (below + 0.5 * other)).sum()) / pairs if pairs else None


def _f_beta(other: np.ndarray, objects: np.ndarray) -> float | None:
    """The largest over all thresholds.

    F = (1 + b) P R / (b P + R) with P = hits / found and R = hits / there, which is
    (1 + b) hits / (b there + found): without a hit it is 0.
    """
    there = objects.sum()
    if not there:
        return None
    hits, false = (np.cumsum(counts[::-1]) for counts in (objects, other))
    found = hits + false
    return float(((1 + BETA_SQUARED) * hits / (BETA_SQUARED * there + found)).max())
