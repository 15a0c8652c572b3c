"""Names of Detectron2's ViTDet: its COCO checkpoints, and those trained on ImageNet VID."""

from __future__ import annotations

from math import isqrt

from torch import Tensor

from eventful.models.weights.renaming import Drop, Rename


def position_grid(positions: Tensor) -> Tensor:
    """Take the class token's position off and put the others on their grid.

    Detectron2 keeps the embedding of the pre-trained model, which had a class token.

    Args:
        positions: (1, 1 + side * side, dim).

    Returns:
        (1, side, side, dim).

    Raises:
        ValueError: It has another shape.

    Example:
        >>> import torch
        >>> position_grid(torch.zeros(1, 197, 5)).shape
        torch.Size([1, 14, 14, 5])
    """
    side = isqrt(max(positions.shape[1] - 1, 0)) if positions.ndim == 3 else 0
    if side < 1 or positions.shape[1] != 1 + side * side:
        raise ValueError(
            f"expected (1, 1 + side * side, dim) with the class token's position first, came "
            f"{tuple(positions.shape)}"
        )
    return positions[:, 1:].unflatten(1, (side, side))


_BACKBONE = [
    Rename("backbone.pos_embed", "backbone.net.pos_embed", position_grid),
    Rename("backbone.{rest}", "backbone.net.{rest}"),
    Rename("pyramid.levels.p{i}.{rest}", "backbone.simfp_{i}.{rest}"),
]
_PROPOSALS = [
    Rename("rpn.head.conv.{i}.0.{p}", "proposal_generator.rpn_head.conv.conv{i}.{p}"),
    Rename("rpn.head.cls_logits.{p}", "proposal_generator.rpn_head.objectness_logits.{p}"),
    Rename("rpn.head.bbox_pred.{p}", "proposal_generator.rpn_head.anchor_deltas.{p}"),
]


def _convolutions(ours: str, theirs: str) -> list[Rename]:
    """Four convolutions with norms, counted from 0 in torchvision and from 1 in Detectron2."""
    return [
        rule
        for i in range(4)
        for rule in (
            Rename(f"{ours}.{i}.0.weight", f"{theirs}{i + 1}.weight"),
            Rename(f"{ours}.{i}.1.{{p}}", f"{theirs}{i + 1}.norm.{{p}}"),
        )
    ]


def _box_head(stage: str, number: str = "") -> list[Rename]:
    """A stage of the box heads; Detectron2 numbers stages if there are several."""
    head, predictor = f"roi_heads.box_head{number}", f"roi_heads.box_predictor{number}"
    return [
        *_convolutions(f"box_heads.stages.{stage}.features", f"{head}.conv"),
        Rename(f"box_heads.stages.{stage}.features.5.{{p}}", f"{head}.fc1.{{p}}"),
        Rename(f"box_heads.stages.{stage}.cls_score.{{p}}", f"{predictor}.cls_score.{{p}}"),
        Rename(f"box_heads.stages.{stage}.bbox_pred.{{p}}", f"{predictor}.bbox_pred.{{p}}"),
    ]


_MASK_HEAD = [
    *_convolutions("mask_head.features", "roi_heads.mask_head.mask_fcn"),
    Rename("mask_head.predictor.conv5_mask.{p}", "roi_heads.mask_head.deconv.{p}"),
    Rename("mask_head.predictor.mask_fcn_logits.{p}", "roi_heads.mask_head.predictor.{p}"),
]

FASTER_RCNN = [*_BACKBONE, *_PROPOSALS, *_box_head("0")]
CASCADE_MASK_RCNN = [*_BACKBONE, *_PROPOSALS, *_box_head("{i}", ".{i}"), *_MASK_HEAD]
DROPS = [
    Drop("pixel_mean", "normalisation, which the model's `pretrained_cfg` states"),
    Drop("pixel_std", "normalisation, which the model's `pretrained_cfg` states"),
    Drop("proposal_generator.anchor_generator.cell_anchors.{i}", "anchors, which are computed"),
]
