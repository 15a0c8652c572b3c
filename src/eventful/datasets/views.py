"""The views of a clip: evenly spaced in time, and across the picture."""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction
from numbers import Rational, Real
from typing import final

from eventful.datasets.layout import positive


@final
@dataclass(frozen=True)
class Views:
    """Which parts of a clip a model sees: `temporal` x `spatial` views of `frames` frames.

    A clip is resampled in time to `rate`. A view takes `frames` of its frames, `stride` apart. Its
    views start at even distances from its first frame to the last start that fits (a single one is
    in the middle); where the clip is shorter than a view, its last frame is repeated. The short
    side is resized to `size`, and squares of `size` are cut at even distances along the long side:
    left, centre, right (or top, centre, bottom) for three, the centre for one.

    These are the views of the paper's code; the defaults are those of its Kinetics-400 rows.

    Attributes:
        frames: Frames in a view.
        stride: Distance between them, in frames at `rate`.
        rate: Frames per second that a clip is resampled to; None for its own.
        size: Side of the square crops in pixels.
        temporal: Number of views in time.
        spatial: Number of crops of each.

    Raises:
        TypeError: If a number is no int, or `rate` no number.
        ValueError: If one is not positive.

    Example:
        >>> views = Views(frames=4, stride=2, rate=30, size=10, temporal=3, spatial=3)
        >>> views.starts(20), views.indices(6)[0]
        ([0, 6, 12], [0, 2, 4, 5])
        >>> views.corners(10, 25)
        [(0, 0), (0, 7), (0, 15)]
    """

    frames: int = 32
    stride: int = 2
    rate: Fraction | float | None = 25
    size: int = 224
    temporal: int = 4
    spatial: int = 3

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "rate":
                positive(field.name, getattr(self, field.name))
        if self.rate is not None and not isinstance(self.rate, Real):
            raise TypeError(f"rate must be frames per second, or None; got {self.rate!r}")
        if self.rate is not None and not self.rate > 0:
            raise ValueError(f"rate must be positive, or None; got {self.rate}")

    @property
    def exact_rate(self) -> Fraction | None:
        """`rate` as a fraction."""
        if self.rate is None or isinstance(self.rate, Rational):
            return None if self.rate is None else Fraction(self.rate)
        return Fraction(self.rate).limit_denominator(1001)

    def starts(self, count: int) -> list[int]:
        """The first frames of the views in time of a clip of `count` frames."""
        room = max(0, count - self.frames * self.stride)
        return _spread(room, self.temporal)

    def indices(self, count: int) -> list[list[int]]:
        """The frames of each view in time of a clip of `count` frames."""
        steps = range(0, self.frames * self.stride, self.stride)
        return [[min(start + step, count - 1) for step in steps] for start in self.starts(count)]

    def corners(self, height: int, width: int) -> list[tuple[int, int]]:
        """The (top, left) of the crops of a picture whose short side is `size`."""
        down = _spread(height - self.size, self.spatial)
        across = _spread(width - self.size, self.spatial)
        return list(zip(down, across, strict=True))


def _spread(room: int, count: int) -> list[int]:
    if count == 1:
        return [room // 2]
    return [k * room // (count - 1) for k in range(count)]
