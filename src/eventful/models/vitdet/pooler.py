"""RoIAlign over the levels of a pyramid: each box from the level that fits its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from eventful.models.vitdet.boxes import at_least_float32
from eventful.models.vitdet.torchvision_parts import roi_align

_LEVELS = (2, 3, 4, 5)  # p6 is for proposals only


def level_of(boxes: Tensor) -> Tensor:
    """Which pyramid level a box is pooled from: 4 at 224 pixels, one more at twice the size.

        level = floor(4 + log2(sqrt(area) / 224 + 1e-8)), no less than 2 and no more than 5

    Lin et al. 2017, "Feature Pyramid Networks for Object Detection", equation 1.

    Args:
        boxes: (n, 4).

    Returns:
        (n,) int64; -1 for a box that is not finite, which lies on no level.

    Example:
        >>> import torch
        >>> level_of(torch.tensor([[0.0, 0.0, 224.0, 224.0], [0.0, 0.0, 223.0, 224.0]]))
        tensor([4, 3])
    """
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(dim=1)
    level = (4 + ((width * height).sqrt() / 224 + 1e-8).log2()).floor()
    level = level.clamp(_LEVELS[0], _LEVELS[-1])
    return level.where(boxes.isfinite().all(dim=1), -1.0).long()


def pool(features: Mapping[str, Tensor], boxes: Sequence[Tensor], size: int) -> Tensor:
    """Sample the features of boxes to squares of one size.

    RoIAlign with half-pixel alignment and as many samples a bin as the bin has cells, rounded up
    (Detectron2's ROIAlignV2 with sampling ratio 0).

    Args:
        features: "p2" to "p5", (batch, channels, height, width) each; level p is 2^p pixels a cell.
        boxes: (n_i, 4) for each image of the batch, in pixels.
        size: Height and width of the result.

    Returns:
        (sum of n_i, channels, size, size), image by image; zeros for boxes that are not finite.

    Example:
        >>> import torch
        >>> features = {f"p{i}": torch.full((1, 1, 8, 8), float(i)) for i in (2, 3, 4, 5)}
        >>> pool(features, [torch.tensor([[0.0, 0.0, 16.0, 16.0]])], size=2)
        tensor([[[[2., 2.],
                  [2., 2.]]]])
    """
    maps = {level: features[f"p{level}"] for level in _LEVELS}
    image = torch.cat([each.new_full((len(each), 1), i) for i, each in enumerate(boxes)])
    rois = torch.cat([image, torch.cat(list(boxes))], dim=1)
    level_of_box = level_of(rois[:, 1:])
    any_map = maps[_LEVELS[0]]
    pooled = any_map.new_zeros(len(rois), any_map.shape[1], size, size)
    for level, x in maps.items():
        here = (level_of_box == level).nonzero().squeeze(1)
        pooled[here] = _roi_align(x, rois[here], size, 0.5**level).to(pooled.dtype)
    return pooled


def _roi_align(x: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
    """Sample one map; rois are (n, 5): number of the image, box in pixels."""
    x = at_least_float32(x)
    return roi_align(x, rois.to(x.dtype), size, scale, sampling_ratio=0, aligned=True)
