"""Segmentation: the overlap of masks with the dense model's."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from eventful.pretrained.pictures import painted
from eventful.pretrained.tasks.task import Scores, Shown, Task, field, missing


@final
class Masks(Task):
    """Label maps against the dense model's: intersection over union, in the mean over labels.

    What a model gives decides how its map is made: `logits` of classes (or of one text),
    `class_queries_logits` with `masks_queries_logits`, or `pred_masks` with `iou_scores`. Where
    there is one mask only, label 1 is the mask and label 0 does not count.

    Example:
        >>> dense = torch.tensor([[0, 1, 1, 1]])
        >>> Masks(None, 0.3).differ((dense, True), (torch.tensor([[1, 0, 1, 1]]), True))
        {'iou': 0.5}
    """

    name = "segment"
    autos = (
        "AutoModelForUniversalSegmentation",
        "AutoModelForSemanticSegmentation",
        "AutoModelForInstanceSegmentation",
        "AutoModelForImageSegmentation",
        "AutoModelForMaskGeneration",
    )
    named = ("CLIPSegForImageSegmentation",)
    measures: ClassVar[Mapping[str, str]] = {
        "iou": "intersection over union with the dense masks, mean of labels; 1 is best"
    }

    def read(self, shown: Shown, size: tuple[int, int]) -> tuple[Tensor, bool]:
        """Labels (height, width), and whether they are a single mask."""
        output: Any = shown.output
        if "class_queries_logits" in output:
            classes = field(output, "class_queries_logits")[0].float().softmax(-1)[:, :-1]
            masks = field(output, "masks_queries_logits")[0].float().sigmoid()
            return torch.einsum("qc,qhw->chw", classes, masks).argmax(0).cpu(), False
        if "pred_masks" in output:
            masks, scores = field(output, "pred_masks"), field(output, "iou_scores")
            best = scores.flatten().argmax()
            return (masks.flatten(0, -3)[best] > 0).long().cpu(), True
        if "logits" not in output or output["logits"].ndim < 3:
            raise missing("masks", output)
        logits = field(output, "logits").float()
        if logits.ndim == 3:  # (batch, height, width): of one text
            return (logits[0] > 0).long().cpu(), True
        return logits[0].argmax(0).cpu(), False

    def differ(self, dense: tuple[Tensor, bool], ours: tuple[Tensor, bool]) -> Scores:
        """Mean over the labels that either shows."""
        (truth, single), (found, _) = dense, ours
        labels = {*truth.unique().tolist(), *found.unique().tolist()} - ({0} if single else set())
        overlaps = [_overlap(truth == label, found == label) for label in labels]
        return {"iou": fmean(overlaps) if overlaps else 1.0}  # both empty

    def draw(self, picture: np.ndarray, read: tuple[Tensor, bool]) -> np.ndarray:
        """The labels as tints over the frame."""
        return painted(picture, read[0].numpy(), read[1])


def _overlap(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())
