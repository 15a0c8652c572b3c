"""Box heads: from proposals to detections, in one stage (Faster R-CNN) or several (Cascade)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from eventful.models.vitdet.boxes import Size, Weights, at_least_float32, clip, decode
from eventful.models.vitdet.detections import Detections, select
from eventful.models.vitdet.pooler import pool
from eventful.models.vitdet.pyramid import ChannelNorm
from eventful.models.vitdet.torchvision_parts import FastRCNNConvFCHead

_POOLED = 7


@final
class BoxHead(nn.Module):
    """Scores and boxes of pooled regions: four convolutions with layer norm, one linear layer.

    Args:
        classes: Without the background, which comes last.
        weights: What the regression targets are multiplied by, see `boxes.decode`.
        agnostic: One box for all classes, instead of one for each.
        channels: Of the pyramid's maps and of the convolutions.
        hidden: Width of the linear layer.

    Attributes:
        features: torchvision's `FastRCNNConvFCHead`, the same as Detectron2's with
            `conv_dims=[256] * 4`, `fc_dims=[1024]` and `conv_norm="LN"`.
        cls_score: Linear, to classes + 1.
        bbox_pred: Linear, to 4 values a box.

    Example:
        >>> import torch
        >>> head = BoxHead(classes=3, channels=8, hidden=16)
        >>> logits, deltas = head(torch.zeros(5, 8, 7, 7))
        >>> logits.shape, deltas.shape
        (torch.Size([5, 4]), torch.Size([5, 3, 4]))
    """

    def __init__(
        self,
        classes: int,
        weights: Weights = (10, 10, 5, 5),
        agnostic: bool = False,
        channels: int = 256,
        hidden: int = 1024,
    ) -> None:
        super().__init__()
        self.weights = weights
        self.agnostic = agnostic
        shape = (channels, _POOLED, _POOLED)
        self.features = FastRCNNConvFCHead(shape, [channels] * 4, [hidden], ChannelNorm)
        self.cls_score = nn.Linear(hidden, classes + 1)
        self.bbox_pred = nn.Linear(hidden, 4 if agnostic else 4 * classes)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Predict from pooled regions (n, channels, 7, 7).

        Returns:
            Logits (n, classes + 1), the background last, and deltas (n, classes or 1, 4).
        """
        x = self.features(pooled)
        return self.cls_score(x), self.bbox_pred(x).unflatten(1, (-1, 4))


@final
class BoxHeads(nn.Module):
    """Runs one box head, or a cascade of them (Cai and Vasconcelos 2018, "Cascade R-CNN").

    Each stage starts from the boxes of the one before, clipped to the image. The last one's boxes
    are taken, with the mean of all stages' class probabilities.

    Args:
        stages: The box heads; all but the last have one box for all classes.
        score_threshold: The score that a detection is above.
        nms_threshold: Overlap within a class above which the worse box goes.
        keep: The largest number of detections an image.

    Raises:
        ValueError: There is no stage, or one before the last has a box for each class.

    Example:
        >>> import torch
        >>> features = {f"p{i}": torch.zeros(1, 8, 64 >> i, 96 >> i) for i in range(2, 7)}
        >>> stages = [BoxHead(3, (w, w, w / 2, w / 2), True, 8, 16) for w in (10, 20, 30)]
        >>> proposals = [torch.tensor([[8.0, 8.0, 40.0, 24.0]])]
        >>> (found,) = BoxHeads(stages)(features, proposals, sizes=[(64, 90)])
        >>> sorted(found.labels.tolist())
        [0, 1, 2]
    """

    def __init__(
        self,
        stages: Sequence[BoxHead],
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        keep: int = 100,
    ) -> None:
        super().__init__()
        _check(stages)
        self.stages = nn.ModuleList(stages)
        self.weights = [stage.weights for stage in stages]
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.keep = keep

    def forward(
        self, features: Mapping[str, Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]
    ) -> list[Detections]:
        """Detect objects.

        Args:
            features: "p2" to "p5", (batch, channels, height, width) each.
            proposals: Boxes (n_i, 4) of each image.
            sizes: Height and width of each image without its padding.

        Returns:
            The detections of each image, without masks.
        """
        boxes = [each[:, None] for each in proposals]
        probabilities = []
        for stage, weights in zip(self.stages, self.weights, strict=True):
            start = [clip(each[:, 0], size) for each, size in zip(boxes, sizes, strict=True)]
            logits, deltas = stage(pool(features, start, _POOLED))
            new = decode(torch.cat(start)[:, None], deltas, weights)
            boxes = new.split([len(each) for each in start])
            probabilities.append(at_least_float32(logits).softmax(dim=1))
        return self._select(boxes, torch.stack(probabilities).mean(dim=0), sizes)

    def _select(
        self, boxes: Sequence[Tensor], scores: Tensor, sizes: Sequence[Size]
    ) -> list[Detections]:
        """Choose the detections of each image from the scores of all."""
        images = zip(boxes, scores.split([len(each) for each in boxes]), sizes, strict=True)
        return [
            select(box, score, size, self.score_threshold, self.nms_threshold, self.keep)
            for box, score, size in images
        ]


def _check(stages: Sequence[BoxHead]) -> None:
    if not stages:
        raise ValueError("expected at least one box head, got none; pass stages=[BoxHead(...)]")
    if not all(stage.agnostic for stage in stages[:-1]):
        raise ValueError(
            "a box head before the last one has a box for each class, and the next would not know "
            "which to start from; build it with agnostic=True"
        )
