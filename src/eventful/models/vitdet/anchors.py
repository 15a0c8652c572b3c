"""Anchors: the boxes from which the region proposal network starts.

torchvision rounds them to whole pixels; Detectron2, and so this module, does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RATIOS = (0.5, 1.0, 2.0)


def cell_anchors(size: float, ratios: Sequence[float] = RATIOS) -> Tensor:
    """Anchors of one cell, centred on the origin.

        w = size / sqrt(ratio),  h = size * sqrt(ratio)

    Args:
        size: Square root of their area, in pixels.
        ratios: Height over width of each.

    Returns:
        Boxes x0, y0, x1, y1, (ratios, 4) in float64.

    Example:
        >>> cell_anchors(32, ratios=(0.25, 1.0)).tolist()
        [[-32.0, -8.0, 32.0, 8.0], [-16.0, -16.0, 16.0, 16.0]]
    """
    root = torch.tensor(ratios, dtype=torch.float64).sqrt()
    corner = torch.stack([size / root, size * root], dim=1) / 2
    return torch.cat([-corner, corner], dim=1)


def grid_anchors(
    grid: tuple[int, int],
    size: float,
    stride: int,
    ratios: Sequence[float] = RATIOS,
    device: torch.device | None = None,
) -> Tensor:
    """Anchors of a feature map: those of one cell, moved to the top left corner of every cell.

    Args:
        grid: Height and width of the map.
        size: Square root of the anchors' area, in pixels.
        stride: Pixels from one cell to the next.
        ratios: Height over width of each anchor of a cell.
        device: Where they are needed.

    Returns:
        Boxes (height * width * ratios, 4) in float32, row by row, those of a cell together.

    Example:
        >>> grid_anchors((1, 2), size=32, stride=4, ratios=(1.0,)).tolist()
        [[-16.0, -16.0, 16.0, 16.0], [-12.0, -16.0, 20.0, 16.0]]
    """
    y, x = (torch.arange(length, device=device) * stride for length in grid)
    y, x = torch.meshgrid(y, x, indexing="ij")
    corners = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (corners + cell_anchors(size, ratios).to(corners.device, torch.float32)).flatten(0, 1)
