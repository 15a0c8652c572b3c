"""ViTDet: object detection with a plain ViT backbone (Li et al., 2022).

The detection heads need torchvision and load when they are first used; the backbone does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eventful.models.vitdet.attention import Attention
from eventful.models.vitdet.backbone import Block, ViTDetBackbone
from eventful.models.vitdet.pyramid import SimplePyramid

if TYPE_CHECKING:
    from eventful.models.vitdet.box_heads import BoxHead, BoxHeads
    from eventful.models.vitdet.detections import Detections
    from eventful.models.vitdet.detector import ViTDet
    from eventful.models.vitdet.mask_head import MaskHead, paste_masks
    from eventful.models.vitdet.presets import vitdet_b_coco, vitdet_b_vid, vitdet_l_coco
    from eventful.models.vitdet.rpn import RPN

__all__ = [
    "RPN",
    "Attention",
    "Block",
    "BoxHead",
    "BoxHeads",
    "Detections",
    "MaskHead",
    "SimplePyramid",
    "ViTDet",
    "ViTDetBackbone",
    "paste_masks",
    "vitdet_b_coco",
    "vitdet_b_vid",
    "vitdet_l_coco",
]

_WHERE = {
    "BoxHead": "box_heads",
    "BoxHeads": "box_heads",
    "Detections": "detections",
    "MaskHead": "mask_head",
    "RPN": "rpn",
    "ViTDet": "detector",
    "paste_masks": "mask_head",
    "vitdet_b_coco": "presets",
    "vitdet_b_vid": "presets",
    "vitdet_l_coco": "presets",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
