"""What `eventful run` shows a model: a video of the user's, or the demo's two clips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from eventful.models import demo_clip, still_clip
from eventful.video import Frame, Reader

DEMO_SIZE = 420  # long side: a dense frame of the demo takes some 0.2 s on two cores
DEMO_SECONDS = 70.0  # that both clips may take; on a slower machine they end early


@dataclass(frozen=True)
class Clip:
    """A part of a video.

    Attributes:
        path: The file.
        first: Its first frame.
        count: How many frames; None for all.
        camera: How the camera moves, where that is known.
    """

    path: Path
    first: int = 0
    count: int | None = None
    camera: str = ""

    @property
    def title(self) -> str:
        """Name of the file, and the camera."""
        return self.path.name + (f", {self.camera}" if self.camera else "")

    def total(self, reader: Reader) -> int | None:
        """How many frames there will be, as far as is known."""
        left = None if reader.frames is None else max(0, reader.frames - self.first)
        known = [count for count in (left, self.count) if count is not None]
        return min(known) if known else None

    def frames(self, reader: Reader) -> Iterator[tuple[Frame, Fraction]]:
        """The frames, and for each its time since the first of them."""
        start = Fraction(0)
        for frame in reader:
            if frame.index < self.first:
                continue
            if frame.index == self.first:
                start = frame.time
            yield frame, frame.time - start
            if self.count is not None and frame.index + 1 >= self.first + self.count:
                return


def demo_clips(count: int | None) -> list[Clip]:
    """A camera that pans and, after a cut, nearly rests; and one that stands still."""
    count = 50 if count is None else count
    return [
        Clip(demo_clip(), 110, count, "moving camera"),
        Clip(still_clip(), 80, count, "still camera"),
    ]
