"""Outputs moved along the motion since they were computed."""

from __future__ import annotations

import torch
from torch import Tensor


def carry(tokens: Tensor, motion: Tensor) -> Tensor:
    """Move tokens along the motion, between cells bilinearly.

    Coordinates and weights are float32 whatever the tokens are; a motion by whole cells moves
    values exactly.

    Args:
        tokens: (batch, height, width, dim) of an earlier frame.
        motion: (batch, height, width, 2): how far to go from a cell, down and to the right in
            cells, to find what it shows on the earlier frame.

    Returns:
        (batch, height, width, dim) where the frame now shows them. What comes in from outside is
        taken from the border.

    Example:
        >>> tokens = torch.arange(4.0).view(1, 1, 4, 1)
        >>> left = torch.tensor([0.0, 1.0]).expand(1, 1, 4, 2)  # all was one cell further right
        >>> carry(tokens, left).flatten().tolist()
        [1.0, 2.0, 3.0, 3.0]
    """
    batch, height, width, dim = tokens.shape
    y0, y1, down = _neighbours(motion[..., 0].float(), height, axis=1)
    x0, x1, right = _neighbours(motion[..., 1].float(), width, axis=2)
    first = (torch.arange(batch, device=tokens.device) * height * width).view(-1, 1, 1)
    flat = tokens.reshape(-1, dim)

    def at(y: Tensor, x: Tensor) -> Tensor:
        return flat.index_select(0, (first + y * width + x).flatten())

    down, right = (weight.to(tokens.dtype).reshape(-1, 1) for weight in (down, right))
    above = at(y0, x0).lerp_(at(y0, x1), right)
    below = at(y1, x0).lerp_(at(y1, x1), right)
    return above.lerp_(below, down).view(tokens.shape)


def _neighbours(motion: Tensor, size: int, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two cells that a place lies between, along an axis, and how far it is to the second."""
    shape = [1, 1, 1]
    shape[axis] = size
    cells = torch.arange(size, device=motion.device, dtype=torch.float32).view(shape)
    place = (cells + motion).clamp(0, size - 1)
    before = place.floor()
    after = (before + 1).clamp(max=size - 1)
    return before.long(), after.long(), place - before
