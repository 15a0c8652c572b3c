"""Decodes the frames of one segment, with their place and exact time in the video."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import final

import av
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from eventful.archive.footage import Footage, size, stills
from eventful.archive.problems import READING, Problem, of_error
from eventful.video import Frame
from eventful.video.decode import Timed, Video, open_file
from eventful.video.extent import DamageError
from eventful.video.geometry import Turns, to_pixels
from eventful.video.stills import Stills


@final
class Reading:
    """The frames of a segment; where they end before their time, `problem` says why.

    Args:
        footage: The video.
        path: Where it can be opened.
        segment: Which of its segments.
        span: Its frames.

    Attributes:
        footage: The video.
        segment: Which of its segments.
        problem: None, or after an iteration what was wrong.
    """

    def __init__(self, footage: Footage, path: Path, segment: int, span: range) -> None:
        self.footage, self.segment, self._path, self._span = footage, segment, path, span
        self.problem: Problem | None = None

    def __iter__(self) -> Iterator[Frame]:
        count, reformatter = 0, VideoReformatter()
        try:
            self._check()
            with closing(self._decoded()) as decoded:
                for timed in decoded:
                    height, width = self.footage.height, self.footage.width
                    pixels = to_pixels(timed.frame, reformatter, timed.turn, width, height)
                    yield Frame(pixels, self._span.start + count, timed.time)
                    count += 1
            if count < len(self._span):
                raise DamageError(f"expected {len(self._span)} frames, and {count} were there")
        except _ChangedError as error:
            self.problem = Problem(self.footage.video, "changed", str(error), self.segment)
        except READING as error:
            problem = of_error(self.footage.video, error, self.segment)
            if problem.kind == "damaged":
                reason = f"decoding stopped after {count} of {len(self._span)} frames: {error}"
                problem = Problem(self.footage.video, "damaged", reason, self.segment)
            self.problem = problem

    def _check(self) -> None:
        """See that the file is the one that was looked through."""
        found = size(self._path)
        if found != self.footage.bytes:
            raise _ChangedError(
                f"it has {found} bytes and had {self.footage.bytes} when the archive was begun; "
                f"archive it under another name"
            )

    def _decoded(self) -> Generator[Timed, None, None]:
        images = stills(self._path)
        if images is not None:
            begin = self._span.start / images.rate
            for timed in Stills(images.paths[self._span.start : self._span.stop]).decode():
                yield timed._replace(time=begin + timed.time)
        elif self.footage.access == "seek":
            yield from self._jumped()
        else:
            frames = Video.probe(self._path).decode()
            with closing(frames):
                yield from islice(frames, self._span.start, self._span.stop)

    def _jumped(self) -> Generator[Timed, None, None]:
        """Frames from a jump to the key frame; from the first where the jump leads astray."""
        for jumps in (True, False):
            with open_file(self._path) as container:
                stream = container.streams.best("video")
                assert isinstance(stream, VideoStream)
                if not jumps or self._jump(container, stream):
                    yield from self._from_key(container, stream)
                    return

    def _jump(self, container: InputContainer, stream: VideoStream) -> bool:
        """Go to the key frame before the segment; False if that is not where one lands."""
        start = self.footage.starts[self.segment]
        container.seek(start.jump, stream=stream)
        first = next((p for p in container.demux(stream) if p.pts is not None), None)
        if first is None or not first.is_keyframe or first.pts is None or first.pts > start.key:
            return False
        container.seek(start.jump, stream=stream)
        return True

    def _from_key(
        self, container: InputContainer, stream: VideoStream
    ) -> Generator[Timed, None, None]:
        starts, number, turns = self.footage.starts, self.segment, Turns()
        assert stream.time_base is not None
        pixel, left = Fraction(stream.sample_aspect_ratio or 1), len(self._span)
        for frame in _frames(container, stream):
            if frame.pts is None or frame.pts < starts[number].pts:
                continue  # between the key frame and the segment, or before the key frame
            if frame.is_corrupt:
                raise DamageError("the next frame is corrupt")
            if number + 1 < len(starts) and frame.pts >= starts[number + 1].pts:
                return
            time = (frame.pts - starts[0].pts) * stream.time_base
            yield Timed(frame, turns.of(frame), time, pixel)
            left -= 1
            if not left:
                return


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    for packet in container.demux(stream):
        yield from packet.decode()


class _ChangedError(OSError):
    """The file is another than it was."""
