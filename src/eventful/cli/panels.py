"""Pictures: heat maps, feature colours, and the four panels of the overlay."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_TITLE, _FOOTER, _GAP = 24, 28, 6  # heights and distance in pixels
_BACKGROUND, _TEXT = (24, 24, 27), (228, 228, 231)


def heat(values: np.ndarray, top: float = 1.0) -> np.ndarray:
    """Colour values from 0 to `top` (height, width) as an RGB image.

    Example:
        >>> heat(np.zeros((2, 3))).shape
        (2, 3, 3)
    """
    share = np.clip(values / top, 0, 1) if top > 0 else np.zeros_like(values)
    return (colormaps["inferno"](share)[..., :3] * 255).astype(np.uint8)


class PrincipalColours:
    """Shows tokens as colours: their first three principal components, fixed on the first frame.

    Example:
        >>> PrincipalColours()(torch.randn(1, 15, 8), (3, 5)).shape
        (3, 5, 3)
    """

    def __init__(self) -> None:
        self._fit: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def __call__(self, tokens: Tensor, grid: tuple[int, int]) -> np.ndarray:
        """Colour patch tokens (1, patches, dim) on their grid."""
        x = tokens[0].float()
        if self._fit is None:
            mean = x.mean(dim=0)
            axes = torch.linalg.svd(x - mean, full_matrices=False).Vh[:3].T
            spread = (x - mean) @ axes
            low, high = (spread.quantile(q, dim=0) for q in (0.02, 0.98))
            self._fit = mean, axes, low, high
        mean, axes, low, high = self._fit
        share = (((x - mean) @ axes - low) / (high - low)).clamp(0, 1)
        return (share.view(*grid, 3) * 255).to(torch.uint8).numpy()


class Overlay:
    """Lays out four panels with titles and a line of figures below.

    Args:
        aspect: Width over height of the video.
        titles: Of the panels: input, result, error, updates.
        width: Of a panel in pixels.
    """

    def __init__(self, aspect: float, titles: tuple[str, str, str, str], width: int = 480) -> None:
        self._titles = titles
        self._panel = width, max(2, round(width / aspect / 2) * 2)
        self._font = ImageFont.load_default(size=15)
        self._top = 0.0

    def draw(
        self,
        pixels: np.ndarray,
        result: np.ndarray,
        error: np.ndarray,
        updated: np.ndarray,
        footer: str,
    ) -> np.ndarray:
        """Draw one frame.

        Args:
            pixels: (height, width, 3) the input.
            result: (any, any, 3) the model's output as an image.
            error: (rows, columns) the gate's error of each patch; its colours are scaled to the
                largest 99th percentile so far.
            updated: (rows, columns) which patches the gate let through.
            footer: Figures of the frame.
        """
        self._top = max(self._top, float(np.quantile(error, 0.99)))
        image = self._resize(pixels, Image.Resampling.BILINEAR)
        mask = self._resize(updated.astype(np.uint8) * 255, Image.Resampling.NEAREST) > 0
        panels = (
            image,
            self._resize(result, Image.Resampling.BILINEAR),
            self._resize(heat(error, self._top), Image.Resampling.NEAREST),
            np.where(mask[..., None], image, image // 4),
        )
        return self._compose(panels, footer)

    def _resize(self, image: np.ndarray, how: Image.Resampling) -> np.ndarray:
        return np.asarray(Image.fromarray(image).resize(self._panel, how))

    def _compose(self, panels: tuple[np.ndarray, ...], footer: str) -> np.ndarray:
        width, height = self._panel
        cell = height + _TITLE
        size = 2 * width + _GAP, 2 * cell + _FOOTER
        canvas = Image.new("RGB", size, _BACKGROUND)
        draw = ImageDraw.Draw(canvas)
        for i, (title, panel) in enumerate(zip(self._titles, panels, strict=True)):
            x, y = (i % 2) * (width + _GAP), (i // 2) * cell
            draw.text((x + 6, y + 3), title, _TEXT, self._font)
            canvas.paste(Image.fromarray(panel), (x, y + _TITLE))
        draw.text((6, 2 * cell + 5), footer, _TEXT, self._font)
        return np.asarray(canvas)
