"""Videos with boxes in the text format of the MOT challenge."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, final

import torch

from eventful.datasets.frames import Sample, Videos
from eventful.datasets.images import to_tensor
from eventful.datasets.layout import located
from eventful.datasets.problems import Problems
from eventful.datasets.regions import Regions
from eventful.video import Reader

PAGE = "motchallenge.net"


class Box(NamedTuple):
    """A line of a table, in pixels.

    Attributes:
        left: Of the box.
        top: Of the box.
        width: Of the box.
        height: Of the box.
        flag: A detector's confidence; in ground truth 0 where the box does not count.
    """

    left: float
    top: float
    width: float
    height: float
    flag: float = 1.0


def boxes_by_frame(path: Path, problems: Problems) -> dict[int, list[Box]]:
    """Read a table by frame, counted from 1.

    A line holds frame, identity, left, top, width, height, flag, and more that is not read. One
    that cannot be read is left out and reported.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "gt.txt")
        >>> _ = path.write_text("2,7,3,4,5,6,0,-1,-1,-1")
        >>> boxes_by_frame(path, Problems(strict=True))
        {2: [Box(left=3.0, top=4.0, width=5.0, height=6.0, flag=0.0)]}
    """
    found: dict[int, list[Box]] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            frame, _, *sides = map(float, line.split(","))
            box = Box(*sides[:5])
        except (TypeError, ValueError):
            reason = f"line {number} is no box (frame, id, left, top, width, height, ...): {line!r}"
            problems.report("row", path, f"{reason}; it is left out")
            continue
        found.setdefault(int(frame), []).append(box)
    return found


@final
class MotVideo:
    """A video file with boxes; targets are `Regions`, empty where a frame has no box.

    Where the file is damaged, frames end, which is reported.

    Attributes:
        id: Its name.

    Example: see `Mot`.
    """

    def __init__(
        self, id: str, path: Path, boxes: Mapping[int, Sequence[Box]], problems: Problems
    ) -> None:
        self.id = id
        self._path, self._boxes, self._problems = path, boxes, problems

    def __iter__(self) -> Iterator[Sample[Regions]]:
        with Reader(self._path) as reader:
            for frame in reader:
                height, width = frame.pixels.shape[:2]
                regions = _regions(self._boxes.get(frame.index + 1, ()))
                image, size = to_tensor(frame.pixels), (height, width)
                yield Sample(image, regions, frame.index + 1, size, size)
            if reader.damage is not None:
                self._problems.report("video", self._path, reader.damage)


def _regions(boxes: Sequence[Box]) -> Regions:
    """The boxes that count, and those that do not."""
    rows = [(x, y, x + width, y + height, flag) for x, y, width, height, flag in boxes]
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    counts = table[:, 4] != 0
    return Regions(table[counts, :4], table[~counts, :4])


@final
class Mot(Videos[MotVideo]):
    """One video with a table of boxes.

    Args:
        root: The folder that holds both.
        video: The video's file name; without its suffix it is the video's `id`.
        table: The table's, see `boxes_by_frame`. Boxes of flag 0 are `doubtful`.
        page: Where they can be had.
        strict: Raise at the first problem.

    Raises:
        FileNotFoundError: One of the files is not there.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from eventful.video import Writer
        >>> root = Path(tempfile.mkdtemp())
        >>> with Writer(root / "street.mp4", rate=10) as writer:
        ...     for level in (60, 90):
        ...         writer.write(np.full((16, 24, 3), level, np.uint8))
        >>> _ = (root / "gt.txt").write_text("2,1,3,4,5,6,1,-1,-1,-1")
        >>> [frame.target.boxes.tolist() for frame in Mot(root, "street.mp4", "gt.txt")[0]]
        [[], [[3.0, 4.0, 8.0, 10.0]]]
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        video: str,
        table: str,
        *,
        page: str = PAGE,
        strict: bool = False,
    ) -> None:
        super().__init__(strict)
        self.root = Path(root)
        self._file = located(self.root, [video], "the video", page)
        self._table = located(self.root, [table], "the boxes of people", page)

    def _list(self) -> list[MotVideo]:
        boxes = boxes_by_frame(self._table, self.problems)
        return [MotVideo(self._file.stem, self._file, boxes, self.problems)]
