"""What a container declares of its length, and whether its packets bear it out."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from operator import attrgetter

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream


class DamageError(Exception):
    """Ends a sequence of good frames before its time; its text says why."""


def declared_frames(container: InputContainer, stream: VideoStream, rate: Fraction) -> int | None:
    """Returns the number of frames that the container declares to show, None if it does not."""
    if not stream.frames:
        return None
    seconds = _stream_seconds(container, stream)
    # An edit list (a clip trimmed on a phone) shows fewer frames than the file holds.
    return stream.frames if seconds is None else min(stream.frames, round(seconds * rate))


@dataclass
class Extent:
    """The declared length of a file against the length of its packets, in seconds.

    Counting frames would not do: edit lists in MP4 and dropped frames in AVI make whole files
    decode to fewer frames than they declare, and Matroska declares no number at all but ends
    without an error where it is cut.

    Attributes:
        declared: Declared length, None where the container states none to be relied on.
        slack: How much may be missing.
        streams: The streams whose packets count.
        stamp: Which time of a packet counts.
        gap: Longest step between packets so far, taken for the length of one that states none.
        least: What every packet lasts, whatever it states: in AVI that is a tick.
        origin: Where the length starts, None for the first packet.
        latest: Where the latest packet starts, from the origin.
        reached: The length so far.
    """

    declared: Fraction | None
    slack: Fraction
    streams: list[Stream]
    stamp: Callable[[Packet], int | None]
    gap: Fraction
    origin: Fraction | None = None
    least: Fraction = Fraction(0)
    latest: Fraction = Fraction(0)
    reached: Fraction = Fraction(0)

    @classmethod
    def of(cls, container: InputContainer, stream: VideoStream, rate: Fraction) -> "Extent":
        """Reads the declared length from `container`, before its first packet."""
        if "matroska" in container.format.name and container.duration:
            # One length for the whole file, whichever of its streams is the longest.
            declared = Fraction(container.duration, av.time_base)
            streams = [*container.streams.video, *container.streams.audio]
            return cls(declared, 2 / rate, streams, attrgetter("pts"), 1 / rate, Fraction(0))
        # Decoding times run without gaps, so that not even a last B-frame is missing unseen.
        seconds = _stream_seconds(container, stream)
        least = 1 / rate if container.format.name == "avi" else Fraction(0)
        return cls(seconds, 1 / (2 * rate), [stream], attrgetter("dts"), 1 / rate, least=least)

    def add(self, packet: Packet) -> None:
        """Counts one packet of `streams`."""
        stamp = self.stamp(packet)
        if stamp is None:
            return
        begin = stamp * packet.time_base
        self.origin = begin if self.origin is None else self.origin
        start = begin - self.origin
        self.gap = max(self.gap, start - self.latest)
        self.latest = start
        length = packet.duration * packet.time_base if packet.duration else self.gap
        self.reached = max(self.reached, start + max(length, self.least))

    def check(self) -> None:
        """Raises `DamageError` if the packets have ended before the declared length."""
        if self.declared is not None and self.reached + self.slack < self.declared:
            raise DamageError(
                f"the file declares {float(self.declared):.2f} s "
                f"but ends after {float(self.reached):.2f} s"
            )


def _stream_seconds(container: InputContainer, stream: VideoStream) -> Fraction | None:
    if not stream.frames or stream.time_base is None:
        return None
    if "mp4" in container.format.name and stream.duration:
        return stream.duration * stream.time_base
    if container.format.name == "avi":  # its duration is scaled down where the file is cut
        return stream.frames * stream.time_base
    return None
