"""Vehicles on CDnet's highway: the detector's trained weights."""

from __future__ import annotations

import os
from pathlib import Path

from eventful.models.detector import PatchDetector
from eventful.models.weights.heads import loaded

WEIGHTS = Path(__file__).parent / "data" / "vehicles.safetensors"
VehicleDetector = PatchDetector  # its name while vehicles were all that there was to find


def vehicle_detector(path: str | os.PathLike[str] | None = None) -> VehicleDetector:
    """The detector of vehicles with its trained weights, in eval mode.

    It is trained on the dense tokens of `saliency_vit` at 518 pixels on the long side, of the first
    part of one video, CDnet's "highway": it knows that camera and no other.
    `benchmarks/train_vehicles.py` makes the weights.

    Args:
        path: Other weights of that script; by default those that come with the package.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.

    Example:
        >>> detector = vehicle_detector()
        >>> sum(weight.numel() for weight in detector.parameters())
        557894
    """
    return loaded(PatchDetector(), path or WEIGHTS, "benchmarks/train_vehicles.py")
