"""The region proposal network: where in the pyramid objects may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from eventful.models.vitdet.anchors import RATIOS, grid_anchors
from eventful.models.vitdet.boxes import Size, clip, decode, has_area
from eventful.models.vitdet.torchvision_parts import RPNHead, batched_nms

_ANCHOR_SIZES = {"p2": 32, "p3": 64, "p4": 128, "p5": 256, "p6": 512}
_STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}


@final
class RPN(nn.Module):
    """Proposes boxes, as Detectron2's RPN does at test time.

    Two 3 x 3 convolutions on every level, then an objectness and a box for each of three anchors a
    cell. The best anchors of each level are decoded, clipped to the image, thinned out within their
    level, and the best of all levels are kept.

    Args:
        channels: Of the pyramid's maps.
        keep: Proposals an image.
        keep_per_level: Anchors of a level that are looked at.
        nms_threshold: Overlap (intersection over union) above which the worse box goes.

    Attributes:
        head: torchvision's `RPNHead`, the same as Detectron2's with `conv_dims=[-1, -1]`.

    Example:
        >>> import torch
        >>> features = {f"p{i}": torch.zeros(1, 8, 64 >> i, 96 >> i) for i in range(2, 7)}
        >>> (proposals,) = RPN(channels=8, keep=5)(features, sizes=[(64, 90)])
        >>> proposals.shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        channels: int = 256,
        keep: int = 1000,
        keep_per_level: int = 1000,
        nms_threshold: float = 0.7,
    ) -> None:
        super().__init__()
        self.keep = keep
        self.keep_per_level = keep_per_level
        self.nms_threshold = nms_threshold
        self.head = RPNHead(channels, len(RATIOS), conv_depth=2)

    def forward(self, features: Mapping[str, Tensor], sizes: Sequence[Size]) -> list[Tensor]:
        """Propose boxes.

        Args:
            features: "p2" to "p6", (batch, channels, height, width) each.
            sizes: Height and width of each image without its padding.

        Returns:
            For each image boxes (n, 4) in pixels, the best first.
        """
        logits, deltas = self.head([features[level] for level in _STRIDES])
        found = [self._best(*level) for level in zip(_STRIDES, logits, deltas, strict=True)]
        boxes, scores = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
        level = torch.cat([s.new_full((s.shape[1],), i) for i, (_, s) in enumerate(found)])
        images = zip(boxes, scores, sizes, strict=True)
        return [self._choose(box, score, level, size) for box, score, size in images]

    def _best(self, level: str, logits: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
        """Decode the best anchors of a level.

        Args:
            level: Its name.
            logits: (batch, anchors, height, width).
            deltas: (batch, anchors * 4, height, width).

        Returns:
            Boxes (batch, best, 4) and their logits (batch, best), both in one dtype.
        """
        grid = (logits.shape[2], logits.shape[3])
        anchors = grid_anchors(grid, _ANCHOR_SIZES[level], _STRIDES[level], device=logits.device)
        scores = logits.permute(0, 2, 3, 1).flatten(1)  # (batch, height * width * anchors)
        scores, index = scores.topk(min(self.keep_per_level, scores.shape[1]), dim=1)
        deltas = deltas.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        boxes = decode(anchors[index], deltas.gather(1, index[..., None].expand(-1, -1, 4)))
        return boxes, scores.to(boxes.dtype)

    def _choose(self, boxes: Tensor, scores: Tensor, level: Tensor, size: Size) -> Tensor:
        """Keep the best boxes of one image: (n, 4), (n,) and (n,) to (kept, 4)."""
        usable = boxes.isfinite().all(dim=1) & scores.isfinite()
        boxes = clip(boxes, size)
        usable &= has_area(boxes)
        boxes, scores, level = boxes[usable], scores[usable], level[usable]
        return boxes[batched_nms(boxes, scores, level, self.nms_threshold)[: self.keep]]
