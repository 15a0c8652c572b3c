"""Connected regions of a mask, and the boxes around what moves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from eventful.datasets.cdnet import UNKNOWN, Motion

MIN_SHARE = 1 / 768  # of the frame's area: 10 x 10 pixels of 320 x 240


@dataclass(frozen=True, eq=False)
class Regions:
    """What moves in a frame, as boxes x0, y0, x1, y1 in pixels.

    Attributes:
        boxes: Around each moving region, (n, 4) float32. Objects that touch each other in the mask
            are one region.
        doubtful: Around what is too small to be sure of or of unknown label throughout, (m, 4);
            finding something there is neither right nor wrong.

    Example: see `moving_regions`.
    """

    boxes: Tensor
    doubtful: Tensor


def moving_regions(motion: Motion, min_share: float = MIN_SHARE) -> Regions:
    """Find the moving regions of a frame inside the region of interest.

    Cracks of two pixels and less are closed, since CDnet labels a rim of doubt around each object
    and posts in front of one cut it into pieces.

    Args:
        motion: The labels.
        min_share: What a region must cover of the frame not to be doubtful.

    Returns:
        The boxes, from the lowest region up.

    Raises:
        ValueError: The share is not between 0 and 1.

    Example:
        >>> labels = torch.zeros(6, 9, dtype=torch.uint8)
        >>> labels[1:4, 2:5] = 255
        >>> labels[5, 8] = 255
        >>> found = moving_regions(Motion(labels, torch.ones(6, 9).bool()), min_share=0.05)
        >>> found.boxes.tolist(), found.doubtful.tolist()
        ([[2.0, 1.0, 5.0, 4.0]], [[8.0, 5.0, 9.0, 6.0]])
    """
    if not 0 <= min_share < 1:
        raise ValueError(f"min_share must be a share of the frame from 0 to below 1, {min_share=}")
    moving = motion.moving & motion.region
    numbers = connected(closed(moving))
    areas = torch.bincount(numbers[moving], minlength=int(numbers.max()) + 1)[1:]
    boxes, large = boxes_around(numbers), areas >= min_share * moving.numel()
    unknown = _without(connected(moving | motion.region & (motion.labels == UNKNOWN)), moving)
    return Regions(boxes[large], torch.cat([boxes[~large], boxes_around(unknown)]))


def _without(numbers: Tensor, mask: Tensor) -> Tensor:
    """The regions that have no part in a mask, numbered anew."""
    touched = torch.isin(numbers, numbers[mask])
    return connected((numbers > 0) & ~touched)


def closed(mask: Tensor) -> Tensor:
    """Close the cracks of a mask (H, W): those of two pixels and less, in any direction.

    Example:
        >>> closed(torch.tensor([[True, False, False, True, False, False, False]])).int().tolist()
        [[1, 1, 1, 1, 0, 0, 0]]
    """
    canvas = F.pad(mask.float(), (1, 1, 1, 1))[None]  # what grows over the border comes back
    grown = F.max_pool2d(canvas, 3, stride=1, padding=1)
    return -F.max_pool2d(-grown, 3, stride=1)[0] > 0


def connected(mask: Tensor) -> Tensor:
    """Number the regions of a mask whose pixels touch by a side or a corner.

    Args:
        mask: bool (H, W).

    Returns:
        int64 (H, W): 0 off the mask, 1 and on for the regions, in the order of their last pixels
        from the end.

    Example:
        >>> connected(torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1]]).bool()).tolist()
        [[2, 0, 0, 1], [0, 2, 0, 1]]
    """
    # Each pixel takes the largest number around it until nothing changes. A number is also the
    # place of a pixel in the same region: taking over that pixel's number doubles the reach.
    pixels = torch.arange(1, mask.numel() + 1, dtype=torch.float64).view(mask.shape)
    numbers, before = pixels * mask, None
    while before is None or not torch.equal(numbers, before):
        before = numbers
        largest = F.max_pool2d(numbers[None], 3, stride=1, padding=1)[0] * mask
        numbers = F.pad(largest.flatten(), (1, 0))[largest.long()]
    last = numbers.unique()
    last = last[last > 0].flip(0)
    found = (numbers[..., None] == last).long()
    return (found * torch.arange(1, len(last) + 1)).sum(dim=-1)


def boxes_around(numbers: Tensor) -> Tensor:
    """The box around each of the numbered regions.

    Args:
        numbers: int64 (H, W), 0 for none and 1 to n, each of which occurs.

    Returns:
        x0, y0, x1, y1 with the far edges behind the last pixel, (n, 4) float32.

    Example:
        >>> boxes_around(torch.tensor([[0, 2, 2], [1, 0, 2]])).tolist()
        [[0.0, 1.0, 1.0, 2.0], [1.0, 0.0, 3.0, 2.0]]
    """
    boxes = torch.empty(int(numbers.max()), 4)
    for number in range(1, len(boxes) + 1):
        first, last = (numbers == number).nonzero().aminmax(dim=0)
        boxes[number - 1] = torch.cat([first, last + 1])[[1, 0, 3, 2]]
    return boxes
