"""A frame with its result drawn in, as JPEG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from eventful.live.camera import Shot
from eventful.video.geometry import to_pixels

COLOUR = (255, 170, 40)
QUALITY = 80
LEAST = 0.5  # score from which a box is drawn; outputs hold those below it too


def drawn(shot: Shot, values: Mapping[str, Any], width: int) -> bytes:
    """Draw what a frame's values say where.

    Args:
        shot: The frame.
        values: By column: `boxes` become rectangles, where they have `scores` those of 0.5
            and more; a mask (`mask_counts`) becomes colour.
        width: Of the picture in pixels, at most that of the frame.
    """
    height, native = shot.size
    width = max(16, min(width, native))
    size = width, max(1, round(height * width / native))
    found = to_pixels(shot.timed.frame, VideoReformatter(), shot.timed.turn, *size)
    pixels: Any = np.ascontiguousarray(found)
    if "mask_counts" in values:
        mask = filled(values["mask_counts"], values["mask_size"])
        mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        pixels[mask] = pixels[mask] // 2 + np.array(COLOUR, np.uint8) // 2
    boxes = np.asarray(values.get("boxes", ()))
    if "scores" in values:
        boxes = boxes[np.asarray(values["scores"]) >= LEAST]
    for box in boxes:
        x0, y0, x1, y1 = (round(float(edge) * width / native) for edge in box)
        cv2.rectangle(pixels, (x0, y0), (x1, y1), COLOUR, max(1, width // 240))
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    _, encoded = cv2.imencode(".jpg", pixels[..., ::-1], options)
    return encoded.tobytes()


def filled(counts: Any, size: Any) -> np.ndarray:
    """The mask bool (height, width) of COCO's uncompressed run lengths.

    Example:
        >>> filled([0, 2, 3, 1], (2, 3)).tolist()
        [[True, False, False], [True, False, True]]
    """
    values = np.arange(len(counts)) % 2 == 1
    height, width = (int(side) for side in size)
    return np.repeat(values, counts).reshape(width, height).T
