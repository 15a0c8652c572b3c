"""What `Writer` takes: a rate, a quality and images, checked and made exact."""

import math
from fractions import Fraction
from numbers import Rational, Real

import numpy as np
import torch
from torch import Tensor

# Rates that are n / 1.001 in truth but go by two or three decimals: 29.97, 23.976.
NTSC = (24, 30, 48, 60, 120, 240)


def exact_rate(rate: Fraction | float) -> Fraction:
    """Returns the frame rate that is meant by `rate`.

    Raises:
        ValueError: If it is not positive, or too fine for a video file.
        TypeError: If it is no number.

    Example:
        >>> exact_rate(29.97), exact_rate(12.5), exact_rate(25)
        (Fraction(30000, 1001), Fraction(25, 2), Fraction(25, 1))
    """
    if isinstance(rate, bool) or not isinstance(rate, Real):
        raise TypeError(f"rate must be a number of frames per second; got {rate!r}")
    if not 0 < rate < math.inf:
        raise ValueError(f"rate must be positive, in frames per second; got {rate}")
    exact = Fraction(rate) if isinstance(rate, Rational) else _nearest(float(rate))
    if not exact or max(exact.numerator, exact.denominator) >= 1 << 31:
        raise ValueError(f"rate must be a positive fraction of 32-bit numbers; got {rate!r}")
    return exact


def _nearest(rate: float) -> Fraction:
    for n in NTSC:
        if abs(rate - n / 1.001) < 1e-3:
            return Fraction(n * 1000, 1001)
    return Fraction(rate).limit_denominator(1001)


def quality(crf: float) -> float:
    """Returns the constant rate factor `crf` if it is one."""
    if isinstance(crf, bool) or not isinstance(crf, Real):
        raise TypeError(f"crf must be a number; got {crf!r}")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf must lie between 0 (lossless) and 51; got {crf}. 20 looks good")
    return float(crf)


def even(pixels: np.ndarray) -> np.ndarray:
    """Pads odd sides of `pixels` (H, W, 3) by one row or column that repeats the edge."""
    height, width, _ = pixels.shape
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def to_array(image: np.ndarray | Tensor) -> np.ndarray:
    """Returns the uint8 RGB (H, W, 3) of an array like it, or of a float tensor (..., 3, H, W)."""
    if isinstance(image, Tensor):
        return _from_tensor(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        came = getattr(image, "dtype", type(image).__name__)
        raise TypeError(
            f"expected a uint8 array (H, W, 3) or a float tensor (3, H, W); got {came}. "
            f"Convert: (255 * array).round().astype(np.uint8)"
        )
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"expected an array of shape (H, W, 3); got {image.shape}. "
            f"Put the channels last, and drop an alpha channel"
        )
    return image


def _from_tensor(image: Tensor) -> np.ndarray:
    if not image.is_floating_point():
        raise TypeError(
            f"expected a float tensor in [0, 1]; got {image.dtype}. Convert: image.float() / 255"
        )
    planes = image[0] if image.ndim == 4 and len(image) == 1 else image
    if planes.ndim != 3 or planes.shape[0] != 3 or not planes.numel():
        raise ValueError(
            f"expected a tensor of shape (3, H, W) or (1, 3, H, W); got {tuple(image.shape)}. "
            f"Write the frames of a batch one by one"
        )
    planes = planes.detach().to("cpu", torch.float32)
    low, high = (bound.item() for bound in planes.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"expected values in [0, 1]; got {low:g} to {high:g}. "
            f"Divide by 255, undo the normalisation, or image.clamp(0, 1)"
        )
    return (planes * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
