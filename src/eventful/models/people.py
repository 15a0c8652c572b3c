"""People anywhere: the detector's trained weights."""

from __future__ import annotations

import os
from pathlib import Path

from eventful.models.detector import PatchDetector
from eventful.models.weights.heads import loaded

WEIGHTS = Path(__file__).parent / "data" / "people.safetensors"
SCALES = (2, 1, 0.5)
LONG_SIDE = 392  # of the pictures that it is trained on


def people_detector(path: str | os.PathLike[str] | None = None) -> PatchDetector:
    """The detector of people with its trained weights, in eval mode.

    It is trained on the dense tokens of `saliency_vit`, on people from 55 to 270 pixels tall: views
    into the first 640 frames of one video, `vtest.avi`, and people cut out of them before other
    backgrounds. `benchmarks/train_people.py` makes the weights.

    Args:
        path: Other weights of that script; by default those that come with the package.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.

    Example:
        >>> detector = people_detector()
        >>> sum(weight.numel() for weight in detector.parameters())
        619590
    """
    return loaded(PatchDetector(scales=SCALES), path or WEIGHTS, "benchmarks/train_people.py")
