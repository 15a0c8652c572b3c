"""Box arithmetic: x0, y0, x1, y1 in pixels, on the last axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Size = tuple[int, int]
Weights = tuple[float, float, float, float]

# No box grows by more than what makes 16 pixels 1000; keeps exp finite. Detectron2's value.
_MAX_LOG_SCALE = math.log(1000 / 16)


def at_least_float32(x: Tensor) -> Tensor:
    """Widen half precision, whose steps at coordinates near 1000 are whole pixels.

    Example:
        >>> at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def decode(boxes: Tensor, deltas: Tensor, weights: Weights = (1, 1, 1, 1)) -> Tensor:
    """Move and scale boxes by what a network predicts for them.

        centre' = centre + size * d_centre / weight,  size' = size * exp(d_size / weight)

    Args:
        boxes: (..., 4), broadcast against the deltas.
        deltas: dx, dy, dw, dh, (..., 4).
        weights: What the network's targets were multiplied by, in the same order.

    Returns:
        Boxes (..., 4), in float32 at least.

    Example:
        >>> import torch
        >>> decode(torch.tensor([10.0, 10.0, 20.0, 30.0]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
        tensor([20., 10., 30., 30.])
    """
    deltas = at_least_float32(deltas)
    boxes = boxes.to(deltas.dtype)
    shift, log_scale = (deltas / deltas.new_tensor(weights)).split(2, dim=-1)
    top_left, bottom_right = boxes.split(2, dim=-1)
    size = bottom_right - top_left
    centre = top_left + size / 2 + shift * size
    half = size * log_scale.clamp(max=_MAX_LOG_SCALE).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def clip(boxes: Tensor, size: Size) -> Tensor:
    """Cut boxes (..., 4) off at the borders of an image of a height and width.

    Example:
        >>> import torch
        >>> clip(torch.tensor([-3.0, 2.0, 9.0, 11.0]), (10, 7))
        tensor([ 0.,  2.,  7., 10.])
    """
    height, width = size
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def has_area(boxes: Tensor) -> Tensor:
    """Whether boxes (..., 4) are wider and higher than nothing, (...) bool.

    Example:
        >>> import torch
        >>> has_area(torch.tensor([[0.0, 0.0, 3.0, 1.0], [2.0, 0.0, 2.0, 5.0]]))
        tensor([ True, False])
    """
    return (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)


def check_size(size: Size, name: str = "size") -> None:
    """Refuse what is not the height and width of an image.

    Raises:
        ValueError: It is not two positive numbers.

    Example:
        >>> check_size((480, 0))
        Traceback (most recent call last):
        ValueError: size must be a positive height and width in pixels, got (480, 0)
    """
    if len(size) != 2 or min(size) <= 0:
        raise ValueError(f"{name} must be a positive height and width in pixels, got {tuple(size)}")
