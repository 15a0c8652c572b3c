"""Outputs as pictures: colours, boxes, dots, tints, and sheets of them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw
from torch import Tensor

_COLOURS = [tuple(int(255 * c) for c in rgb[:3]) for rgb in colormaps["tab20"].colors]  # type: ignore[attr-defined]


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
            axes = torch.nn.functional.pad(axes, (0, 3 - axes.shape[1]))  # of a patch or two
            spread = (x - mean) @ axes
            low, high = (spread.quantile(q, dim=0) for q in (0.02, 0.98))
            self._fit = mean, axes, low, high
        mean, axes, low, high = self._fit
        share = (((x - mean) @ axes - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        return (share.view(*grid, 3) * 255).to(torch.uint8).numpy()


def resized(picture: np.ndarray, size: tuple[int, ...], sharp: bool = False) -> np.ndarray:
    """Bring a picture to a height and width; `sharp` keeps the edges of its pixels.

    Example:
        >>> resized(np.zeros((2, 3, 3), np.uint8), (4, 5)).shape
        (4, 5, 3)
    """
    how = Image.Resampling.NEAREST if sharp else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), how))


def boxed(
    picture: np.ndarray, boxes: Sequence[Sequence[float]], labels: Sequence[int]
) -> np.ndarray:
    """Draw boxes (x0, y0, x1, y1) in pixels, a colour a label.

    Example:
        >>> boxed(np.zeros((9, 9, 3), np.uint8), [(1, 1, 7, 7)], [0])[1, 3].tolist()
        [31, 119, 180]
    """
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    wide = max(1, max(picture.shape[:2]) // 200)
    for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
        corners = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
        draw.rectangle(corners, outline=_colour(label), width=wide)
    return np.asarray(image)


def dotted(picture: np.ndarray, places: Sequence[Sequence[float]]) -> np.ndarray:
    """Draw dots at places (x, y) in pixels, a colour each.

    Example:
        >>> dotted(np.zeros((9, 9, 3), np.uint8), [(4, 4)])[4, 4].tolist()
        [31, 119, 180]
    """
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    size = max(1.0, max(picture.shape[:2]) / 80)
    for number, (x, y) in enumerate(places):
        draw.ellipse((x - size, y - size, x + size, y + size), fill=_colour(number))
    return np.asarray(image)


def painted(picture: np.ndarray, labels: np.ndarray, single: bool) -> np.ndarray:
    """Tint the labels (any height, any width) of a frame; label 0 of a single mask stays bare.

    Example:
        >>> painted(np.zeros((2, 2, 3), np.uint8), np.array([[0, 1]]), single=True)[0].tolist()
        [[0, 0, 0], [95, 109, 127]]
    """
    table = np.array(_COLOURS, np.uint8)
    tints = resized(table[labels % len(table)], picture.shape[:2], sharp=True)
    mixed = (0.5 * picture + 0.55 * tints).clip(0, 255).astype(np.uint8)
    if not single:
        return mixed
    there = resized((labels > 0).astype(np.uint8), picture.shape[:2], sharp=True)
    return np.where(there[..., None] > 0, mixed, picture)


def _colour(label: int) -> tuple[int, ...]:
    return _COLOURS[label % len(_COLOURS)]


def sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    notes: Sequence[Sequence[str]],
    heading: str,
    path: Path,
) -> None:
    """Draw pictures side by side, a row a frame.

    Args:
        rows: Pictures (height, width, 3), as many in each row as there are titles.
        titles: Of the columns.
        notes: What stands below each picture.
        heading: What stands above all.
        path: The picture to write.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    height, width = rows[0][0].shape[:2]
    size = (3.0 * len(titles) + 0.2, (3.0 * height / width + 0.4) * len(rows) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(rows), len(titles), squeeze=False)
    for title, axis in zip(titles, panels[0], strict=True):
        axis.set_title(title, fontsize=11)
    for pictures, texts, line in zip(rows, notes, panels, strict=True):
        for picture, text, axis in zip(pictures, texts, line, strict=True):
            axis.imshow(picture, aspect="equal", interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(text, fontsize=9)
    figure.suptitle(heading, fontsize=12)
    figure.savefig(path, dpi=100)
