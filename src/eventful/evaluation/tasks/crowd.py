"""People before a still camera: does a probe on patch tokens find the same as on dense ones?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from eventful.datasets import Problems, Sample, Videos
from eventful.datasets.layout import located
from eventful.datasets.mot import Box, MotVideo, boxes_by_frame
from eventful.evaluation.measures.maps import MapCounts, auc
from eventful.evaluation.measures.patches import OBJECT_SHARE, Size, share
from eventful.evaluation.measures.probe import Probe, fit
from eventful.evaluation.scores import Arrays, Scores
from eventful.evaluation.tasks.pictures import tinted
from eventful.evaluation.tasks.token_task import TokenTask

PAGE = "OpenCV's samples (vtest.avi)"
FIRST_PART = 4  # a quarter of the frames trains the probe
EVERY = 5  # of those, this one in so many


@final
class CrowdVideo:
    """A video file with boxes; targets are bool masks (H, W), true inside any box.

    Where the file is damaged, frames end, which is reported.

    Attributes:
        id: Its name.

    Example: see `Crowd`.
    """

    def __init__(
        self, id: str, path: Path, boxes: Mapping[int, Sequence[Box]], problems: Problems
    ) -> None:
        self.id = id
        self._boxes, self._video = boxes, MotVideo(id, path, boxes, problems)

    def __iter__(self) -> Iterator[Sample[Tensor]]:
        for sample in self._video:
            mask = _mask(self._boxes.get(sample.number, ()), sample.size)
            yield Sample(sample.image, mask, sample.number, sample.size, sample.original)


def _mask(boxes: Sequence[Box], shape: Size) -> Tensor:
    """Pixels whose middle lies in a box."""
    mask = torch.zeros(shape, dtype=torch.bool)
    for box in boxes:
        top, left = (max(0, round(side)) for side in (box.top, box.left))
        bottom, right = round(box.top + box.height), round(box.left + box.width)
        mask[top : max(bottom, 0), left : max(right, 0)] = True
    return mask


@final
class Crowd(Videos[CrowdVideo]):
    """The video `vtest.avi` with boxes around people in `det.txt`, of a detector.

    A line of `det.txt` is one box, in the text format of the MOT challenge: frame (from 1), an
    unused number, left, top, width, height in pixels, and more that is not read. A line that
    cannot be read is left out and reported.

    Args:
        root: The folder that holds both files.
        strict: Raise at the first problem.

    Raises:
        FileNotFoundError: One of the files is not there.

    Example:
        >>> import tempfile
        >>> from eventful.video import Writer
        >>> root = Path(tempfile.mkdtemp())
        >>> with Writer(root / "vtest.avi", rate=10) as writer:
        ...     for level in (60, 90):
        ...         writer.write(np.full((16, 24, 3), level, np.uint8))
        >>> _ = (root / "det.txt").write_text("2,-1,3,4,5,6,0.9,-1,-1,-1")
        >>> [(frame.number, int(frame.target.sum())) for frame in Crowd(root)[0]]
        [(1, 0), (2, 30)]
    """

    def __init__(self, root: str | os.PathLike[str], *, strict: bool = False) -> None:
        super().__init__(strict)
        self.root = Path(root)
        self._file = located(self.root, ["vtest.avi"], "the video", PAGE)
        self._table = located(self.root, ["det.txt"], "the boxes of people", PAGE)

    def _list(self) -> list[CrowdVideo]:
        boxes = boxes_by_frame(self._table, self.problems)
        return [CrowdVideo("vtest", self._file, boxes, self.problems)]


@final
class CrowdTask(TokenTask[CrowdVideo]):
    """A probe for people on the patches, trained on dense tokens of the first part of the video.

    Patches count as people where boxes cover more than 30 % of them. The probe is a logistic
    regression on every 5th frame of the first quarter. It is scored on all frames behind: AUC and
    F1 against the boxes, and the same against what the probe says of the dense tokens (`_dense`).

    Raises:
        ValueError: On `run`, where no frame that trains the probe has a person.

    Example:
        >>> CrowdTask.measures
        ('auc', 'f1', 'auc_dense', 'f1_dense')
    """

    name = "vtest"
    measures = ("auc", "f1", "auc_dense", "f1_dense")
    truth_is = "a detector's boxes"

    def judge(self, video: CrowdVideo, shape: Size) -> _Probing:
        """Trains the probe, once, and asks it."""
        dense = self.dense.read(video.id)
        assert dense is not None
        return _Probing(dense, self.grid(shape))

    def quality(self, found: Arrays) -> Scores:
        """AUC and F1 against boxes and against the dense model, in percent."""
        scores: Scores = {}
        for name in ("", "_dense"):
            scores[f"auc{name}"] = _percent(auc(*found[f"odds{name}"]))
            hits, false, missed = found[f"found{name}"].tolist()
            there = 2 * hits + false + missed
            scores[f"f1{name}"] = _percent(2 * hits / there if there else None)
        return scores


@dataclass
class _Probing:
    """One video: trains the probe on its first part and counts what it says of the rest."""

    dense: np.ndarray
    grid: Size
    probe: Probe | None = None
    labels: list[Tensor] = field(default_factory=list)
    frames: int = 0

    def __post_init__(self) -> None:
        self.counts = {"": _Counts(), "_dense": _Counts()}
        self.first = ceil(len(self.dense) / FIRST_PART)

    def see(self, number: int, tokens: Tensor, sample: Sample[Tensor]) -> None:
        """Learn from a frame of the first part, or count on one behind it."""
        assert sample.target is not None
        people = share(sample.target, self.grid).flatten() > OBJECT_SHARE
        if number < self.first:
            if number % EVERY == 0:
                self.labels.append(people)
            return
        self.probe = self.probe or self._trained()
        says, dense = self.probe(tokens), self.probe(_tensor(self.dense[number]))
        self.counts[""].add(says, people)
        self.counts["_dense"].add(says, dense >= 0.5)
        self.frames += 1

    def picture(self, tokens: Tensor, sample: Sample[Tensor]) -> Tensor:
        """How likely each patch is a person; the frame alone while the probe still learns."""
        if self.probe is None:
            return sample.image
        return tinted(sample.image, self.probe(tokens).view(self.grid))

    def _trained(self) -> Probe:
        tokens = _tensor(self.dense[: self.first : EVERY])
        return fit(tokens.flatten(0, 1), torch.cat(self.labels))

    def found(self) -> dict[str, np.ndarray]:
        """Counts by log-odds, and hits, false finds and misses."""
        arrays = {"scored": np.array(self.frames)}
        for name, counts in self.counts.items():
            arrays[f"odds{name}"] = counts.odds.arrays()["odds"]
            arrays[f"found{name}"] = counts.found
        return arrays


class _Counts:
    """Of one kind of truth."""

    def __init__(self) -> None:
        self.odds = MapCounts()
        self.found = np.zeros(3, np.int64)

    def add(self, says: Tensor, truth: Tensor) -> None:
        """Count the patches of a frame."""
        self.odds.add(says, truth)
        yes = says >= 0.5
        pairs = (yes, truth), (yes, ~truth), (~yes, truth)
        self.found += np.array([int((one & other).sum()) for one, other in pairs])


def _tensor(values: np.ndarray) -> Tensor:
    """A copy, since a memory map cannot be written to."""
    return torch.from_numpy(np.array(values))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
