"""The four panels of the overlay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_TITLE, _CAPTION, _GAP = 36, 84, 8  # heights and distance in pixels
_BACKGROUND, _TEXT = (24, 24, 27), (244, 244, 245)

COLOURS = {
    "dense": (239, 83, 56),
    "partial": (250, 176, 5),
    "gated": (250, 176, 5),
    "carried": (64, 156, 255),
    "held": (148, 163, 184),
}
_DONE = {
    "dense": "every patch computed",
    "partial": "tinted patches computed, the rest moved",
    "gated": "tinted patches computed",
    "carried": "nothing computed, result moved",
    "held": "nothing computed, result kept",
}


class Overlay:
    """Lays out four panels with titles and two lines of figures below.

    Args:
        aspects: Width over height of the videos that are to be drawn; all fit the panels.
        width: Of a panel in pixels.
    """

    def __init__(self, aspects: Sequence[float], width: int = 640) -> None:
        height = min(width, round(width / min(aspects)))
        self._panel = width, height + height % 2
        self._fonts = {size: ImageFont.load_default(size=size) for size in (22, 26)}

    def draw(
        self,
        pixels: np.ndarray,
        dense: np.ndarray,
        result: np.ndarray,
        computed: np.ndarray,
        kind: str,
        titles: tuple[str, str, str],
        caption: tuple[str, str],
        aspect: float,
    ) -> np.ndarray:
        """Draw one frame.

        Args:
            pixels: (height, width, 3) the input.
            dense: (any, any, 3) the latest result of the dense model as a picture.
            result: (any, any, 3) the stream's.
            computed: bool (rows, columns) the patches that were computed.
            kind: What the frame was: a key of `COLOURS`.
            titles: Of the first three panels.
            caption: Two lines of figures.
            aspect: Width over height of the video.
        """
        width, height = self._panel
        cell = height + _TITLE
        canvas = Image.new("RGB", (2 * width + _GAP, 2 * cell + _CAPTION), _BACKGROUND)
        draw = ImageDraw.Draw(canvas)
        shown = (pixels, dense, result, tinted(pixels, computed, COLOURS[kind]))
        for i, (title, picture) in enumerate(zip((*titles, ""), shown, strict=True)):
            x, y = (i % 2) * (width + _GAP), (i // 2) * cell
            draw.text((x + 8, y + 5), title, _TEXT, self._fonts[22])
            self._paste(canvas, picture, aspect, (x, y + _TITLE))
        self._badge(draw, kind, (width + _GAP, cell))
        for line, text in enumerate(caption):
            draw.text((8, 2 * cell + 6 + 38 * line), text, _TEXT, self._fonts[26])
        return np.asarray(canvas)

    def _badge(self, draw: ImageDraw.ImageDraw, kind: str, place: tuple[int, int]) -> None:
        """Title of the last panel: the kind of the frame on its colour, and what that means."""
        x, y = place
        width = draw.textlength(kind.upper(), self._fonts[22]) + 20
        draw.rectangle((x, y, x + width, y + _TITLE - 2), COLOURS[kind])
        draw.text((x + 10, y + 5), kind.upper(), _BACKGROUND, self._fonts[22])
        draw.text((x + width + 10, y + 5), _DONE[kind], COLOURS[kind], self._fonts[22])

    def _paste(
        self, canvas: Image.Image, picture: np.ndarray, aspect: float, place: tuple[int, int]
    ) -> None:
        """Put a picture into a panel, as large as it gets at the aspect of the video."""
        width, height = self._panel
        size = (
            max(1, min(width, round(height * aspect))),
            max(1, min(height, round(width / aspect))),
        )
        small = picture.shape[0] < size[1] // 6  # features, whose patches are to be seen
        how = Image.Resampling.NEAREST if small else Image.Resampling.BILINEAR
        left = place[0] + (width - size[0]) // 2
        canvas.paste(Image.fromarray(picture).resize(size, how), (left, place[1]))


def tinted(pixels: np.ndarray, computed: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """The picture in dim grey, and over it the computed patches, bright and tinted.

    Example:
        >>> picture = np.full((2, 4, 3), 200, np.uint8)
        >>> tinted(picture, np.array([[True, False]]), (100, 0, 0))[0, ::3].tolist()
        [[145, 100, 100], [100, 100, 100]]
    """
    size = pixels.shape[1], pixels.shape[0]
    mask = Image.fromarray(computed.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)
    bright = 0.5 * pixels + 0.45 * np.array(colour)
    dim = np.repeat(pixels.mean(axis=2, keepdims=True) / 2, 3, axis=2)
    return np.where(np.asarray(mask)[..., None] > 0, bright, dim).astype(np.uint8)
