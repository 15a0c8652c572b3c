"""The mask head: which points of a detected box belong to the object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from eventful.models.vitdet.boxes import Size, at_least_float32, check_size
from eventful.models.vitdet.detections import Detections
from eventful.models.vitdet.pooler import pool
from eventful.models.vitdet.pyramid import ChannelNorm
from eventful.models.vitdet.torchvision_parts import MaskRCNNHeads, MaskRCNNPredictor

_POOLED = 14


@final
class MaskHead(nn.Module):
    """Masks of detected boxes: four convolutions with layer norm, one upsampling, one map a class.

    Args:
        classes: Without the background.
        channels: Of the pyramid's maps and of the convolutions.

    Attributes:
        features: torchvision's `MaskRCNNHeads`.
        predictor: torchvision's `MaskRCNNPredictor`; together they are the same as Detectron2's
            `MaskRCNNConvUpsampleHead` with `conv_dims=[256] * 5` and `conv_norm="LN"`.

    Example:
        >>> import torch
        >>> features = {f"p{i}": torch.zeros(1, 8, 64 >> i, 96 >> i) for i in range(2, 6)}
        >>> boxes = torch.tensor([[8.0, 8.0, 40.0, 24.0]])
        >>> found = Detections(boxes, torch.tensor([0.9]), torch.tensor([2]))
        >>> MaskHead(classes=3, channels=8)(features, [found])[0].masks.shape
        torch.Size([1, 28, 28])
    """

    def __init__(self, classes: int, channels: int = 256) -> None:
        super().__init__()
        self.features = MaskRCNNHeads(channels, [channels] * 4, 1, ChannelNorm)
        self.predictor = MaskRCNNPredictor(channels, channels, classes)

    def forward(
        self, features: Mapping[str, Tensor], detections: Sequence[Detections]
    ) -> list[Detections]:
        """Add to each image's detections the masks of their own classes.

        Args:
            features: "p2" to "p5", (batch, channels, height, width) each.
            detections: Those of each image.
        """
        pooled = pool(features, [each.boxes for each in detections], _POOLED)
        logits = self.predictor(self.features(pooled))  # (total, classes, 28, 28)
        labels = torch.cat([each.labels for each in detections])
        own = logits[torch.arange(len(labels), device=labels.device), labels]
        masks = at_least_float32(own).sigmoid().split([len(each) for each in detections])
        return [replace(each, masks=m) for each, m in zip(detections, masks, strict=True)]


def paste_masks(masks: Tensor, boxes: Tensor, size: Size, threshold: float = 0.5) -> Tensor:
    """Stretch masks over their boxes, bilinearly, and cut them at a threshold.

    A mask is a grid of values at the centres of equal cells of the box, with zeros around, and is
    read at the centres of the image's pixels. The two axes are read one after the other, each by a
    matrix: mask of the image = rows mask columns^T.

    Args:
        masks: (n, height, width) in [0, 1].
        boxes: (n, 4), in pixels of the image.
        size: Height and width of the image.
        threshold: The value from which on a point belongs to the object, above 0.

    Returns:
        (n, *size) bool.

    Raises:
        ValueError: The size or the threshold is not positive.

    Example:
        >>> import torch
        >>> paste_masks(torch.ones(1, 28, 28), torch.tensor([[1.0, 0.0, 3.0, 1.0]]), (2, 4)).int()
        tensor([[[0, 1, 1, 0],
                 [0, 0, 0, 0]]], dtype=torch.int32)
    """
    check_size(size)
    if threshold <= 0:
        raise ValueError(f"threshold must be above 0, or all of the image counts, got {threshold}")
    rows = _reading(boxes[:, 1], boxes[:, 3], size[0], masks.shape[1]).to(masks.dtype)
    columns = _reading(boxes[:, 0], boxes[:, 2], size[1], masks.shape[2]).to(masks.dtype)
    pasted = torch.zeros(len(masks), *size, dtype=torch.bool, device=masks.device)
    # One by one: all of them at once would take 4 bytes * n * height * width.
    for out, row, mask, column in zip(pasted, rows, masks, columns, strict=True):
        out.copy_(row @ mask @ column.mT >= threshold)
    return pasted


def _reading(start: Tensor, end: Tensor, pixels: int, cells: int) -> Tensor:
    """Weights of a mask's cells at each pixel along one axis: (n,) and (n,) to (n, pixels, cells).

    A pixel's centre lies at cell (pixel + 0.5 - start) / (end - start) * cells - 0.5.
    """
    centre = torch.arange(pixels, device=start.device, dtype=start.dtype) + 0.5
    start, end = start[:, None], end[:, None]
    place = (centre - start) / (end - start) * cells - 0.5
    distance = place[..., None] - torch.arange(cells, device=start.device)
    return (1 - distance.abs()).clamp(min=0)
