"""Images with masks, maps and boxes over them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from eventful.evaluation.measures.patches import Size

GREEN, RED, BLUE, AMBER = (0.1, 0.9, 0.2), (1.0, 0.15, 0.1), (0.2, 0.5, 1.0), (1.0, 0.7, 0.0)
_COVER = 0.65  # of what a tint hides where it is strongest
_LUMA = (0.299, 0.587, 0.114)


def tinted(
    image: Tensor, values: Tensor, colour: Sequence[float] = RED, cover: float = _COVER
) -> Tensor:
    """Lay a colour over the image in grey, so that no colour of its own is taken for it.

    Args:
        image: (3, H, W) in [0, 1].
        values: How strong it is, in [0, 1] or bool: (h, w) of any size, enlarged without smoothing.
        colour: Red, green and blue in [0, 1].
        cover: Share of the image that it hides where it is strongest.

    Returns:
        (3, H, W).

    Example:
        >>> tinted(torch.ones(3, 1, 2), torch.tensor([[True, False]]), (1, 0.5, 0), 0.5).tolist()
        [[[1.0, 1.0]], [[0.75, 1.0]], [[0.5, 1.0]]]
    """
    strength = cover * enlarged(values, (image.shape[1], image.shape[2]))
    grey = torch.einsum("chw,c->hw", image, image.new_tensor(_LUMA))
    return grey * (1 - strength) + image.new_tensor(colour)[:, None, None] * strength


def boxed(image: Tensor, boxes: Tensor, colour: Sequence[float] = RED) -> Tensor:
    """Draw the edges of boxes.

    Args:
        image: (3, H, W).
        boxes: x0, y0, x1, y1 in pixels, (n, 4).
        colour: Red, green and blue in [0, 1].

    Returns:
        (3, H, W).

    Example:
        >>> boxed(torch.zeros(3, 3, 4), torch.tensor([[0.0, 0.0, 3.0, 3.0]]), (1, 0, 0))[0].tolist()
        [[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
    """
    mask = torch.zeros(image.shape[1:], dtype=torch.bool)
    width = max(1, round(image.shape[2] / 160))
    for x0, y0, x1, y1 in boxes.round().int().clamp(min=0).tolist():
        inside = mask[y0 + width : y1 - width, x0 + width : x1 - width].clone()
        mask[y0:y1, x0:x1] = True
        mask[y0 + width : y1 - width, x0 + width : x1 - width] = inside
    return torch.where(mask, image.new_tensor(colour)[:, None, None], image)


def enlarged(values: Tensor, shape: Size) -> Tensor:
    """Values (h, w) at another size, float32, without smoothing."""
    if tuple(values.shape) == shape:
        return values.float()
    return F.interpolate(values[None, None].float(), shape, mode="nearest-exact")[0, 0]
