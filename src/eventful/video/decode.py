"""Decodes one video file: its good frames in display order, then the damage if there is any."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from eventful.video.extent import DamageError, Extent, declared_frames
from eventful.video.geometry import Turn, display_turn

DEFAULT_RATE = Fraction(25)

# A decoded frame, how it must be turned, and its time in seconds from the first frame.
Timed = tuple[av.VideoFrame, Turn, Fraction]


@dataclass(frozen=True)
class Video:
    """A video file: what its container declares, and its frames.

    Attributes:
        path: The file.
        rate: Average frame rate in frames per second.
        frames: Declared number of frames, None where the container declares none.
    """

    path: Path
    rate: Fraction
    frames: int | None

    @classmethod
    def probe(cls, path: Path) -> "Video":
        """Reads the declarations of the file at `path`.

        Raises:
            ValueError: If the file is empty, no video, or has no video stream.
        """
        with _opened(path) as (container, stream):
            rate = stream.average_rate or stream.guessed_rate or DEFAULT_RATE
            return cls(path, rate, declared_frames(container, stream, rate))

    def decode(self) -> Generator[Timed, None, None]:
        """Opens the file anew and yields its good frames.

        Raises:
            DamageError: After the last good frame, if the file should have held more.
        """
        with _opened(self.path) as (container, stream):
            # AVI holds no presentation times; those made up for B-frames run back and forth.
            timed = container.format.name != "avi" or not stream.codec_context.has_b_frames
            origin = None
            extent = Extent.of(container, stream, self.rate)
            frames = _good_frames(_decoded_frames(container, stream, extent))
            for index, frame in enumerate(frames):
                time = index / self.rate
                if timed and frame.pts is not None and stream.time_base is not None:
                    origin = frame.pts if origin is None else origin
                    time = (frame.pts - origin) * stream.time_base
                yield frame, display_turn(frame), time


def open_file(path: Path) -> InputContainer:
    """Opens `path` as a file whatever its name looks like: a URL, a pattern, Latin-1 tags."""
    return av.open(
        f"file:{path}", "r", metadata_errors="replace", container_options={"pattern_type": "none"}
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    if path.is_file() and path.stat().st_size == 0:
        raise _not_a_video(path, "it is empty")
    try:
        container = open_file(path)
    except FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise _not_a_video(path, str(error.strerror)) from error
    with container:
        yield container, _video_stream(container, path)


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    if container.format.name == "tty":  # FFmpeg takes any *.txt for a film of characters
        raise _not_a_video(path, "it is text")
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        kinds = ", ".join(sorted({each.type for each in container.streams if each is not stream}))
        raise _not_a_video(path, f"it has no video stream, but {kinds or 'no stream at all'}")
    if stream.codec_context is None:
        raise _not_a_video(path, "this build of PyAV has no decoder for its codec")
    return stream


def _not_a_video(path: Path, found: str) -> ValueError:
    return ValueError(
        f"expected a video, an image or a folder of images; {path} is none: {found}. "
        f"Check that the file plays elsewhere, or fetch or convert it again"
    )


def _good_frames(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Stops at the first corrupt frame; before the first good one they are left out."""
    begun = False
    for frame in frames:
        if frame.is_corrupt and begun:
            raise DamageError("the next frame is corrupt")
        if not frame.is_corrupt:
            begun = True
            yield frame


def _decoded_frames(
    container: InputContainer, stream: VideoStream, extent: Extent
) -> Iterator[av.VideoFrame]:
    try:
        for packet in _whole_packets(container, stream, extent):
            yield from packet.decode()
    except (DamageError, FFmpegError) as error:
        yield from _held_back(stream)
        raise DamageError(getattr(error, "strerror", None) or str(error)) from error
    extent.check()


def _whole_packets(
    container: InputContainer, stream: VideoStream, extent: Extent
) -> Iterator[Packet]:
    begun = False
    for packet in container.demux(*extent.streams):
        extent.add(packet)
        if packet.stream.index != stream.index:
            continue
        if packet.is_corrupt and begun:
            raise DamageError("the file breaks off within a frame")
        if not packet.is_corrupt:
            begun = True
            yield packet


def _held_back(stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Yields the frames that the decoder holds for reordering when its input breaks off."""
    try:
        yield from stream.decode(None)
    except FFmpegError:  # it has been drained already, or cannot go on
        return
