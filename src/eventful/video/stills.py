"""Decodes images, one or a folder of them, as the frames of a video."""

import io
import re
import struct
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from eventful.video import tiff
from eventful.video.decode import DEFAULT_RATE, Timed, of_the_system, open_file
from eventful.video.exif import exif_turn
from eventful.video.extent import DamageError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Stills:
    """Images in order, shown at 25 frames per second."""

    paths: tuple[Path, ...]

    @property
    def rate(self) -> Fraction:
        """Frames per second."""
        return DEFAULT_RATE

    @property
    def frames(self) -> int:
        """Number of images."""
        return len(self.paths)

    def decode(self) -> Generator[Timed, None, None]:
        """Yields the images.

        Raises:
            DamageError: In place of the first image that cannot be decoded whole.
        """
        for index, path in enumerate(self.paths):
            data = path.read_bytes()
            yield Timed(_decoded(path, data), exif_turn(data), index / self.rate)


def list_images(folder: Path) -> tuple[Path, ...]:
    """Lists the images of a folder in natural order: img2 before img10.

    Raises:
        ValueError: If there are none.
    """
    paths = [p for p in folder.iterdir() if is_image(p) and not p.name.startswith(".")]
    if not paths:
        raise ValueError(
            f"expected a folder of images ({', '.join(SUFFIXES)}); {folder} holds none. "
            f"Give the folder that holds the frames themselves, or a video file"
        )
    return tuple(sorted(paths, key=_natural))


def is_image(path: Path) -> bool:
    """Whether `path` is named as an image."""
    return path.suffix.lower() in SUFFIXES


def _natural(path: Path) -> tuple[list[str | int], str]:
    pieces: list[str | int] = list(re.split(r"([0-9]+)", path.name.lower()))
    pieces[1::2] = map(int, pieces[1::2])
    return pieces, path.name


def _decoded(path: Path, data: bytes) -> av.VideoFrame:
    """Decodes one image strictly: FFmpeg alone would fill up a JPEG that is cut short."""
    try:
        with _opened(path, data) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream):
                raise DamageError("it holds no picture")
            stream.codec_context.options = {"err_detect": "explode"}
            frames = list(islice(container.decode(stream), 2))
    except (DamageError, FFmpegError) as error:
        if isinstance(error, FFmpegError) and of_the_system(error):
            raise
        reason = getattr(error, "strerror", None) or error
        raise DamageError(f"{path.name}: {reason}") from error
    if len(frames) != 1:
        found = "holds no picture" if not frames else "is animated; name it .apng to read it all"
        raise DamageError(f"{path.name}: it {found}")
    return frames[0]


def _opened(path: Path, data: bytes) -> InputContainer:
    _check_end(data)
    if data.startswith(tiff.MAGIC):
        return av.open(io.BytesIO(tiff.plain(data)), "r", format="tiff_pipe")
    return open_file(path)


def _check_end(data: bytes) -> None:
    """Refuse a JPEG or BMP that is cut short where FFmpeg does not see it.

    A JPEG's last scan is followed by a mark of its end. The lines of a BMP are filled up to whole
    words; FFmpeg takes them for shorter ones where some are missing.
    """
    if data.startswith(b"\xff\xd8"):
        cut = data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    elif data.startswith(b"BM") and len(data) >= _BMP.size:
        begin, header, width, height, bits, compression = _BMP.unpack_from(data)
        plain = header >= 40 and compression in (0, 3)  # neither run lengths nor another format
        line = (width * bits + 31) // 32 * 4
        cut = plain and len(data) < begin + line * abs(height)
    else:
        return
    if cut:
        raise DamageError("the file ends within the picture")


_BMP = struct.Struct("<10xIIii2xHI")
