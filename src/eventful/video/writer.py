"""Writes H.264 video frame by frame, at a constant rate or at given times."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.format import Flags
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream
from torch import Tensor

from eventful.video.geometry import BICUBIC
from eventful.video.inputs import even, exact_rate, quality, to_array

CODEC = "libx264"

# Fine enough for every common rate, and the clock that MPEG itself counts by.
TICK = Fraction(1, 90000)

# H.273: the matrix, the primaries and the transfer of BT.709 share this number.
BT709 = 1


class Writer:
    """Writes an H.264 file that plays everywhere (yuv420p, BT.709, index in front).

    The container follows the name: mp4, mkv or mov. An odd side is padded by one row or column
    that repeats the edge, since yuv420p has even sides. However the `with` block is left, by an
    exception or Ctrl-C too, the frames so far are in the file and it plays; if there was none,
    no file is left.

    Args:
        path: The file to write; one that exists is replaced at the first frame.
        rate: Frames per second. A float is taken for the nearest fraction with a denominator up
            to 1001, and within 0.001 of an NTSC rate for that: 29.97 means 30000/1001.
        crf: Quality from 0 (lossless) to 51 (worst).

    Attributes:
        path: The file.
        rate: Frames per second, exact.
        frames: Number of frames written so far.

    Raises:
        ValueError: If `rate` is not positive or `crf` out of range, in `write` if a frame does
            not fit those before it, or if the codec refuses.
        TypeError: If `rate` or `crf` is no number.
        FileNotFoundError: If the folder of `path` does not exist.

    Example:
        >>> import tempfile
        >>> from eventful.video import Reader, Writer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Writer(f"{folder}/steps.mp4", rate=25) as writer:
        ...         for k in range(3):
        ...             writer.write(np.full((21, 35, 3), 60 * k, np.uint8), time=Fraction(k, 3))
        ...     with Reader(f"{folder}/steps.mp4") as reader:
        ...         print(reader.width, reader.height, [str(frame.time) for frame in reader])
        36 22 ['0', '1/3', '2/3']
    """

    def __init__(
        self, path: str | os.PathLike[str], rate: Fraction | float, *, crf: float = 20
    ) -> None:
        self.path = Path(path)
        self.rate = exact_rate(rate)
        self.frames = 0
        self._crf = quality(crf)
        self._reformatter = VideoReformatter()
        self._output: tuple[OutputContainer, VideoStream] | None = None
        self._shape: tuple[int, ...] = ()
        self._tick: int | None = None
        self._closed = False
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"expected an existing folder to write {self.path.name} into; there is no "
                f"{self.path.parent}. Make it: Path(...).parent.mkdir(parents=True)"
            )

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, image: np.ndarray | Tensor, time: Fraction | float | None = None) -> None:
        """Appends one frame.

        Args:
            image: uint8 RGB array of shape (H, W, 3), or float tensor of shape (3, H, W) or
                (1, 3, H, W) in [0, 1]; all of one size.
            time: Seconds at which the frame is shown, kept to 1/90000 s (Matroska: 1/1000 s),
                for all frames or for none.

        Raises:
            ValueError: If the image has another size or range, if `time` does not increase, or
                if only some frames have one.
            TypeError: If `image` is neither.
        """
        pixels = to_array(image)
        tick = None if time is None else round(Fraction(time) / TICK)
        self._check_fits(pixels.shape, tick)
        with _codec_errors(self.path):
            if self._output is None:
                self._shape = pixels.shape
                self._output = self._open(timed=tick is not None)
            self._encode(pixels, tick)
        self._tick = tick
        self.frames += 1

    def close(self) -> None:
        """Flushes the encoder and closes the file; further calls do nothing."""
        output, self._output, self._closed = self._output, None, True
        if output is None:
            return
        container, stream = output
        try:
            if self.frames:
                with _codec_errors(self.path):
                    container.mux(stream.encode(None))
        finally:
            container.close()  # touches the file only if a frame has come out of the encoder

    def _check_fits(self, shape: tuple[int, ...], tick: int | None) -> None:
        if self._closed:
            raise ValueError(f"expected an open writer; {self.path} is closed. Open a new one")
        if tick is not None and tick < 0:
            raise ValueError("expected times from 0 on; this one is negative. Subtract the first")
        if not self.frames:
            return
        if shape != self._shape:
            raise ValueError(
                f"expected a frame of (height, width) {self._shape[:2]} like those before; got "
                f"{shape[:2]}. Resize it, or write to another file"
            )
        if (tick is None) != (self._tick is None):
            raise ValueError("expected a time for every frame or for none; pass it always")
        if tick is not None and self._tick is not None and tick <= self._tick:
            raise ValueError(
                f"expected a time after {float(self._tick * TICK):.6f} s, by 1/90000 s at least; "
                f"got {float(tick * TICK):.6f} s. Write frames in order, each once"
            )

    def _open(self, timed: bool) -> tuple[OutputContainer, VideoStream]:
        height, width, _ = self._shape
        container = av.open(f"file:{self.path}", "w", container_options={"movflags": "+faststart"})
        stream = container.add_stream(CODEC, rate=self.rate, options={"crf": str(self._crf)})
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = ColorRange.MPEG.value
        if timed and not container.format.flags & Flags.variable_fps.value:
            raise ValueError(f"the format {container.format.name} has no times for its frames")
        if timed:
            context.time_base = TICK
        return container, stream

    def _encode(self, pixels: np.ndarray, tick: int | None) -> None:
        assert self._output is not None
        container, stream = self._output
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(even(pixels), format="rgb24"),
            format="yuv420p",
            interpolation=BICUBIC,
            dst_colorspace=Colorspace.ITU709.value,
            src_color_range=ColorRange.JPEG.value,
            dst_color_range=ColorRange.MPEG.value,
        )
        frame.time_base = 1 / self.rate if tick is None else TICK
        frame.pts = self.frames if tick is None else tick
        container.mux(stream.encode(frame))


@contextmanager
def _codec_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (FFmpegError, ValueError) as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(
            f"the codec {CODEC} (H.264) could not write {path}: {error}. Name the file .mp4, .mkv "
            f"or .mov, keep sides up to 16384 pixels, and see that PyAV has the codec "
            f"({CODEC!r} in av.codecs_available): pip install --upgrade av"
        ) from error
