"""A frame with its result drawn in, as JPEG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from eventful.live.camera import Shot
from eventful.video.decode import shown
from eventful.video.geometry import to_pixels

COLOUR = (255, 170, 40)
QUALITY = 80
LEAST = 0.5  # score from which a box is drawn; outputs hold those below it too
MOST = 4096  # pixels of a side; JPEG holds 65,500


def drawn(shot: Shot, values: Mapping[str, Any], width: int) -> bytes:
    """Draw what a frame's values say where.

    Args:
        shot: The frame.
        values: By column: `boxes` become rectangles, where they have `scores` those of 0.5
            and more; a mask (`mask_counts`) becomes colour.
        width: Of the picture in pixels, at most that of the frame.
    """
    height, native = shot.size
    across, down = map(float, shown(shot.timed))  # pixels need not be as wide as high
    scale = min(max(16, width), native) / across
    scale = min(scale, MOST / max(across, down))
    size = max(1, round(across * scale)), max(1, round(down * scale))
    pixels: Any = to_pixels(shot.timed.frame, VideoReformatter(), shot.timed.turn, *size)
    if "mask_counts" in values:
        mask = filled(values["mask_counts"], values["mask_size"])
        mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        pixels[mask] = pixels[mask] // 2 + np.array(COLOUR, np.uint8) // 2
    found = np.nan_to_num(np.asarray(values.get("boxes", ()), np.float64)).reshape(-1, 4)
    if "scores" in values:
        found = found[np.asarray(values["scores"]) >= LEAST]
    for box in found * ([size[0] / native, size[1] / height] * 2):
        x0, y0, x1, y1 = (round(edge) for edge in np.clip(box, 0, MOST).tolist())
        cv2.rectangle(pixels, (x0, y0), (x1, y1), COLOUR, max(1, size[0] // 240))
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
