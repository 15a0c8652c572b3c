"""Outputs moved along the motion since they were computed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def carry(tokens: Tensor, motion: Tensor) -> Tensor:
    """Move tokens along the motion, between cells bilinearly.

    Args:
        tokens: (batch, height, width, dim) of an earlier frame.
        motion: (batch, height, width, 2) from `Motion`.

    Returns:
        (batch, height, width, dim) where the frame now shows them. What comes in from outside is
        taken from the border.

    Example:
        >>> tokens = torch.arange(4.0).view(1, 1, 4, 1)
        >>> left = torch.tensor([0.0, 1.0]).expand(1, 1, 4, 2)  # all was one cell further right
        >>> carry(tokens, left).flatten().tolist()
        [1.0, 2.0, 3.0, 3.0]
    """
    height, width = tokens.shape[1:3]
    y, x = (torch.arange(side, device=tokens.device) + 0.5 for side in (height, width))
    place_y = 2 * (y[:, None] + motion[..., 0]) / height - 1
    place_x = 2 * (x + motion[..., 1]) / width - 1
    places = torch.stack([place_x, place_y], dim=-1).to(tokens.dtype)
    moved = F.grid_sample(
        tokens.permute(0, 3, 1, 2), places, padding_mode="border", align_corners=False
    )
    return moved.permute(0, 2, 3, 1)
