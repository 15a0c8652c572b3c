"""When the frames of a video are shown."""

from collections import deque
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream


class Clock:
    """Gives frames their times from the first on, which increase strictly whatever the file says.

    Where times run back, as where one recording follows another in one file, they go on from the
    frame before.

    Args:
        container: The file.
        stream: Its video.
        rate: Frames per second, for frames without a time.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, rate: Fraction) -> None:
        # AVI holds no presentation times; those made up for B-frames run back and forth. Decoding
        # times do not: the frame shown as the nth is shown when the nth packet is decoded.
        self._untimed = container.format.name == "avi" and stream.codec_context.has_b_frames
        self._decoded: deque[Fraction] = deque()
        self._step, self._tick = 1 / rate, stream.time_base
        self._origin: Fraction | None = None
        self._last: Fraction | None = None

    def add(self, packet: Packet) -> None:
        """Takes note of a packet of the video, before it is decoded."""
        if self._untimed and packet.size and packet.dts is not None:
            self._decoded.append(packet.dts * packet.time_base)

    def time(self, frame: av.VideoFrame) -> Fraction:
        """The time of the next frame, in seconds from the first."""
        stamp = self._stamp(frame)
        following = Fraction(0) if self._last is None else self._last + self._step
        if stamp is None:
            self._last = following
            return following
        if self._origin is None:
            self._origin = stamp - following
        time = stamp - self._origin
        if self._last is not None and time <= self._last:
            self._origin, time = stamp - following, following
        self._last = time
        return time

    def _stamp(self, frame: av.VideoFrame) -> Fraction | None:
        if self._untimed:
            return self._decoded.popleft() if self._decoded else None
        if frame.pts is None or self._tick is None:
            return None
        return frame.pts * self._tick
