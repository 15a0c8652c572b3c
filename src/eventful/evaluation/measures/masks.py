"""Region J and boundary F of masks, and their statistics, as DAVIS defines them.

Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation,
CVPR 2016, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, hypot, isqrt
from typing import NamedTuple

import numpy as np

TOLERANCE = 0.008  # of the image diagonal


def region_j(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union; 1 where both are empty.

    Args:
        found: bool (H, W).
        truth: bool (H, W).

    Example:
        >>> region_j(np.array([[True, True, False]]), np.array([[False, True, True]]))
        0.3333333333333333
    """
    union = int((found | truth).sum())
    return int((found & truth).sum()) / union if union else 1.0


def boundary_f(found: np.ndarray, truth: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """F measure of the boundaries; 1 where neither mask has one.

    A boundary pixel counts as matched within so many pixels (a disk) of the other boundary.

    Args:
        found: bool (H, W).
        truth: bool (H, W).
        tolerance: As a share of the image diagonal, rounded up to whole pixels.

    Example:
        >>> square = np.zeros((20, 30), bool)
        >>> square[4:12, 5:16] = True
        >>> moved = np.roll(square, 1, axis=1)
        >>> boundary_f(moved, square), boundary_f(moved, square, 0) < 1
        (1.0, True)
    """
    radius = ceil(tolerance * hypot(*found.shape))
    ours, theirs = boundary(found), boundary(truth)
    if not ours.any() or not theirs.any():
        return float(not ours.any() and not theirs.any())
    precision = (ours & dilated(theirs, radius)).sum() / ours.sum()
    recall = (theirs & dilated(ours, radius)).sum() / theirs.sum()
    both = precision + recall
    return float(2 * precision * recall / both) if both else 0.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels whose right, lower or lower right neighbour is of the other kind, bool (H, W).

    Outside, the last row and column go on.

    Example:
        >>> boundary(np.array([[0, 0, 0], [0, 0, 1]], bool)).astype(int).tolist()
        [[0, 1, 1], [0, 1, 0]]
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    neighbours = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return np.logical_or.reduce([mask != neighbour for neighbour in neighbours])


def dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    """Pixels within `radius` of a true one, bool (H, W).

    Example:
        >>> dilated(np.eye(3, dtype=bool) & [[False], [True], [False]], 1).astype(int).tolist()
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    """
    height, width = mask.shape
    padded = np.pad(mask, radius)
    sums = np.pad(np.cumsum(padded, axis=1), ((0, 0), (1, 0)))
    near = np.zeros_like(mask)
    for down in range(-radius, radius + 1):
        half = isqrt(radius**2 - down**2)  # how far the disk reaches to the sides in this row
        rows = sums[radius + down : radius + down + height]
        right, left = radius + half + 1, radius - half
        near |= rows[:, right : right + width] > rows[:, left : left + width]
    return near


class Statistics(NamedTuple):
    """Of the values of one sequence.

    Attributes:
        mean: Their mean.
        recall: The share above one half.
        decay: The mean of the first quarter less that of the last.
    """

    mean: float
    recall: float
    decay: float


def statistics(values: Sequence[float] | np.ndarray) -> Statistics | None:
    """DAVIS's three statistics; None without a value.

    Quarters share the values where they meet, as in the benchmark's own code.

    Example:
        >>> statistics([0.9, 0.8, 0.6, 0.4, 0.2])
        Statistics(mean=0.58, recall=0.6, decay=0.55)
    """
    row = np.asarray(values, np.float64)
    if not len(row):
        return None
    ends = np.floor(np.linspace(0, len(row) - 1, 5) + 0.5).astype(int)
    first, last = row[: ends[1] + 1], row[ends[3] :]
    return Statistics(*map(_plain, (row.mean(), (row > 0.5).mean(), first.mean() - last.mean())))


def _plain(value: np.floating) -> float:
    """Without the noise of the last bits, which differs between machines."""
    return round(float(value), 12)
