"""Reads a video file, an image or a folder of images, frame by frame."""

import os
import re
import warnings
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from numbers import Integral
from pathlib import Path
from types import TracebackType
from weakref import WeakSet

import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from eventful.video.decode import Timed, Video, shown
from eventful.video.extent import DamageError
from eventful.video.geometry import fitted, to_pixels
from eventful.video.stills import Stills, is_image, list_images


class DamagedVideoWarning(UserWarning):
    """A video ended before its time; the frames up to the damage were good.

    Example:
        >>> issubclass(DamagedVideoWarning, UserWarning)
        True
    """


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video.

    Attributes:
        pixels: uint8 RGB, shape (H, W, 3).
        index: Position in the sequence, from 0.
        time: Seconds from the first frame, exact.

    Example:
        >>> frame = Frame(np.full((2, 3, 3), 255, np.uint8), index=1, time=Fraction(1, 25))
        >>> frame.image.shape, frame.image.max().item()
        (torch.Size([1, 3, 2, 3]), 1.0)
    """

    pixels: np.ndarray
    index: int
    time: Fraction

    @cached_property
    def image(self) -> Tensor:
        """The pixels as a float32 tensor of shape (1, 3, H, W) in [0, 1]."""
        planes = torch.from_numpy(self.pixels).permute(2, 0, 1)[None].contiguous()
        return planes.to(torch.float32).div_(255)


class Reader:
    """A video as an iterable over `Frame`, with what is known about it.

    Frames come upright (rotation metadata is applied), in display order, none dropped and none
    doubled. Each iteration opens the file anew; leaving the `with` block closes it.

    Where a file is damaged, iteration ends after the good frames and `damage` says why. What
    counts as damage: data that do not decode or break off, and less of them than declared.

    Args:
        path: A video file, an image, or a folder of images in natural order (img2 before
            img10; jpg, png, bmp, webp, tif).
        size: Side S of the S x S pixels that frames are resized to, aspect not kept; None for
            native size.
        keep_aspect: Instead of S x S, make the long side S, and round both sides to the nearest
            multiple of `patch`. The aspect is the one that the file says to show, which pixels
            that are not square make another than that of its numbers of pixels.
        patch: Side of the model's patch, in pixels.

    Attributes:
        rate: Average frame rate in frames per second, exact; 25 for images.
        frames: Number of frames that the file declares, None where it declares none.
        width: Width in pixels of the (first) frame yielded.
        height: Height in pixels of the (first) frame yielded.
        aspect: Width over height of the (first) frame as it is meant to be shown, exact: with
            native size, pixels may be wider than high.
        damage: None, or after an iteration that met damage a sentence about it.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ValueError: If it is empty, no video, or not a frame of it decodes; or if it is no regular
            file, but a pipe, a device or a URL.

    Example:
        >>> import tempfile
        >>> from eventful.video import Reader, Writer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Writer(f"{folder}/grey.mp4", rate=Fraction(30000, 1001)) as writer:
        ...         for _ in range(3):
        ...             writer.write(np.full((22, 34, 3), 128, np.uint8))
        ...     with Reader(f"{folder}/grey.mp4", size=28, keep_aspect=True) as reader:
        ...         print(reader.rate, reader.frames, reader.width, reader.height)
        ...         print([str(frame.time) for frame in reader], reader.damage)
        30000/1001 3 28 14
        ['0', '1001/30000', '1001/15000'] None
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int | None = None,
        *,
        keep_aspect: bool = False,
        patch: int = 14,
    ) -> None:
        self._size = None if size is None else _positive("size", size)
        self._keep_aspect = keep_aspect
        self._patch = _positive("patch", patch)
        self._source = _source(Path(path))
        self._passes: WeakSet[Generator[Frame, None, None]] = WeakSet()
        self.rate = self._source.rate
        self.frames = self._source.frames
        self.damage: str | None = None
        first = self._first(path)
        self.width, self.height = self._shape(first)
        width, height = shown(first)
        self.aspect = width / height

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        frames = self._frames()
        self._passes.add(frames)
        return frames

    def close(self) -> None:
        """Ends every iteration under way and closes its file."""
        for frames in list(self._passes):
            frames.close()

    def _frames(self) -> Generator[Frame, None, None]:
        self.damage = None
        reformatter, count = VideoReformatter(), 0
        with closing(self._source.decode()) as decoded:
            try:
                for timed in decoded:
                    size = self._shape(timed)
                    pixels = to_pixels(timed.frame, reformatter, timed.turn, *size)
                    yield Frame(pixels, count, timed.time)
                    count += 1
            except DamageError as damage:
                self.damage = self._sentence(count, damage)

    def _sentence(self, count: int, damage: DamageError) -> str:
        declared = "" if self.frames is None else f" of {self.frames} declared"
        return f"decoding stopped after {count} frames{declared}: {damage}"

    def _shape(self, timed: Timed) -> tuple[int, int]:
        if self._size is None:
            frame = timed.frame
            upright = bool(timed.turn[0])
            return (frame.width, frame.height) if upright else (frame.height, frame.width)
        return fitted(*shown(timed), self._size, self._keep_aspect, self._patch)

    def _first(self, path: str | os.PathLike[str]) -> Timed:
        reason: DamageError | str = "it holds no frame"
        with closing(self._source.decode()) as decoded:
            try:
                for timed in decoded:
                    return timed
            except DamageError as damage:
                reason = damage
        raise ValueError(
            f"expected a video; not one frame of {os.fspath(path)} decodes: {reason}. "
            f"Check that the file plays elsewhere, or fetch or convert it again"
        )


def read(
    path: str | os.PathLike[str],
    size: int | None = None,
    *,
    keep_aspect: bool = False,
    patch: int = 14,
) -> Generator[Tensor, None, None]:
    """Yields the frames of a video as float32 tensors of shape (1, 3, H, W), RGB in [0, 1].

    Takes what `Reader` takes and raises what it raises, at the call. Closes the file at the end
    of the iteration, and when the iteration is left early or by an exception.

    Args:
        path: A video file, an image, or a folder of images.
        size: Side S of the S x S pixels that frames are resized to; None for native size.
        keep_aspect: Make the long side S instead, both sides rounded to multiples of `patch`.
        patch: Side of the model's patch, in pixels.

    Warns:
        DamagedVideoWarning: At the end, if the file is damaged and frames are missing.

    Example:
        >>> import tempfile
        >>> from eventful.video import Writer, read
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Writer(f"{folder}/red.mp4", rate=25) as writer:
        ...         writer.write(torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 22, 34))
        ...     for image in read(f"{folder}/red.mp4", size=14):
        ...         print(image.shape, image.mean(dim=(2, 3)).round(decimals=1).tolist())
        torch.Size([1, 3, 14, 14]) [[1.0, 0.0, 0.0]]
    """
    return _images(Reader(path, size, keep_aspect=keep_aspect, patch=patch), path)


def _images(reader: Reader, path: str | os.PathLike[str]) -> Generator[Tensor, None, None]:
    with reader:
        for frame in reader:
            yield frame.image
    if reader.damage:
        warnings.warn(f"{os.fspath(path)}: {reader.damage}", DamagedVideoWarning, stacklevel=2)


def _source(path: Path) -> Video | Stills:
    if not path.exists():
        if path.name == "-" or re.match(r"[a-z][a-z0-9+.-]*:/", str(path), re.IGNORECASE):
            given = re.sub(":/+", "://", str(path), count=1)  # of which a path keeps one slash
            raise ValueError(f"{_TAKEN}; got {given}. {_INSTEAD}")
        raise FileNotFoundError(
            f"{_TAKEN}; there is nothing at {path}. "
            f"Check the path; a relative one starts at {Path.cwd()}"
        )
    if path.is_dir():
        return Stills(list_images(path))
    if not path.is_file():
        raise ValueError(f"{_TAKEN}; {path} is a pipe or a device. {_INSTEAD}")
    return Stills((path,)) if is_image(path) else Video.probe(path)


_TAKEN = "expected a video, an image or a folder of images"
_INSTEAD = (
    "Save a film to a file first; the frames of a camera or of a stream in the network go into "
    "eventful.Stream one by one, as your own reader decodes them"
)


def _positive(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an int, in pixels; got {value!r}. Round it: int({name})")
    if value < 1:
        raise ValueError(f"{name} must be at least 1 pixel; got {value}. Take the model's own")
    return int(value)
