"""Frames of a source as they come: from the network, a webcam, a file or standard input."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
from av.container import InputContainer
from av.error import (
    ArgumentError,
    ExitError,
    FFmpegError,
    HTTPForbiddenError,
    HTTPUnauthorizedError,
)
from av.format import Flags
from av.stream import Disposition
from av.video.stream import VideoStream

from eventful.live.sources import Source
from eventful.video.clock import Clock
from eventful.video.decode import DEFAULT_RATE, Timed, Video
from eventful.video.extent import DamageError
from eventful.video.geometry import UPRIGHT, Turns
from eventful.video.stills import Stills, is_image, list_images

PROTOCOLS = "tcp,tls,udp,rtp,rtsp,rtmp,rtmps,http,https,httpproxy,hls,crypto,data,srtp"
UNTIMED = Fraction(-1)  # the time of frames whose source has no clock


@dataclass(frozen=True)
class Limits:
    """How long a camera may take and when it is tried again, in seconds; how large it may be.

    Attributes:
        opening: For a connection and its first packets.
        reading: For the next packet.
        frame: For the next whole frame, however many packets come.
        wait: Before the first new try; each wait is twice the one before, a quarter more or less.
        longest: The longest wait.
        refused: The shortest wait where a user or password is refused, which may lock accounts.
        pixels: The most that a picture from the network or of standard input may have: as many as
            the largest of H.264, level 6.2, which 8K video fits; rows are counted in steps of 64.
    """

    opening: float = 10.0
    reading: float = 5.0
    frame: float = 10.0
    wait: float = 0.25
    longest: float = 1.0
    refused: float = 30.0
    pixels: int = 35_651_584


class Damaged(NamedTuple):
    """A piece that came but is no whole frame."""

    reason: str


class FeedError(Exception):
    """A source cannot be read on; its text says why.

    Attributes:
        refused: Whether it wants another user or password.
    """

    def __init__(self, text: str, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


Feed = Generator[Timed | Damaged, None, None]


def feed(source: Source, limits: Limits) -> Feed:
    """Open a source and give its frames, with seconds since the first of them by its own clock.

    A source that has no clock, such as MJPEG or a webcam, gives all of them the time `UNTIMED`.
    Ends where a file or standard input ends.

    Raises:
        FeedError: It cannot be opened, stalls, or ends though it should go on.
    """
    opened = {"file": _file, "webcam": _webcam}.get(source.kind, _stream)(source, limits)
    try:
        yield from opened
    except FeedError:
        raise
    except ExitError:
        raise FeedError(f"it sent nothing for {limits.reading:g} s") from None
    except (HTTPUnauthorizedError, HTTPForbiddenError):
        raise FeedError("it refuses the user and password, or needs one", refused=True) from None
    except FFmpegError as error:
        raise FeedError(source.hide(error.strerror or str(error))) from None
    except (DamageError, OSError, ValueError) as error:
        raise FeedError(source.hide(str(error))) from None
    finally:
        opened.close()


def _file(source: Source, limits: Limits) -> Feed:
    path = Path(source.place)
    images = Stills(list_images(path)) if path.is_dir() else None
    images = Stills((path,)) if images is None and is_image(path) else images
    with closing((images or Video.probe(path)).decode()) as frames:
        yield from frames


def _webcam(source: Source, limits: Limits) -> Feed:
    import cv2  # noqa: PLC0415

    if not Path(source.place).is_char_device():  # else OpenCV warns on standard error each time
        raise FeedError("there is no webcam; is it plugged in?")
    camera = cv2.VideoCapture(source.place, cv2.CAP_V4L2)  # PyAV's libraries have no V4L2
    if not camera.isOpened():
        raise FeedError("it cannot be opened as a webcam; is it there, and free?")
    try:
        while True:
            found, pixels = cast(tuple[bool, Any], camera.read())  # waits for ten seconds at most
            if not found:
                raise FeedError("it gives no picture")
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            yield Timed(frame, UPRIGHT, UNTIMED)
    finally:
        camera.release()


def _stream(source: Source, limits: Limits) -> Feed:
    """A URL, or standard input."""
    piped = source.kind == "input"
    place = "pipe:0" if piped else source.place
    options, timeouts = _options(source, limits), _timeouts(source, limits)
    with av.open(place, options=options, timeout=timeouts) as container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
            raise FeedError("it has no video")
        if stream.codec_context is None:
            raise FeedError("there is no decoder for its codec")
        coded = stream.codec_context
        if coded.width * coded.height > limits.pixels:
            raise FeedError(_too_large(f"{coded.width} x {coded.height}", limits))
        coded.options = {"max_pixels": str(limits.pixels)}  # of what else it says later
        coded.thread_count = 1  # a thread a camera, and no frame waits for others
        turns, pixel = Turns(), Fraction(stream.sample_aspect_ratio or 1)
        clock = _clock(container, stream)
        last = time.monotonic()
        for packet in container.demux():  # of sound too: it may go on where pictures stop
            ours = packet.stream.index == stream.index
            if ours and clock is not None:
                clock.add(packet)
            for frame in _decoded(packet, limits) if ours else ():
                if isinstance(frame, Damaged) or frame.is_corrupt:
                    yield frame if isinstance(frame, Damaged) else Damaged("a frame is damaged")
                    continue
                last = time.monotonic()
                shown = UNTIMED if clock is None else clock.time(frame)
                yield Timed(frame, turns.of(frame), shown, pixel)
            if not piped and time.monotonic() - last > limits.frame:
                raise FeedError(f"none of what it sent for {limits.frame:g} s was a whole frame")
    if not piped:
        raise FeedError("it ended")


def _clock(container: InputContainer, stream: VideoStream) -> Clock | None:
    """A stream's clock, also where its first frame has no time; None where times are made up."""
    if container.format.flags & Flags.no_timestamps.value:
        return None
    return Clock(container, stream, stream.average_rate or stream.guessed_rate or DEFAULT_RATE)


def _too_large(size: str, limits: Limits) -> str:
    return f"its pictures have {size} pixels, and {limits.pixels / 1e6:.1f} million are the most"


def _decoded(packet: av.Packet, limits: Limits) -> list[Any]:
    try:
        return [*packet.decode()]
    except ArgumentError:  # all that FFmpeg says of a picture beyond `max_pixels`
        return [Damaged(_too_large("no size, or too many", limits))]
    except FFmpegError as error:
        return [Damaged(error.strerror or "it does not decode")]


def _timeouts(source: Source, limits: Limits) -> tuple[float, float] | None:
    """Standard input may pause as long as it likes."""
    return None if source.kind == "input" else (limits.opening, limits.reading)


def _options(source: Source, limits: Limits) -> dict[str, str]:
    largest = {"max_pixels": str(limits.pixels)}  # of the first frames, which opening decodes
    if source.kind == "input":
        return largest
    options = largest | {
        "protocol_whitelist": PROTOCOLS,  # a playlist cannot name files of this machine
        "analyzeduration": "1000000",
        # Else a camera of few frames a second takes long to open: FFmpeg waits for twenty of them
        # to tell its rate, and for seven of H.264 to tell in which order they are shown.
        "fpsprobesize": "0",
        "max_ts_probe": "0",
    }
    if source.scheme in ("rtsp", "rtsps"):
        options["rtsp_transport"] = "tcp"
    return options
