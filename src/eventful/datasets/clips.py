"""Clips of video files, seen in several views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import floor
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from eventful.datasets.frames import Sample
from eventful.datasets.images import to_tensor
from eventful.datasets.problems import Problems
from eventful.datasets.seeking import ClipFile
from eventful.datasets.views import Views


@dataclass(frozen=True)
class Action:
    """What is done in a clip.

    Attributes:
        label: The class, from 0: of the verb in EPIC-Kitchens.
        name: Its name: the verb as narrated in EPIC-Kitchens.
        noun: Class of the noun in EPIC-Kitchens, else None.
        narration: The sentence in EPIC-Kitchens, else empty.

    Example:
        >>> Action(4, "close", noun=3, narration="close door").label
        4
    """

    label: int
    name: str
    noun: int | None = None
    narration: str = ""


@final
class View:
    """One crop of some frames of a clip; a stateful model is reset before it.

    Iterating gives a `Sample` a frame, whose number is its position in the resampled clip.

    Attributes:
        id: The clip's name and the view's: "<clip>/t<temporal>s<spatial>".
        target: The action.
        temporal: Position among the views in time.
        spatial: Position among the crops.
        numbers: Positions of its frames in the resampled clip.

    Example:
        >>> whole = [np.full((2, 5, 3), level, np.uint8) for level in (0, 255)]
        >>> view = View("a", Action(0, "drinking"), (1, 2), whole, [3, 5], (0, 1, 2))
        >>> view.id, view.frames.shape, [frame.number for frame in view]
        ('a/t1s2', torch.Size([2, 3, 2, 2]), [3, 5])
    """

    def __init__(
        self,
        clip: str,
        target: Action,
        position: tuple[int, int],
        pictures: Sequence[np.ndarray],
        numbers: Sequence[int],
        crop: tuple[int, int, int],
        original: tuple[int, int] | None = None,
    ) -> None:
        self.temporal, self.spatial = position
        self.id = f"{clip}/t{self.temporal}s{self.spatial}"
        self.target = target
        self.numbers = tuple(numbers)
        self._pictures = pictures
        self._crop = crop
        self._original = original

    @property
    def frames(self) -> Tensor:
        """All frames, float32 (frames, 3, size, size), RGB in [0, 1], not normalised."""
        return torch.stack([self._image(picture) for picture in self._pictures])

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Sample[Action]]:
        side = self._crop[2]
        for number, picture in zip(self.numbers, self._pictures, strict=True):
            original = self._original or (picture.shape[0], picture.shape[1])
            yield Sample(self._image(picture), self.target, number, (side, side), original)

    def __repr__(self) -> str:
        return f"View({self.id!r}, {len(self)} frames)"

    def _image(self, picture: np.ndarray) -> Tensor:
        top, left, side = self._crop
        return to_tensor(picture[top : top + side, left : left + side])


@dataclass(frozen=True)
class Span:
    """Where a clip lies in its file, and whose word that is.

    Attributes:
        start: In seconds.
        stop: In seconds; None for the end of the file.
        source: The table that says so.
    """

    start: Fraction = Fraction(0)
    stop: Fraction | None = None
    source: Path | None = None


@final
class Clip:
    """A part of a video file with an action; iterating reads it and gives its views.

    All crops of the first view in time come first. A clip of which nothing can be read gives no
    view, which is reported: leave it out of the score.

    Attributes:
        id: Its name in the data set.
        target: The action.
        path: The video file.

    Example:
        >>> import tempfile
        >>> from eventful.video import Writer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "drink.mp4")
        ...     with Writer(path, rate=30) as writer:
        ...         for level in range(8):
        ...             writer.write(np.full((16, 32, 3), 20 * level, np.uint8))
        ...     file = ClipFile(path, Problems())
        ...     views = Views(frames=4, stride=1, rate=30, size=8, temporal=2, spatial=3)
        ...     clip = Clip("drink", Action(0, "drinking"), path, Span(), views, lambda _: file)
        ...     [(view.id, view.numbers) for view in clip][::3]
        [('drink/t0s0', (0, 1, 2, 3)), ('drink/t1s0', (4, 5, 6, 7))]
    """

    def __init__(
        self,
        id: str,
        target: Action,
        path: Path,
        span: Span,
        views: Views,
        opened: Callable[[Path], ClipFile | None],
        problems: Problems | None = None,
    ) -> None:
        self.id = id
        self.target = target
        self.path = path
        self._span = span
        self._views = views
        self._opened = opened
        self._problems = Problems() if problems is None else problems

    def __len__(self) -> int:
        """The number of views."""
        return self._views.temporal * self._views.spatial

    def __iter__(self) -> Iterator[View]:
        file = self._opened(self.path)
        if file is None:
            return
        plan, pictures = self._read(file)
        for temporal, numbers in enumerate(plan):
            shown = [pictures[number] for number in numbers]
            corners = self._views.corners(*shown[0].shape[:2])
            for spatial, corner in enumerate(corners):
                crop = (*corner, self._views.size)
                position = (temporal, spatial)
                yield View(self.id, self.target, position, shown, numbers, crop, file.shape)

    def __repr__(self) -> str:
        return f"Clip({self.id!r}, {self.target.name!r}, {len(self)} views)"

    def _read(self, file: ClipFile) -> tuple[list[list[int]], dict[int, np.ndarray]]:
        """The numbers of the frames of every view in time, and the frames by number."""
        while bounds := self._bounds(file):
            start, stop = bounds
            rate = self._views.exact_rate or file.rate
            plan = self._views.indices(max(1, floor((stop - start) * rate + Fraction(1, 2))))
            times = {number: start + number / rate for numbers in plan for number in numbers}
            found = file.at(times.values(), self._views.size)
            if len(found) == len(times):
                return plan, {number: found[time] for number, time in times.items()}
            assert file.seconds < stop  # it broke off, so that the views must move together
        return [], {}

    def _bounds(self, file: ClipFile) -> tuple[Fraction, Fraction] | None:
        """Where the clip lies in the file, None if not in it."""
        start, stop = self._span.start, self._span.stop
        end = f"{self.path}, which is {float(file.seconds):.2f} s long"
        if start >= file.seconds:
            self._outside(f"lies outside {end}; it is skipped")
            return None
        if stop is None:
            return start, file.seconds
        if stop > file.seconds + 1 / file.rate:
            self._outside(f"goes beyond {end}; its views are taken from what is there")
        return start, min(stop, file.seconds)

    def _outside(self, what: str) -> None:
        begin, until = (float(time or 0) for time in (self._span.start, self._span.stop))
        source = self._span.source or self.path
        reason = f"{self.id}, from {begin:.2f} to {until:.2f} s, {what}"
        self._problems.report("row", source, reason)


def opener(problems: Problems) -> Callable[[Path], ClipFile | None]:
    """A function that opens video files, keeps the latest few, and reports those that are none."""

    @lru_cache(maxsize=8)
    def opened(path: Path) -> ClipFile | None:
        try:
            return ClipFile(path, problems)
        except (OSError, ValueError) as error:
            problems.report("video", path, f"{error}; its clips are skipped")
            return None

    return opened
