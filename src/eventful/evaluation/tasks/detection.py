"""Object detection on ImageNet VID, scored by mean average precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from eventful.datasets import Boxes, ImageNetVID, Sample, Video
from eventful.evaluation.measures.boxes import MeanAveragePrecision
from eventful.evaluation.runners.frames import Runner
from eventful.evaluation.scores import Arrays, Scores
from eventful.evaluation.settings import Setting
from eventful.evaluation.task import Task
from eventful.models.vitdet import Detections, ViTDet

_PATCH = 16
Scored = tuple[Detections, Boxes]


@final
class DetectionTask(Task[Video[Boxes]]):
    """ViTDet on ImageNet VID: mAP50, as the paper reports it, and mAP over overlaps 0.5 to 0.95.

    The state is reset before each video of the data set, which is one run of frames without a gap
    in their numbers. Frames without objects count; one whose annotation cannot be used serves the
    state alone. Behind an unreadable frame the state goes on. Boxes are clipped to the picture
    without its padding. Counted and timed is `ViTDet.features`, the heads are neither.

    Args:
        model: The detector, dense.
        data: The videos.
        frames: Take so many frames of each video at most.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from eventful import TopR
        >>> from eventful.models.vitdet import (
        ...     RPN, BoxHead, BoxHeads, SimplePyramid, ViTDetBackbone)
        >>> backbone = ViTDetBackbone(64, embed_dim=12, depth=2, num_heads=3, global_blocks=(1,))
        >>> heads = BoxHeads([BoxHead(30, channels=8, hidden=16)])
        >>> model = ViTDet(backbone, SimplePyramid(12, 8), RPN(8, keep=9), heads).eval()
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for part in ("Data", "Annotations"):
        ...         Path(root, part, "VID/val/street").mkdir(parents=True)
        ...     for number in range(3):
        ...         Image.new("RGB", (40, 20)).save(f"{root}/Data/VID/val/street/{number}.JPEG")
        ...         xml = Path(root, f"Annotations/VID/val/street/{number}.xml")
        ...         _ = xml.write_text("<annotation></annotation>")
        ...     task = DetectionTask(model, ImageNetVID(root, size=64))
        ...     runner = task.runner(Setting("incremental", TopR(4)))
        ...     found, _ = task.run(runner, task.data[0])
        >>> len(runner.steps), task.score([found])
        (3, {'mAP50': None, 'mAP': None})
    """

    name = "vid"
    per = "frame"
    measures = ("mAP50", "mAP")

    def __init__(self, model: ViTDet, data: ImageNetVID, frames: int | None = None) -> None:
        self.model = self._detector = model
        self.data = self._videos = data
        self.frames = frames
        self.tokens = (data.size // _PATCH) ** 2
        self.paper = ("vitdet_b_vid", data.size)
        if data.size % _PATCH:
            raise ValueError(f"--size must be a multiple of {_PATCH} for ViTDet, got {data.size}")

    def identity(self) -> dict[str, Any]:
        """Root, split, size, frames of a video."""
        root, split = str(self._videos.root.resolve()), self._videos.split
        return {"root": root, "split": split, "size": self._videos.size, "frames": self.frames}

    def runner(self, setting: Setting) -> Runner:
        """On `ViTDet.features`."""
        setting.check_at_once()
        return Runner(self.model, setting, "features")

    def run(self, runner: Runner, video: Video[Boxes]) -> tuple[dict[str, np.ndarray], int]:
        """Detect on every frame; keep what was found and what is there on frames with a target."""
        runner.start()
        scored: list[Scored] = []
        for frame in islice(video, self.frames):
            found = self._detect(runner, frame)
            if frame.target is not None:
                scored.append((found, frame.target))
        return (_packed(scored) if runner.steps else {}), 0

    def _detect(self, runner: Runner, frame: Sample[Boxes]) -> Detections:
        features = runner(frame.image[None])
        return self._detector.detect(features, [frame.size])[0]

    def score(self, found: Iterable[Arrays]) -> Scores:
        """Average precision over all scored frames, mean over the classes that occur."""
        metric = MeanAveragePrecision(backend="pycocotools")
        for arrays in found:
            for detections, truth in _frames(arrays):
                metric.update([detections], [truth])
        if not metric.groundtruth_labels:
            return dict.fromkeys(self.measures)
        scores = metric.compute()
        return {name: _percent(scores[key]) for name, key in (("mAP50", "map_50"), ("mAP", "map"))}

    def describe(self, found: Arrays) -> dict[str, int | None]:
        """Scored frames, objects on them and detections."""
        if not found:
            return {"scored": 0, "objects": 0, "detections": 0}
        objects, detections = found["true_labels"], found["labels"]
        counts = len(found["counts"]), len(objects), len(detections)
        return dict(zip(("scored", "objects", "detections"), counts, strict=True))


def _packed(scored: Sequence[Scored]) -> dict[str, np.ndarray]:
    """All frames in a row, with the number of detections and of objects on each."""
    found, true = [pair[0] for pair in scored], [pair[1] for pair in scored]
    return {
        "boxes": _joined([one.boxes for one in found], (0, 4), np.float32),
        "scores": _joined([one.scores for one in found], (0,), np.float32),
        "labels": _joined([one.labels for one in found], (0,), np.int16),
        "counts": np.array([len(one) for one in found], np.int32),
        "true_boxes": _joined([one.boxes for one in true], (0, 4), np.float32),
        "true_labels": _joined([one.labels for one in true], (0,), np.int16),
        "true_counts": np.array([len(one.labels) for one in true], np.int32),
    }


def _joined(parts: Sequence[Tensor], empty: tuple[int, ...], dtype: Any) -> np.ndarray:
    arrays = [part.detach().float().cpu().numpy() for part in parts]
    return np.concatenate([np.empty(empty), *arrays]).astype(dtype)


def _frames(found: Arrays) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """What was found and what is there, frame by frame, as torchmetrics takes it."""
    if not found or not len(found["counts"]):
        return
    ends, true_ends = np.cumsum(found["counts"])[:-1], np.cumsum(found["true_counts"])[:-1]
    columns = [np.split(found[name], ends) for name in ("boxes", "scores", "labels")]
    columns += [np.split(found[name], true_ends) for name in ("true_boxes", "true_labels")]
    for row in zip(*columns, strict=True):
        boxes, scores, labels, true_boxes, true_labels = map(torch.from_numpy, row)
        detections = {"boxes": boxes, "scores": scores, "labels": labels.long()}
        yield detections, {"boxes": true_boxes, "labels": true_labels.long()}


def _percent(value: Tensor) -> float | None:
    """It is -1 for torchmetrics -1 where no object of any class is there."""
    return None if value < 0 else 100 * float(value)
