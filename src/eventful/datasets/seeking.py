"""Frames of a video file at given times, without decoding all that comes before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import final

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from eventful.datasets.images import covering, resized
from eventful.datasets.problems import Problems
from eventful.video.decode import Timed, Video, open_file
from eventful.video.extent import DamageError
from eventful.video.geometry import Turn, Turns, display_turn, to_pixels

# Seconds that are decoded rather than jumped over: more than most distances between key frames.
JUMP = 4

# Containers whose frames have times that a jump can rely on.
SEEKABLE = ("mp4", "matroska")


@final
class ClipFile:
    """A video file that gives the frame nearest to any time.

    Packets that do not decode are reported; the frames next to them stand in.

    Args:
        path: The file.
        problems: Where to report damage.

    Attributes:
        rate: Average frame rate, exact.
        seconds: Length as the file declares it, corrected where reading meets its end sooner.
        shape: (height, width) of its first frame, upright.

    Raises:
        ValueError: If the file is no video, or no frame of it decodes.
    """

    def __init__(self, path: Path, problems: Problems) -> None:
        self.path = path
        self._problems = problems
        self._video = Video.probe(path)
        self.rate = self._video.rate
        self._origin = 0
        self._jumps = False
        self.shape = self._look()
        declared = self._video.frames
        self.seconds = declared / self.rate if declared else self._measured()

    def at(self, times: Iterable[Fraction], size: int) -> dict[Fraction, np.ndarray]:
        """Reads the frames nearest to `times` in seconds, short side resized to `size`.

        Returns:
            uint8 RGB (H, W, 3) by time; times past the end of the file have none, and `seconds`
            then says where it ends.
        """
        found: dict[Fraction, np.ndarray] = {}
        for run in _runs(sorted(set(times))):
            found.update(self._run(run, size))
        return found

    def _run(self, times: Sequence[Fraction], size: int) -> Iterator[tuple[Fraction, np.ndarray]]:
        reformatter, chosen, pixels = VideoReformatter(), None, np.empty(0)
        for time, frame in self._nearest(times):
            if frame is not chosen:
                chosen, pixels = frame, _pixels(frame, reformatter, size)
            yield time, pixels

    def _nearest(self, times: Sequence[Fraction]) -> Iterator[tuple[Fraction, Timed]]:
        wanted, before = deque(times), None
        for frame in self._frames(times[0]):
            while wanted and wanted[0] <= frame.time:
                time = wanted.popleft()
                early = before is not None and time - before.time <= frame.time - time
                yield time, before if before is not None and early else frame
            if not wanted:
                return
            before = frame
        end = self._ended(before)
        while before is not None and wanted and wanted[0] < end:
            yield wanted.popleft(), before

    def _ended(self, last: Timed | None) -> Fraction:
        """Notes where the file ends: behind `last`, its last good frame."""
        end = Fraction(0) if last is None else last.time + 1 / self.rate
        if end + 1 / self.rate < self.seconds:
            declared = f"it declares {float(self.seconds):.2f} s"
            reason = f"{declared} but its good frames end after {float(end):.2f} s"
            self._problems.report("video", self.path, reason)
        self.seconds = min(self.seconds, end)
        return end

    def _measured(self) -> Fraction:
        """The length of a file that declares none, by decoding it."""
        (last,) = deque(self._frames(Fraction(0)), maxlen=1)
        return last.time + 1 / self.rate

    def _look(self) -> tuple[int, int]:
        """Sees what the first frame's shape is, and whether and from when jumps can be timed."""
        with open_file(self.path) as container:
            name = container.format.name
            for frame in self._decoded(container, _stream(container), None):
                self._jumps = frame.pts is not None and any(kind in name for kind in SEEKABLE)
                self._origin = frame.pts or 0
                return _shape(frame, display_turn(frame))
        raise ValueError(f"not one frame of {self.path} decodes. Fetch or convert it again")

    def _frames(self, start: Fraction) -> Iterator[Timed]:
        """The good frames in order, from one shown at or before `start`, or from the first."""
        if not self._jumps:
            yield from self._all()
            return
        jumped, turns = start > JUMP, Turns()
        with open_file(self.path) as container:
            stream = _stream(container)
            assert stream.time_base is not None
            first = self._origin + int(start / stream.time_base)
            if jumped:
                container.seek(first, stream=stream)
            for frame in self._decoded(container, stream, first):
                time = ((frame.pts or 0) - self._origin) * stream.time_base
                if jumped and time > start:  # no key frame where the index has one
                    break
                jumped = False
                yield Timed(frame, turns.of(frame), time)
        if jumped:
            yield from self._frames(Fraction(0))

    def _all(self) -> Iterator[Timed]:
        try:
            yield from self._video.decode()
        except DamageError as damage:
            self._problems.report("video", self.path, f"{damage}; it ends there")

    def _decoded(
        self, container: InputContainer, stream: VideoStream, first: int | None
    ) -> Iterator[av.VideoFrame]:
        """The frames that decode whole; damage is reported from time `first` on."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except FFmpegError as error:
                self._damaged(str(error.strerror))
                continue
            for frame in frames:
                if not frame.is_corrupt:
                    yield frame
                # Frames behind a jump may lack what they refer to, from before it.
                elif first is None or frame.pts is None or frame.pts >= first:
                    self._damaged("a frame is corrupt")

    def _damaged(self, what: str) -> None:
        reason = f"{what}; the frames next to what does not decode stand in"
        self._problems.report("video", self.path, reason)


def _runs(times: Sequence[Fraction]) -> list[list[Fraction]]:
    """Splits sorted times where it takes less to jump than to decode what lies between."""
    runs = [[time] for time in times[:1]]
    for before, time in pairwise(times):
        if time - before > JUMP:
            runs.append([time])
        else:
            runs[-1].append(time)
    return runs


def _stream(container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    assert isinstance(stream, VideoStream)
    return stream


def _pixels(timed: Timed, reformatter: VideoReformatter, size: int) -> np.ndarray:
    frame, turn = timed.frame, timed.turn
    height, width = _shape(frame, turn)
    image = Image.fromarray(to_pixels(frame, reformatter, turn, width, height))
    return np.asarray(resized(image, covering(height, width, size)))


def _shape(frame: av.VideoFrame, turn: Turn) -> tuple[int, int]:
    return (frame.height, frame.width) if turn[0] else (frame.width, frame.height)
