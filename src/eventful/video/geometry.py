"""Where pixels go: the size that frames are brought to, and the way that they are turned.

A turn is the upper left 2 x 2 `(a, b, c, d)` of a display matrix, as signs: the stored pixel
(x, y) is shown at (a x + c y, b x + d y), shifted back into the picture. The eight turns are
the eight EXIF orientations.
"""

import gc
import struct
from collections.abc import Mapping
from fractions import Fraction
from math import floor
from typing import Any, cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

Turn = tuple[int, int, int, int]

UPRIGHT: Turn = (1, 0, 0, 1)

# By quarter turns counter-clockwise.
QUARTERS: tuple[Turn, ...] = (UPRIGHT, (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))

# SWS_BICUBIC | SWS_ACCURATE_RND, by value since PyAV before 18 has no name for the second.
# Without it swscale takes a shortcut to planar RGB at unchanged size that leaves the last
# (width mod 8) columns unwritten.
BICUBIC = 0x4 | 0x40000


def display_turn(frame: av.VideoFrame) -> Turn:
    """Returns how `frame` must be turned to stand upright, from its display matrix."""
    try:
        matrix = cast(Mapping[str, Any], frame.side_data).get("DISPLAYMATRIX")
    except ValueError:  # PyAV refuses the whole list where it has no name for one entry
        return QUARTERS[round(frame.rotation / 90) % 4]
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    if abs(b) > abs(a):
        return (0, _sign(b), _sign(c), 0)
    return (_sign(a), 0, 0, _sign(d))


def _sign(entry: int) -> int:
    return -1 if entry < 0 else 1


class Turns:
    """How the frames of one video must be turned, in the order in which they are decoded.

    A frame whose side data has been read lives until Python looks for cycles (PyAV's list of side
    data holds on to the frame, and the frame to the list), and hundreds of them may wait for that.
    So it is read only where a turn can begin: at the first frame, at a key frame after others, and
    where the angle changes. Those of earlier videos are freed first, which takes some hundredths
    of a millisecond.
    """

    def __init__(self) -> None:
        gc.collect(1)
        self._turn: Turn | None = None
        self._angle, self._within = 0, False

    def of(self, frame: av.VideoFrame) -> Turn:
        """How the next frame must be turned."""
        begins = frame.rotation != self._angle or (frame.key_frame and self._within)
        if self._turn is None or begins:
            self._turn, self._angle = display_turn(frame), frame.rotation
        self._within = not frame.key_frame
        return self._turn


def turned(pixels: np.ndarray, turn: Turn) -> np.ndarray:
    """Turns `pixels` (H, W, 3) upright; (W, H, 3) comes out where `turn` swaps the axes."""
    a, b, c, d = turn
    if not a:
        pixels = pixels.swapaxes(0, 1)
    down, right = (b, c) if not a else (d, a)
    return np.ascontiguousarray(pixels[::down, ::right])


def fitted(
    width: Fraction | int, height: Fraction | int, size: int, keep_aspect: bool, patch: int
) -> tuple[int, int]:
    """Returns the (width, height) that an upright frame is brought to.

    Args:
        width: As it is shown, in pixels that are as wide as high.
        height: The same.
        size: The long side, or the side of a square.
        keep_aspect: Whether it is the long side, both then multiples of `patch`.
        patch: Side of a patch.

    Example:
        >>> fitted(1920, 1080, 518, keep_aspect=True, patch=14)
        (518, 294)
    """
    if not keep_aspect:
        return size, size
    scale = Fraction(size, patch) / max(width, height)
    columns, rows = (max(1, floor(side * scale + Fraction(1, 2))) for side in (width, height))
    return columns * patch, rows * patch


def to_pixels(
    frame: av.VideoFrame, reformatter: VideoReformatter, turn: Turn, width: int, height: int
) -> np.ndarray:
    """Scales and converts `frame` in one pass, then turns it: uint8 RGB (height, width, 3)."""
    stored = (width, height) if turn[0] else (height, width)
    planes = reformatter.reformat(
        frame,
        *stored,
        format="gbrp",  # swscale is faster and a level or two more exact here than at rgb24
        interpolation=BICUBIC,
        src_color_range=frame.color_range,
        dst_color_range=ColorRange.JPEG.value,
        # Meaningless for RGB, but PyAV before 17 heeds the source's matrix only where a
        # different one is asked for.
        dst_colorspace=Colorspace.ITU601.value,
    )
    return turned(planes.to_ndarray(), turn)
