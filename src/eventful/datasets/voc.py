"""The annotations of ImageNet VID: XML in the manner of PASCAL VOC, one file a frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import torch
from torch import Tensor

from eventful.datasets.problems import Problems

# In the order of the names, which is the order of the labels of detectors trained on it.
VID_CLASSES = {
    "n02691156": "airplane",
    "n02419796": "antelope",
    "n02131653": "bear",
    "n02834778": "bicycle",
    "n01503061": "bird",
    "n02924116": "bus",
    "n02958343": "car",
    "n02402425": "cattle",
    "n02084071": "dog",
    "n02121808": "domestic_cat",
    "n02503517": "elephant",
    "n02118333": "fox",
    "n02510455": "giant_panda",
    "n02342885": "hamster",
    "n02374451": "horse",
    "n02129165": "lion",
    "n01674464": "lizard",
    "n02484322": "monkey",
    "n03790512": "motorcycle",
    "n02324045": "rabbit",
    "n02509815": "red_panda",
    "n02411705": "sheep",
    "n01726692": "snake",
    "n02355227": "squirrel",
    "n02129604": "tiger",
    "n04468005": "train",
    "n01662784": "turtle",
    "n04530566": "watercraft",
    "n02062744": "whale",
    "n02391049": "zebra",
}
_LABELS = {wordnet: label for label, wordnet in enumerate(VID_CLASSES)}
_SIDES = ("xmin", "ymin", "xmax", "ymax")

Thing = tuple[list[float], int, int]  # box, label, track


@dataclass(frozen=True, eq=False)
class Boxes:
    """The objects of one frame.

    The files' numbers are taken as they stand, as edges in pixels from the left and the top: none
    is moved by one. (PASCAL VOC counts pixels from 1; VID's boxes start at 0, which this agrees
    with. Who wants inclusive ends adds one to `xmax` and `ymax` before scaling.)

    Attributes:
        boxes: float32 (n, 4): xmin, ymin, xmax, ymax.
        labels: int64 (n,): position in `VID_CLASSES`, from 0.
        tracks: int64 (n,): the object's number within the video, -1 where the file has none.

    Example:
        >>> none = Boxes.of([])
        >>> none.boxes.shape, none.labels.shape
        (torch.Size([0, 4]), torch.Size([0]))
    """

    boxes: Tensor
    labels: Tensor
    tracks: Tensor

    @classmethod
    def of(cls, things: list[Thing]) -> Boxes:
        """Stacks (box, label, track) triples."""
        boxes = torch.tensor([box for box, _, _ in things], dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([label for _, label, _ in things], dtype=torch.int64)
        return cls(boxes, labels, torch.tensor([track for *_, track in things], dtype=torch.int64))

    def resized(self, before: tuple[int, int], after: tuple[int, int]) -> Boxes:
        """Brings the boxes from a frame of (height, width) `before` to one of `after`.

        Example:
            >>> Boxes.of([([10, 20, 30, 60], 0, 0)]).resized((100, 200), (50, 50)).boxes.tolist()
            [[2.5, 10.0, 7.5, 30.0]]
        """
        across, down = after[1] / before[1], after[0] / before[0]
        scaled = self.boxes * torch.tensor([across, down, across, down])
        return Boxes(scaled, self.labels, self.tracks)


def read_boxes(path: Path, frame: tuple[int, int], problems: Problems) -> Boxes | None:
    """Reads the annotation of a frame of (height, width) `frame`.

    Objects that cannot be used are reported and left out.

    Returns:
        The boxes in the frame's own pixels, None if the file is missing, broken or made for a
        frame of another size, which is reported.
    """
    root = _parsed(path, problems)
    if root is None:
        return None
    declared = tuple(_declared(root, side) for side in ("height", "width"))
    if 0 not in declared and declared != frame:
        reason = (
            f"it is for {declared[1]} x {declared[0]} pixels, its frame has {frame[1]} x {frame[0]}"
        )
        problems.report("annotation", path, f"{reason}; the frame has no target")
        return None
    return Boxes.of(list(_things(root, frame, path, problems)))


def _parsed(path: Path, problems: Problems) -> Element | None:
    if not path.exists():
        problems.report("missing", path, "there is no such annotation; its frame has no target")
        return None
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        problems.report("annotation", path, f"broken XML, {error}; its frame has no target")
        return None


def _declared(root: Element, side: str) -> int:
    """What the file says of its frame's size, 0 where it says nothing."""
    text = (root.findtext(f"size/{side}") or "").strip()
    return int(text) if text.isdecimal() else 0


def _things(
    root: Element, frame: tuple[int, int], path: Path, problems: Problems
) -> Iterator[Thing]:
    for position, node in enumerate(root.findall("object"), 1):
        try:
            yield _thing(node, frame)
        except ValueError as error:
            problems.report("box", path, f"object {position}: {error}; it is left out")


def _thing(node: Element, frame: tuple[int, int]) -> Thing:
    name = (node.findtext("name") or "").strip()
    if name not in _LABELS:
        raise ValueError(f"its class {name!r} is none of the 30 WordNet ids of VID")
    left, top, right, bottom = box = [_side(node, side) for side in _SIDES]
    if not (right > left and bottom > top):
        raise ValueError(f"its box {box} has no area")
    if left >= frame[1] or top >= frame[0] or right <= 0 or bottom <= 0:
        raise ValueError(f"its box {box} lies outside the {frame[1]} x {frame[0]} pixels")
    track = (node.findtext("trackid") or "").strip()
    return box, _LABELS[name], int(track) if track.isdecimal() else -1


def _side(node: Element, side: str) -> float:
    text = node.findtext(f"bndbox/{side}")
    if text is None:
        raise ValueError(f"its box has no {side}")
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"its {side} {text!r} is no number") from error
