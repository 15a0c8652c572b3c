"""Images and masks from files: read whole or reported, resized, padded."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eventful.datasets.layout import positive
from eventful.datasets.problems import Kind, Problems

# What Pillow raises on files that are no image or broken ones.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
_PLAIN_MODES = ("1", "L", "P", "I", "I;16")


def read_rgb(path: Path, problems: Problems) -> Image.Image | None:
    """The image in `path` as RGB, None if it cannot be read whole, which is reported."""
    return _read(path, "image", "the frame is skipped", problems, convert="RGB")


def read_plain(path: Path, problems: Problems) -> np.ndarray | None:
    """The values (H, W) of a mask as stored: palette indices stay what they are.

    A colour image gives its brightest channel. None if it is missing or broken, which is reported.
    """
    image = _read_mask(path, problems, convert=None)
    if image is None:
        return None
    if image.mode in _PLAIN_MODES:
        return np.asarray(image)
    return np.asarray(image.convert("RGB")).max(axis=2)


def read_grey(path: Path, problems: Problems) -> np.ndarray | None:
    """The brightness (H, W), uint8, of a mask, through its palette if it has one.

    None if it is missing or broken, which is reported.
    """
    image = _read_mask(path, problems, convert="L")
    return None if image is None else np.asarray(image)


def _read_mask(path: Path, problems: Problems, convert: str | None) -> Image.Image | None:
    if not path.exists():
        problems.report("missing", path, "there is no such mask; its frame has no target")
        return None
    return _read(path, "annotation", "its frame has no target", problems, convert)


def _read(
    path: Path, kind: Kind, outcome: str, problems: Problems, convert: str | None
) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            return image.convert(convert) if convert else image.copy()
    except _BROKEN as error:
        what = "it is no image" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        problems.report(kind, path, f"{what}; {outcome}")
        return None


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """`image` at (height, width), bilinear with antialiasing (as Detectron2 resizes)."""
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def resized_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`mask` (H, W), uint8 or bool, at (height, width), nearest neighbour."""
    if mask.shape == size:
        return mask
    image = Image.fromarray(mask.astype(np.uint8)).resize(
        (size[1], size[0]), Image.Resampling.NEAREST
    )
    return np.asarray(image).astype(mask.dtype)


def to_tensor(pixels: Image.Image | np.ndarray) -> Tensor:
    """RGB pixels, uint8, as float32 (3, H, W) in [0, 1]."""
    planes = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()
    return planes.to(torch.float32).div_(255)


def padded(image: Tensor, size: int, fill: Sequence[float]) -> Tensor:
    """`image` (3, h, w) in the upper left of (3, size, size), the rest of colour `fill`."""
    _, height, width = image.shape
    canvas = torch.tensor(fill, dtype=image.dtype)[:, None, None].repeat(1, size, size)
    canvas[:, :height, :width] = image
    return canvas


def shortest_edge(height: int, width: int, size: int) -> tuple[int, int]:
    """The (height, width) that a frame is resized to before it is padded to `size` x `size`.

    The short side becomes 640/1024 of `size`, or as much less as keeps the long side at `size`.
    Sides are rounded like Detectron2's `ResizeShortestEdge`: half a pixel up.

    Example:
        >>> shortest_edge(720, 1280, 1024), shortest_edge(480, 640, 672)
        ((576, 1024), (420, 560))
    """
    short = 640 * size // 1024
    scale = min(Fraction(short, min(height, width)), Fraction(size, max(height, width)))
    return _scaled(height, scale), _scaled(width, scale)


def covering(height: int, width: int, size: int) -> tuple[int, int]:
    """The (height, width) of a frame whose short side is brought to `size`.

    Example:
        >>> covering(1080, 1920, 320)
        (320, 569)
    """
    scale = Fraction(size, min(height, width))
    return _scaled(height, scale), _scaled(width, scale)


def _scaled(side: int, scale: Fraction) -> int:
    return max(1, floor(side * scale + Fraction(1, 2)))


def target_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """The (height, width) meant by `size`."""
    if size is None:
        return None
    height, width = size if isinstance(size, tuple) else (size, size)
    return positive("height", height), positive("width", width)


def other_size(mask: tuple[int, ...], frame: tuple[int, int]) -> str:
    """What to say of a mask that does not fit its frame."""
    return (
        f"this mask has {mask[1]} x {mask[0]} pixels, its frame {frame[1]} x {frame[0]}; "
        f"the frame has no target"
    )
