"""The pictures of video_fuzz.py: written with Pillow, and held against it."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from eventful.video import Reader

TYPED = (ValueError, FileNotFoundError)  # what `Reader` says that it raises
PICTURES = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "jpg": ("L", "RGB", "CMYK"),
    "webp": ("RGB", "RGBA"),
    "bmp": ("1", "L", "P", "RGB"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"),
}
UPRIGHT = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTED = ("png", "jpg", "webp", "tif")


class WrongError(Exception):
    """A case is not as it should be; the text says how."""


def picture(k: int, width: int, height: int) -> np.ndarray:
    """Frame k, (height, width, 3): red grows to the right, green downwards, blue with time."""
    y, x = np.mgrid[:height, :width]
    red, green = 20 + 200 * x / width, 30 + 180 * y / height
    return np.stack([red, green, np.full_like(red, 40 + 8 * k)], axis=-1).astype(np.uint8)


def drawn(random: Random, path: Path) -> tuple[str, np.ndarray]:
    """Write a picture; returns its mode, and what Pillow reads of it, upright."""
    suffix = path.suffix[1:]
    mode = random.choice(PICTURES[suffix])
    pixels = picture(random.randrange(8), random.randint(1, 80), random.randint(1, 80))
    options: dict[str, Any] = {}
    if random.random() < 0.5 and suffix != "bmp":
        options["dpi"] = (random.choice((72, 300)),) * 2
    if suffix == "tif" and random.random() < 0.7:
        options["compression"] = random.choice(("tiff_lzw", "packbits", "tiff_adobe_deflate"))
    if suffix == "webp":
        options["lossless"] = True
    if suffix == "jpg":
        small = min(pixels.shape[:2]) < 16  # of few pixels colours are mostly interpolated
        options |= {
            "quality": 95,
            "progressive": random.random() < 0.3,
            "subsampling": 2 - 2 * small,
        }
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(pixels).convert(mode)
    image.save(path, **options)
    expected = as_pillow_reads(path, mode)
    if random.random() < 0.6 and suffix in ORIENTED:
        orientation = random.choice(list(UPRIGHT))
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
        image.save(path, **options)
        expected = expected.transpose(UPRIGHT[orientation])
    return mode, np.asarray(expected)


def as_pillow_reads(path: Path, mode: str) -> Image.Image:
    """A picture in RGB, as it is stored."""
    with Image.open(path) as opened:
        if mode == "I;16":  # which Pillow clips rather than scales
            return Image.fromarray((np.asarray(opened) // 257).astype(np.uint8)).convert("RGB")
        return opened.convert("RGB")


def check_picture(path: Path, expected: np.ndarray) -> None:
    """Hold a picture against Pillow.

    Raises:
        WrongError: It differs.
    """
    with Reader(path) as reader:
        frames = list(reader)
    if (len(frames), reader.damage) != (1, None):
        raise WrongError(f"{len(frames)} frames, damage {reader.damage}")
    if frames[0].pixels.shape != expected.shape:
        raise WrongError(f"shape {frames[0].pixels.shape} in place of {expected.shape}")
    off = np.abs(frames[0].pixels.astype(int) - expected).mean()
    if off > (8 if path.suffix == ".jpg" else 1):
        raise WrongError(f"{off:.2f} levels off")


def check_cut_picture(path: Path, mode: str, random: Random) -> str:
    """Cut a picture at a random byte: it must be refused, or be whole as it is.

    Raises:
        WrongError: It is read, and differs.
    """
    with Reader(path) as reader:
        (expected,) = reader
    data = path.read_bytes()
    path.write_bytes(data[: random.randrange(len(data))])
    try:
        with Reader(path) as reader:
            (frame,) = reader
    except TYPED as error:
        return type(error).__name__
    if not np.array_equal(frame.pixels, expected.pixels):
        raise WrongError(f"a cut {path.suffix} of mode {mode} is read as another picture")
    return "whole"
