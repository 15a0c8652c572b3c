"""DAVIS: sequences with a mask of the moving objects on every frame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from eventful.datasets.frames import Sample, Video, Videos
from eventful.datasets.images import (
    other_size,
    read_plain,
    read_rgb,
    resized,
    resized_mask,
    target_size,
    to_tensor,
)
from eventful.datasets.layout import located, numbered, subfolders

PAGE = "davischallenge.org"
SUFFIXES = (".jpg", ".jpeg")


@final
class Davis(Videos[Video[Tensor]]):
    """Video object segmentation; targets are bool masks (H, W), true on any object.

    Reads `JPEGImages/480p/<sequence>/*.jpg` with `Annotations/480p/<sequence>/*.png`: masks of
    0 and 255 (2016), or of one number an object (2017).

    A frame that cannot be read is skipped (`Sample.gap`); one whose mask is missing, broken or of
    another size has the target None. All are reported.

    Args:
        root: The folder that holds `JPEGImages` and `Annotations`.
        sequences: The sequences to take, in this order; None for all, by name.
        size: (height, width), or the side of a square, that frames and masks are brought to; None
            for their own.
        resolution: The folder below `JPEGImages`.
        strict: Raise at the first problem instead of counting it.

    Raises:
        FileNotFoundError: If a folder is not there.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for part, name in (("JPEGImages", "0.jpg"), ("Annotations", "0.png")):
        ...         Path(root, part, "480p/camel").mkdir(parents=True)
        ...         Image.new("L", (7, 5)).save(f"{root}/{part}/480p/camel/{name}")
        ...     for video in Davis(root):
        ...         for frame in video:
        ...             print(video.id, frame.image.shape, frame.target.shape, frame.target.any())
        camel torch.Size([3, 5, 7]) torch.Size([5, 7]) tensor(False)
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        sequences: Sequence[str] | None = None,
        *,
        size: int | tuple[int, int] | None = None,
        resolution: str = "480p",
        strict: bool = False,
    ) -> None:
        super().__init__(strict)
        self.root = Path(root)
        self.size = target_size(size)
        self._images = self._part(f"JPEGImages/{resolution}", "frames")
        self._masks = self._part(f"Annotations/{resolution}", "masks")
        if sequences is None:
            sequences = [folder.name for folder in subfolders(self._images)]
        self.sequences = tuple(sequences)
        for name in self.sequences:
            located(self._images, [name], f"the frames of {name}", PAGE)
            located(self._masks, [name], f"the masks of {name}", PAGE)

    def _part(self, place: str, what: str) -> Path:
        return located(self.root, [place, f"DAVIS/{place}"], f"the {what} of DAVIS", PAGE)

    def _list(self) -> list[Video[Tensor]]:
        return [self._video(name) for name in self.sequences]

    def _video(self, name: str) -> Video[Tensor]:
        frames = numbered(self._images / name, SUFFIXES, self.problems)
        return Video(name, frames, self._read)

    def _read(self, number: int, path: Path) -> Sample[Tensor] | None:
        image = read_rgb(path, self.problems)
        if image is None:
            return None
        original = (image.height, image.width)
        size = self.size or original
        target = self._mask(path, original, size)
        return Sample(to_tensor(resized(image, size)), target, number, size, original)

    def _mask(self, path: Path, original: tuple[int, int], size: tuple[int, int]) -> Tensor | None:
        path = (self._masks / path.relative_to(self._images)).with_suffix(".png")
        mask = read_plain(path, self.problems)
        if mask is None:
            return None
        if mask.shape != original:
            self.problems.report("annotation", path, other_size(mask.shape, original))
            return None
        return torch.from_numpy(resized_mask(mask != 0, size).copy())
