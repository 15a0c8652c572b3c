"""The ViTDet models of the paper, by name, with random weights."""

from __future__ import annotations

from collections.abc import Collection

from eventful.models.vitdet.backbone import ViTDetBackbone
from eventful.models.vitdet.box_heads import BoxHead, BoxHeads
from eventful.models.vitdet.detector import ViTDet
from eventful.models.vitdet.mask_head import MaskHead
from eventful.models.vitdet.positions import RelativeKind
from eventful.models.vitdet.pyramid import SimplePyramid
from eventful.models.vitdet.rpn import RPN

_VID_CLASSES, _COCO_CLASSES = 30, 80


def vitdet_b_vid(
    img_size: int | tuple[int, int] = 1024, rel_positions: RelativeKind = "paper"
) -> ViTDet:
    """ViTDet-B with Faster R-CNN heads for the 30 classes of ImageNet VID, as in the paper.

    ViT-B/16: 12 blocks of 768 channels and 12 heads, of which 3, 6, 9 and 12 are global. There are
    300 proposals an image, as in the paper's code (`configs/detectron/vitdet_b_vid.py`).

    Args:
        img_size: Side of the square images, or their (height, width), that relative positions are
            learned for. Frames of other sizes work: the paper's rows at 672 run weights for 1024.
        rel_positions: How relative positions come to other sizes: "paper", as its code does, or
            "linear", as Detectron2 does.

    Returns:
        The model, in eval mode.

    Raises:
        ValueError: The size is not in whole patches, or `rel_positions` is neither.

    Example:
        >>> import torch
        >>> with torch.device("meta"):  # shapes alone
        ...     model = vitdet_b_vid()
        >>> len(model.backbone.blocks), len(model.box_heads.stages), model.rpn.keep
        (12, 1, 300)
    """
    box_heads = BoxHeads([BoxHead(_VID_CLASSES)])
    backbone = ViTDetBackbone(img_size, rel_positions=rel_positions)
    return ViTDet(backbone, SimplePyramid(768), RPN(keep=300), box_heads).eval()


def vitdet_b_coco(
    img_size: int | tuple[int, int] = 1024, rel_positions: RelativeKind = "linear"
) -> ViTDet:
    """ViTDet-B with Cascade Mask R-CNN heads for the 80 classes of COCO, as in Detectron2.

    The backbone is that of `vitdet_b_vid`.

    Args:
        img_size: See `vitdet_b_vid`.
        rel_positions: See `vitdet_b_vid`.

    Returns:
        The model, in eval mode.

    Raises:
        ValueError: The size is not in whole patches, or `rel_positions` is neither.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = vitdet_b_coco()
        >>> [stage.weights for stage in model.box_heads.stages]
        [(10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15)]
    """
    return _coco(768, 12, 12, (2, 5, 8, 11), img_size, rel_positions)


def vitdet_l_coco(
    img_size: int | tuple[int, int] = 1024, rel_positions: RelativeKind = "linear"
) -> ViTDet:
    """ViTDet-L with Cascade Mask R-CNN heads for the 80 classes of COCO, as in Detectron2.

    ViT-L/16: 24 blocks of 1024 channels and 16 heads, of which 6, 12, 18 and 24 are global.

    Args:
        img_size: See `vitdet_b_vid`.
        rel_positions: See `vitdet_b_vid`.

    Returns:
        The model, in eval mode.

    Raises:
        ValueError: The size is not in whole patches, or `rel_positions` is neither.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = vitdet_l_coco()
        >>> [i for i, block in enumerate(model.backbone.blocks) if not block.window_size]
        [5, 11, 17, 23]
    """
    return _coco(1024, 24, 16, (5, 11, 17, 23), img_size, rel_positions)


def _coco(
    dim: int,
    depth: int,
    heads: int,
    global_blocks: Collection[int],
    img_size: int | tuple[int, int],
    rel_positions: RelativeKind,
) -> ViTDet:
    """Cascade Mask R-CNN on a plain ViT with patches of 16 pixels and windows of 14 patches."""
    backbone = ViTDetBackbone(
        img_size,
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        global_blocks=global_blocks,
        rel_positions=rel_positions,
    )
    weights = [(10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15)]
    stages = [BoxHead(_COCO_CLASSES, each, agnostic=True) for each in weights]
    heads_of = BoxHeads(stages), MaskHead(_COCO_CLASSES)
    return ViTDet(backbone, SimplePyramid(dim), RPN(), *heads_of).eval()
