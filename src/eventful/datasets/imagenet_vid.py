"""ImageNet VID, as ILSVRC 2015 distributes it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import final

from eventful.datasets.frames import Sample, Video, Videos
from eventful.datasets.images import padded, read_rgb, resized, shortest_edge, to_tensor
from eventful.datasets.layout import chosen, consecutive, located, numbered, positive, subfolders
from eventful.datasets.voc import Boxes, read_boxes

PAGE = "image-net.org (ILSVRC2015, object detection from video: VID)"
SUFFIXES = (".jpeg", ".jpg")

# Mean of ImageNet: zero once it is normalised, which is what the paper pads with.
MEAN = (0.485, 0.456, 0.406)


@final
class ImageNetVID(Videos[Video[Boxes]]):
    """Object detection in video, 30 classes (`VID_CLASSES`).

    Reads `Data/VID/val/<video>/<frame>.JPEG` with `Annotations/VID/val/<video>/<frame>.xml`, and
    `train/<part>/<video>` likewise; every frame that is there, those without objects too. A video
    is split at every gap in its frame numbers, as in the paper: each run of frames is a `Video` of
    its own, named `<video>@<first frame>` where there are several.

    Frames are resized (short side 640/1024 of `size`, long side at most `size`) and padded below
    and to the right to `size` x `size`; boxes are scaled alike. Construction lists folders; frames
    are listed at the first use and read on iteration.

    A frame that cannot be read is skipped (`Sample.gap`), one without a usable annotation has the
    target None, an unusable object is left out: all are reported.

    Args:
        root: The folder that holds `Data` and `Annotations`, or that holds `ILSVRC2015`.
        split: "val" or "train".
        size: Side of the square images, 1024 or 672 in the paper.
        fill: Colour of the padding, RGB in [0, 1]; the default is zero after normalisation.
        strict: Raise at the first problem instead of counting it.

    Raises:
        FileNotFoundError: If frames or annotations of the split are not there.
        ValueError: If `split` is another word.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for part in ("Data", "Annotations"):
        ...         Path(root, part, "VID/val/street").mkdir(parents=True)
        ...     Image.new("RGB", (40, 20)).save(f"{root}/Data/VID/val/street/000000.JPEG")
        ...     box = "<xmin>4</xmin><ymin>2</ymin><xmax>14</xmax><ymax>20</ymax>"
        ...     thing = f"<object><name>n02084071</name><bndbox>{box}</bndbox></object>"
        ...     xml = Path(root, "Annotations/VID/val/street/000000.xml")
        ...     _ = xml.write_text(f"<annotation>{thing}</annotation>")
        ...     for video in ImageNetVID(root, size=80):
        ...         for frame in video:
        ...             print(video.id, frame.number, tuple(frame.image.shape), frame.size)
        ...             print(frame.target.boxes.tolist(), frame.target.labels.tolist())
        street 0 (3, 80, 80) (40, 80)
        [[8.0, 4.0, 28.0, 40.0]] [8]
    """

    classes = 30

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "val",
        size: int = 1024,
        *,
        fill: Sequence[float] = MEAN,
        strict: bool = False,
    ) -> None:
        super().__init__(strict)
        self.root = Path(root)
        self.split = chosen("split", split, ("train", "val"))
        self.size = positive("size", size)
        self.fill = tuple(fill)
        self._data = self._part("Data", "frames")
        self._annotations = self._part("Annotations", "annotations")
        self._folders = [folder for folder in self._video_folders() if self._annotated(folder)]

    def _part(self, part: str, what: str) -> Path:
        place = f"{part}/VID/{self.split}"
        places = [place, f"ILSVRC2015/{place}", f"ILSVRC/{place}"]
        return located(self.root, places, f"the {what} of ImageNet VID ({self.split})", PAGE)

    def _video_folders(self) -> list[Path]:
        folders = subfolders(self._data)
        if self.split == "train":
            folders = [video for part in folders for video in subfolders(part)]
        if not folders:
            raise FileNotFoundError(
                f"expected one folder a video in {self._data}; there is none. Get them from {PAGE}"
            )
        return folders

    def _annotated(self, folder: Path) -> bool:
        place = self._annotations / folder.relative_to(self._data)
        if not place.is_dir():
            reason = f"there is no such folder, so {folder} is left out; get it from {PAGE}"
            self.problems.report("missing", place, reason)
        return place.is_dir()

    def _list(self) -> list[Video[Boxes]]:
        return [video for folder in self._folders for video in self._segments(folder)]

    def _segments(self, folder: Path) -> list[Video[Boxes]]:
        runs = consecutive(numbered(folder, SUFFIXES, self.problems))
        name = folder.relative_to(self._data).as_posix()
        if not runs:
            self.problems.report("missing", folder, "it holds no frames; the video is left out")
        ids = [name] if len(runs) == 1 else [f"{name}@{run[0][0]:06d}" for run in runs]
        return [Video(id, run, self._read) for id, run in zip(ids, runs, strict=True)]

    def _read(self, number: int, path: Path) -> Sample[Boxes] | None:
        image = read_rgb(path, self.problems)
        if image is None:
            return None
        original = (image.height, image.width)
        size = shortest_edge(*original, self.size)
        picture = padded(to_tensor(resized(image, size)), self.size, self.fill)
        xml = (self._annotations / path.relative_to(self._data)).with_suffix(".xml")
        target = read_boxes(xml, original, self.problems)
        target = None if target is None else target.resized(original, size)
        return Sample(picture, target, number, size, original)
