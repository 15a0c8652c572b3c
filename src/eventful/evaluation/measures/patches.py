"""Frames and masks on a grid of patches."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
OBJECT_SHARE = 0.3


def share(mask: Tensor, grid: Size) -> Tensor:
    """Which share of each patch a mask covers.

    Args:
        mask: bool (H, W), of any size.
        grid: Number of patches (h, w).

    Returns:
        float32 (h, w).

    Example:
        >>> mask = torch.tensor([[True, True, False, False], [True, False, False, False]])
        >>> share(mask, (1, 2)).tolist(), share(mask, (2, 2)).tolist()
        ([[0.75, 0.0]], [[1.0, 0.0], [0.5, 0.0]])
    """
    rows, columns = (_overlap(cells, side) for cells, side in zip(grid, mask.shape, strict=True))
    return rows @ mask.float() @ columns.T


def _overlap(cells: int, pixels: int) -> Tensor:
    """(cells, pixels): which share of a cell, one of equal ones in a row, each pixel covers."""
    edge = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    start = torch.arange(pixels, dtype=torch.float64)
    ends = torch.minimum(edge[1:, None], start + 1)
    covered = (ends - torch.maximum(edge[:-1, None], start)).clamp(min=0)
    return (covered * cells / pixels).float()


def fitted_frame(image: Tensor, size: Size) -> Tensor:
    """An image (3, H, W) at (height, width) `size`, bilinear with antialiasing; (1, 3, h, w)."""
    if tuple(image.shape[1:]) == size:
        return image[None]
    frame = F.interpolate(image[None], size, mode="bilinear", antialias=True)
    return frame.clamp(0, 1)
