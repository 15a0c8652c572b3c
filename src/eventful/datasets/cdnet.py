"""CDnet 2014: change detection with labels for shadow, for doubt, and for outside."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from eventful.datasets.frames import Sample, Video, Videos
from eventful.datasets.images import (
    other_size,
    read_grey,
    read_rgb,
    resized,
    resized_mask,
    target_size,
    to_tensor,
)
from eventful.datasets.layout import located, numbered, subfolders
from eventful.datasets.problems import Problems

PAGE = "changedetection.net (dataset 2014)"
SUFFIXES = (".jpg", ".jpeg")
STILL, SHADOW, OUTSIDE, UNKNOWN, MOVING = 0, 50, 85, 170, 255


@dataclass(frozen=True, eq=False)
class Motion:
    """What moves in one frame.

    Attributes:
        labels: uint8 (H, W): 0 still, 50 shadow, 85 outside, 170 unknown, 255 moving.
        region: bool (H, W), the video's region of interest.

    Example:
        >>> labels = torch.tensor([[0, 50, 85], [170, 255, 255]], dtype=torch.uint8)
        >>> region = torch.tensor([[True, True, True], [True, True, False]])
        >>> motion = Motion(labels, region)
        >>> motion.moving.tolist(), motion.scored.tolist()
        ([[False, False, False], [False, True, True]], [[True, True, False], [False, True, False]])
    """

    labels: Tensor
    region: Tensor

    @property
    def moving(self) -> Tensor:
        """Where something moves, bool (H, W)."""
        return self.labels == MOVING

    @property
    def scored(self) -> Tensor:
        """Where the label counts: in the region, neither outside nor unknown; bool (H, W)."""
        return self.region & (self.labels != OUTSIDE) & (self.labels != UNKNOWN)


@final
class CDnet(Videos[Video[Motion]]):
    """Change detection, static cameras for the most part.

    A video is any folder with `input/in%06d.jpg`, `groundtruth/gt%06d.png`, `temporalROI.txt` and
    `ROI.bmp`, at `root` itself or up to two folders below. `temporalROI.txt` says which frames are
    labelled; the others are given with the target None, so that a model can run in.

    A frame that cannot be read is skipped (`Sample.gap`); one whose labels are missing, broken, of
    another size or of other values has the target None. Both are reported.

    Args:
        root: The folder of the data set, of a category or of one video.
        size: (height, width), or the side of a square, that frames and labels are brought to; None
            for their own.
        strict: Raise at the first problem instead of counting it.

    Raises:
        FileNotFoundError: If there is no video, or a video lacks one of the four parts.
        ValueError: If a `temporalROI.txt` or `ROI.bmp` cannot be read.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for part, name in (("input", "in000001.jpg"), ("groundtruth", "gt000001.png")):
        ...         Path(root, "highway", part).mkdir(parents=True)
        ...         Image.new("L", (7, 5)).save(f"{root}/highway/{part}/{name}")
        ...     Image.new("L", (7, 5), 255).save(f"{root}/highway/ROI.bmp")
        ...     _ = Path(root, "highway/temporalROI.txt").write_text("1 1")
        ...     for video in CDnet(root):
        ...         for frame in video:
        ...             print(video.id, frame.number, frame.target.moving.sum().item())
        highway 1 0
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        size: int | tuple[int, int] | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(strict)
        self.root = Path(root)
        self.size = target_size(size)
        self._folders = video_folders(self.root)
        self._scenes = [_scene(folder) for folder in self._folders]

    def labelled(self, video: int) -> range:
        """The numbers of the labelled frames of the video at this position."""
        return self._scenes[video].labelled

    def _list(self) -> list[Video[Motion]]:
        return [self._video(*pair) for pair in zip(self._folders, self._scenes, strict=True)]

    def _video(self, folder: Path, scene: _Scene) -> Video[Motion]:
        frames = numbered(folder / "input", SUFFIXES, self.problems)
        inside = folder.relative_to(self.root).as_posix()
        name = folder.resolve().name if inside == "." else inside
        return Video(name, frames, partial(self._read, folder / "groundtruth", scene))

    def _read(self, truth: Path, scene: _Scene, number: int, path: Path) -> Sample[Motion] | None:
        image = read_rgb(path, self.problems)
        if image is None:
            return None
        original = (image.height, image.width)
        size = self.size or original
        target = None
        if number in scene.labelled:
            labels = self._labels(truth / f"gt{number:06d}.png", original)
            target = None if labels is None else scene.motion(labels, size, self.problems)
        return Sample(to_tensor(resized(image, size)), target, number, size, original)

    def _labels(self, path: Path, original: tuple[int, int]) -> np.ndarray | None:
        labels = read_grey(path, self.problems)
        if labels is None:
            return None
        odd = set(np.unique(labels).tolist()) - {STILL, SHADOW, OUTSIDE, UNKNOWN, MOVING}
        if labels.shape != original:
            self.problems.report("annotation", path, other_size(labels.shape, original))
        elif odd:
            known = "0, 50, 85, 170 and 255"
            reason = f"it holds {min(odd)}, which is none of {known}; the frame has no target"
            self.problems.report("annotation", path, reason)
        else:
            return labels
        return None


@dataclass(frozen=True, eq=False)
class _Scene:
    """What holds for a whole video."""

    labelled: range
    region: np.ndarray
    path: Path  # of the region

    def motion(self, labels: np.ndarray, size: tuple[int, int], problems: Problems) -> Motion:
        """Labels and region at (height, width) `size`."""
        region = self.region
        if region.shape != labels.shape:
            reason = "it has another size than the labels, whose own 85 (outside) stands for it"
            problems.report("annotation", self.path, reason)
            region = np.ones(labels.shape, bool)
        both = (resized_mask(part, size).copy() for part in (labels, region))
        return Motion(*map(torch.from_numpy, both))


def video_folders(root: Path) -> list[Path]:
    """The folders at `root` and up to two below it that hold `input`."""
    level = [root] if root.is_dir() else []
    for _ in range(3):
        found = [folder for folder in level if (folder / "input").is_dir()]
        if found:
            return found
        level = [inner for folder in level for inner in subfolders(folder)]
    raise FileNotFoundError(
        f"expected videos, folders that hold input/, at {root} or up to two folders below; there "
        f"is none. Check the root, or get them from {PAGE}"
    )


def _scene(folder: Path) -> _Scene:
    located(folder, ["groundtruth"], f"the labels of {folder.name}", PAGE)
    times = located(folder, ["temporalROI.txt"], f"the labelled range of {folder.name}", PAGE)
    mask = located(folder, ["ROI.bmp"], f"the region of interest of {folder.name}", PAGE)
    # Strict, since nothing in the video could be scored without these two.
    region = read_grey(mask, Problems(strict=True))
    assert region is not None
    return _Scene(_labelled(times), region > 127, mask)


def _labelled(path: Path) -> range:
    try:
        first, last = map(int, path.read_text().split())
    except ValueError as error:
        raise ValueError(
            f"expected two frame numbers, first and last, in {path}; it holds "
            f"{path.read_bytes()[:40]!r}. Get it from {PAGE}"
        ) from error
    return range(first, last + 1)
