"""Decodes images, one or a folder of them, as the frames of a video."""

import re
import struct
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.error import FFmpegError
from av.video.stream import VideoStream

from eventful.video.decode import DEFAULT_RATE, Timed, open_file
from eventful.video.extent import DamageError
from eventful.video.geometry import QUARTERS, UPRIGHT, Turn

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

EXIF_ORIENTATION = 0x0112

EXIF_TURNS: dict[int, Turn] = {
    1: UPRIGHT,
    2: (-1, 0, 0, 1),
    3: QUARTERS[2],
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: QUARTERS[3],
    7: (0, -1, -1, 0),
    8: QUARTERS[1],
}


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
            frame = _decoded(path)
            yield frame, _exif_turn(path), index / self.rate


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


def _decoded(path: Path) -> av.VideoFrame:
    """Decodes one image strictly: FFmpeg alone would fill up a JPEG that is cut short."""
    try:
        with open_file(path) as container:
            stream = container.streams.best("video")
            if isinstance(stream, VideoStream):
                stream.codec_context.options = {"err_detect": "explode"}
                for frame in container.decode(stream):
                    return frame
    except FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise DamageError(f"{path.name}: {error.strerror}") from error
    raise DamageError(f"{path.name}: it holds no picture")


def _exif_turn(path: Path) -> Turn:
    """Reads the orientation of a JPEG, which PyAV does not pass on whole."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    start = head.find(b"Exif\0\0")
    if start < 0 or not head.startswith(b"\xff\xd8"):
        return UPRIGHT
    try:
        return EXIF_TURNS.get(_exif_orientation(head[start + 6 :]), UPRIGHT)
    except struct.error:
        return UPRIGHT


def _exif_orientation(tiff: bytes) -> int:
    order = "<" if tiff.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
        if tag == EXIF_ORIENTATION:
            return value
    return 1
