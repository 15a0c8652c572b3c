"""Converters of published checkpoints: Detectron2's ViTDet, ImageNet VID, TAdaConv's ViViT."""

from eventful.models.weights.checkpoint import Checkpoint, read_checkpoint
from eventful.models.weights.conversion import Conversion, convert_checkpoint, load
from eventful.models.weights.kinds import KINDS, Kind

__all__ = [
    "KINDS",
    "Checkpoint",
    "Conversion",
    "Kind",
    "convert_checkpoint",
    "load",
    "read_checkpoint",
]
