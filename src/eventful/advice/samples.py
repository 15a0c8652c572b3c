"""Dense frames in short windows over a video, and what they show of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from eventful.advice.footage import Footage
from eventful.motion import Picture
from eventful.stream.gain import SHARES
from eventful.stream.plan import Check
from eventful.stream.probe import Probe

ROW = 9  # dense frames that follow each other at the start of a window
OFFSETS = (*range(ROW), 12, 18, 26, 36)  # of a window's dense frames
FAR = 4  # of the frames in a row, one of so many is held against all that follow, the rest in a row
APART = 40  # frames of the video that a window stands for, at least
MOST = 6  # windows


def windows(frames: int, most: int = MOST) -> list[tuple[int, ...]]:
    """The dense frames of windows spread evenly over a video.

    Args:
        frames: Of the video.
        most: Windows.

    Example:
        >>> windows(30)
        [(1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 19, 27)]
        >>> [window[0] for window in windows(100)]
        [6, 56]
    """
    count = max(1, min(most, frames // APART))
    length = frames // count
    offsets = [offset for offset in OFFSETS if offset < length]
    free = (length - 1 - offsets[-1]) // 2
    return [tuple(number * length + free + offset for offset in offsets) for number in range(count)]


@dataclass(frozen=True, eq=False)
class Sample:
    """What a dense frame showed of what would have been shown in its place.

    Attributes:
        age: Frames since the dense one before.
        level: Of recomputed tokens in between, of `gain.SHARES`.
        distance: Of its picture from the one before.
        check: What it showed.
    """

    age: int
    level: int
    distance: float
    check: Check


@dataclass(frozen=True, eq=False)
class Window:
    """What the dense frames of one window showed.

    Attributes:
        first: Its first frame.
        last: Its last.
        samples: All of them.
    """

    first: int
    last: int
    samples: Sequence[Sample] = field(repr=False)

    def away(self, frame: int) -> int:
        """How many frames it is away."""
        return max(self.first - frame, frame - self.last, 0)

    def nearest(self, level: int, age: int, turn: int) -> Sample | None:
        """A sample of a level whose age is nearest by ratio; None if it has none.

        Where there are several, they take turns, so that all of them count.
        """
        known = [sample for sample in self.samples if sample.level == level]
        if not known:
            return None
        near = min(known, key=lambda sample: max(sample.age / age, age / sample.age)).age
        alike = [sample for sample in known if sample.age == near]
        return alike[turn % len(alike)]


@final
class Taker:
    """Collects the frames of one window, and compares them once it is full.

    Args:
        probe: Compares.
        footage: The video.
        dense: Numbers of the window's dense frames.

    Attributes:
        dense: The same.
        first: The first of them.
        last: The last of them.
    """

    def __init__(self, probe: Probe, footage: Footage, dense: Sequence[int]) -> None:
        self._probe, self._footage = probe, footage
        self.dense, self.first, self.last = frozenset(dense), dense[0], dense[-1]
        self._pictures: list[Picture] = []
        self._outputs: list[dict[str, Tensor] | None] = []

    def add(self, frame: Tensor, outputs: dict[str, Tensor] | None) -> None:
        """Take in the next frame, and its dense outputs where they are wanted."""
        self._pictures.append(self._probe.picture(frame))
        self._outputs.append(outputs)

    @torch.inference_mode()
    def window(self) -> Window:
        """Compare all pairs of dense frames; after the first, recomputing tokens too."""
        found: list[Sample] = []
        for number, output in enumerate(self._outputs):
            if output is None:
                continue
            far = number % FAR == 0 or number >= ROW
            rest = slice(number, None if far else ROW)
            for level in range(len(SHARES)) if far and number < ROW - 1 else (0,):
                checks = self._probe.moved(self._pictures[rest], self._outputs[rest], level)
                found += [
                    self._sample(number, age, level, check)
                    for age, check in checks.items()
                    if (age > 1 or not level) and self._joined(number, age)
                ]
        return Window(self.first, self.last, found)

    def _joined(self, number: int, age: int) -> bool:
        before = self.first + number
        return self._footage.joined(before, before + age)

    def _sample(self, number: int, age: int, level: int, check: Check) -> Sample:
        before = self.first + number
        return Sample(age, level, self._footage.distance(before, before + age), check)
