"""Videos that are folders of images: samples, and what all data sets share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar, final

from torch import Tensor

from eventful.datasets.problems import Problems

T = TypeVar("T")
V = TypeVar("V")


@dataclass(frozen=True, eq=False)
class Sample(Generic[T]):
    """One frame and what is known of it.

    Attributes:
        image: float32 (3, H, W), RGB in [0, 1], padding included; not normalised.
        target: The annotation, in the coordinates of `image`. None where there is none or it
            cannot be used: the frame then serves the model's state, and no score.
        number: The number in the frame's file name, or its position in a clip.
        size: (height, width) of the picture in `image`, without the padding below and to the right.
        original: (height, width) of the file.
        gap: How many frames before this one were skipped since they could not be read. A stream's
            state may go on all the same: a gate compares values and knows no time. Where every
            frame counts, reset it: `if sample.gap: stream.reset()`.

    Example:
        >>> import torch
        >>> Sample(torch.zeros(3, 4, 4), None, number=7, size=(2, 4), original=(20, 40)).gap
        0
    """

    image: Tensor
    target: T | None
    number: int
    size: tuple[int, int]
    original: tuple[int, int]
    gap: int = 0


@final
class Video(Generic[T]):
    """Frames that follow each other, read from their files on iteration, every time anew.

    Attributes:
        id: Its name in the data set.
        numbers: The numbers of its frames; `len` counts them, unreadable ones included.

    Example:
        >>> import torch
        >>> def read(number, path):
        ...     if number != 5:  # which cannot be read
        ...         return Sample(torch.zeros(3, 2, 2), None, number, (2, 2), (2, 2))
        >>> video = Video("street", [(n, Path(f"{n}.jpg")) for n in (4, 5, 6)], read)
        >>> len(video), [(sample.number, sample.gap) for sample in video]
        (3, [(4, 0), (6, 1)])
        >>> video.since(5).numbers
        (5, 6)
    """

    def __init__(
        self,
        id: str,
        frames: Sequence[tuple[int, Path]],
        read: Callable[[int, Path], Sample[T] | None],
    ) -> None:
        self.id = id
        self._frames = tuple(frames)
        self._read = read

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the frames, in order."""
        return tuple(number for number, _ in self._frames)

    def since(self, number: int) -> Video[T]:
        """The video from the frame of this number on, or the first one behind."""
        frames = [frame for frame in self._frames if frame[0] >= number]
        return Video(self.id, frames, self._read)

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Sample[T]]:
        gap = 0
        for number, path in self._frames:
            sample = self._read(number, path)
            if sample is None:
                gap += 1
                continue
            yield replace(sample, gap=gap)
            gap = 0

    def __repr__(self) -> str:
        return f"Video({self.id!r}, {len(self)} frames)"


class Videos(ABC, Generic[V]):
    """A data set: a sequence of videos or clips, and the problems met in its files.

    Attributes:
        problems: What was skipped so far, and why.

    Example:
        >>> class Alphabet(Videos[str]):
        ...     def _list(self):
        ...         return ["a", "b", "c"]
        >>> videos = Alphabet(strict=False)
        >>> len(videos), videos[-1], list(videos), len(videos.problems)
        (3, 'c', ['a', 'b', 'c'], 0)
    """

    def __init__(self, strict: bool) -> None:
        self.problems = Problems(strict)

    @abstractmethod
    def _list(self) -> list[V]:
        """Lists the videos, when they are first asked for."""

    @cached_property
    def _videos(self) -> list[V]:
        return self._list()

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, index: int) -> V:
        return self._videos[index]

    def __iter__(self) -> Iterator[V]:
        return iter(self._videos)
