"""The parts of torchvision that compute what Detectron2's do; everything of torchvision's is here.

Where the two differ (anchors, pooling over levels, box predictors, which detections are kept), the
modules beside this one have parts of their own.
"""

try:
    from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.models.detection.rpn import RPNHead
    from torchvision.ops import batched_nms, roi_align
except ModuleNotFoundError as error:
    if error.name is None or error.name.split(".")[0] != "torchvision":
        raise
    raise ModuleNotFoundError(
        "detection needs torchvision; it comes with: pip install 'eventful-transformers[eval]'",
        name="torchvision",
    ) from error

__all__ = [
    "FastRCNNConvFCHead",
    "MaskRCNNHeads",
    "MaskRCNNPredictor",
    "RPNHead",
    "batched_nms",
    "roi_align",
]
