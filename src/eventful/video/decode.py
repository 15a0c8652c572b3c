"""Decodes one video file: its good frames in display order, then the damage if there is any."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EIO, EPERM
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from statistics import mode
from typing import NamedTuple

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.format import Flags
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from eventful.video.clock import Clock
from eventful.video.extent import DamageError, Extent, declared_frames
from eventful.video.geometry import Turn, Turns

DEFAULT_RATE = Fraction(25)

LOOKED_AT = 50  # packets that tell a rate which the container does not
SEAM = 2  # packets from the one that is doubted to the first of the next recording


class Timed(NamedTuple):
    """A decoded frame.

    Attributes:
        frame: As it is stored.
        turn: How it must be turned.
        time: Seconds from the first frame.
        pixel: How wide a stored pixel is shown, for its height; of images as wide as high.
    """

    frame: av.VideoFrame
    turn: Turn
    time: Fraction
    pixel: Fraction = Fraction(1)


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
            rate = _rate(container, stream)
            return cls(path, rate, declared_frames(container, stream, rate))

    def decode(self) -> Generator[Timed, None, None]:
        """Opens the file anew and yields its good frames.

        Raises:
            DamageError: After the last good frame, if the file should have held more.
        """
        with _opened(self.path) as (container, stream):
            extent = Extent.of(container, stream, self.rate)
            clock = Clock(container, stream, self.rate)
            pixel, turns = Fraction(stream.sample_aspect_ratio or 1), Turns()
            for frame in _good_frames(_decoded_frames(container, stream, extent, clock)):
                yield Timed(frame, turns.of(frame), clock.time(frame), pixel)


def shown(timed: Timed) -> tuple[Fraction, Fraction]:
    """Width and height of an upright frame where pixels are as wide as high."""
    width, height = timed.frame.width * timed.pixel, Fraction(timed.frame.height)
    return (width, height) if timed.turn[0] else (height, width)


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
        if of_the_system(error):
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


def _rate(container: InputContainer, stream: VideoStream) -> Fraction:
    """Frames per second: as declared, unless what is declared is not of the pictures.

    Raw DV and AVI with empty chunks between frames count ticks of a clock, for raw H.264 and others
    without times FFmpeg makes up 25, and of a few frames in a transport stream it knows nothing;
    the commonest step between packets is a frame then.
    """
    declared = stream.average_rate or stream.guessed_rate or DEFAULT_RATE
    tick, made_up = stream.time_base, container.format.flags & Flags.no_timestamps.value
    told = stream.average_rate and not made_up and stream.average_rate * (tick or 0) != 1
    if tick is None or told:
        return declared
    try:
        packets = [*islice(container.demux(stream), LOOKED_AT)]
    except FFmpegError:
        return declared
    times = [packet.dts for packet in packets if packet.dts is not None]
    steps = [after - before for before, after in pairwise(times) if after > before]
    steps = steps or [packet.duration for packet in packets if packet.duration]
    return 1 / (mode(steps) * tick) if steps else declared


def of_the_system(error: FFmpegError) -> bool:
    """Whether an error is no fault of a file's content: there are no rights to it, for one.

    FFmpeg also calls it an error of input, or not permitted, where a file ends too early.
    """
    return isinstance(error, OSError) and error.errno not in (EIO, EPERM)


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
    container: InputContainer, stream: VideoStream, extent: Extent, clock: Clock
) -> Iterator[av.VideoFrame]:
    failed: int | None = None  # time of a packet while it is decoded
    try:
        for packet in _whole_packets(container, stream, extent):
            clock.add(packet)
            failed = packet.pts
            yield from packet.decode()
            failed = None
    except (DamageError, FFmpegError) as error:
        for frame in _held_back(stream):
            if failed is None or frame.pts != failed:  # else what was decoded of it so far
                yield frame
        raise DamageError(getattr(error, "strerror", None) or str(error)) from error
    extent.check()


def _whole_packets(
    container: InputContainer, stream: VideoStream, extent: Extent
) -> Iterator[Packet]:
    begun = False
    packets = _video_packets(container, stream, extent)
    ahead: deque[Packet] = deque()
    while (packet := ahead.popleft() if ahead else next(packets, None)) is not None:
        if packet.is_corrupt:
            ahead.extend(islice(packets, SEAM - len(ahead)))
            if not _followed_by_another(packet, ahead):
                if begun:
                    raise DamageError("the file breaks off within a frame")
                continue
        begun = True
        yield packet


def _video_packets(
    container: InputContainer, stream: VideoStream, extent: Extent
) -> Iterator[Packet]:
    for packet in container.demux(*extent.streams):
        extent.add(packet)
        if packet.stream.index == stream.index:
            yield packet


def _followed_by_another(doubted: Packet, ahead: Iterable[Packet]) -> bool:
    """Whether a packet that the container doubts is at the end of one of several recordings.

    Where recordings follow one another in a transport stream, its counters jump, as where data are
    missing. But then a key frame comes next, with which a recording begins: one in a row of others,
    or one whose time runs back.
    """
    return any(
        packet.is_keyframe and (not doubted.is_keyframe or _begins_before(packet, doubted))
        for packet in ahead
    )


def _begins_before(packet: Packet, other: Packet) -> bool:
    return packet.dts is not None and other.dts is not None and packet.dts <= other.dts


def _held_back(stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Yields the frames that the decoder holds for reordering when its input breaks off."""
    try:
        yield from stream.decode(None)
    except FFmpegError:  # it has been drained already, or cannot go on
        return
