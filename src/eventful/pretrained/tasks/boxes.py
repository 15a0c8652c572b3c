"""Detection: average precision of boxes, the dense model's being the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from eventful.pretrained.pictures import boxed
from eventful.pretrained.tasks.task import Scores, Shown, Task, field

_MOST = 100  # boxes of a frame, as in COCO


class Found(NamedTuple):
    """Boxes of one frame, the most certain first.

    Attributes:
        boxes: (boxes, 4) x0, y0, x1, y1 in pixels of the frame as the model takes it.
        scores: (boxes,).
        labels: (boxes,) int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@final
class Boxes(Task):
    """Boxes against the dense model's: COCO's average precision.

    The dense model's boxes from `threshold` on are the truth, and all of the eventful model's are
    judged, so that two equal outputs score 1.

    Example:
        >>> there = torch.tensor([[0.0, 0.0, 40.0, 40.0], [50.0, 0.0, 90.0, 40.0]])
        >>> dense = Found(there, torch.tensor([0.9, 0.8]), torch.tensor([0, 0]))
        >>> ours = Found(there[:1], torch.tensor([0.7]), torch.tensor([0]))
        >>> scores = Boxes(None, 0.3).scores([(dense, ours)])
        >>> {name: round(value, 3) for name, value in scores.items()}
        {'map50': 0.505, 'map': 0.505}
    """

    name = "detect"
    autos = ("AutoModelForObjectDetection", "AutoModelForZeroShotObjectDetection")
    measures: ClassVar[Mapping[str, str]] = {
        "map50": "average precision at an overlap of 0.5, dense boxes being the truth; 1 is best",
        "map": "the same, averaged over overlaps of 0.5 to 0.95",
    }

    def read(self, shown: Shown, size: tuple[int, int]) -> Found:
        """The boxes as the model's own processor makes them.

        Raises:
            ValueError: It makes none.
        """
        field(shown.output, "pred_boxes")
        if not hasattr(self.processor, "post_process_object_detection"):
            raise ValueError(
                f"a {type(self.processor).__name__} makes no boxes of a model's output; save the "
                f"detector's own image processor beside it"
            )
        made: Any = self.processor.post_process_object_detection(
            shown.output, threshold=0.0, target_sizes=torch.tensor([size])
        )[0]
        best = made["scores"].float().argsort(descending=True)[:_MOST]
        parts = (made[name][best].detach().cpu() for name in ("boxes", "scores", "labels"))
        boxes, scores, labels = parts
        return Found(boxes.float(), scores.float(), labels.long())

    def differ(self, dense: Found, ours: Found) -> tuple[Found, Found]:
        """Both, since average precision is one of all frames together."""
        return dense, ours

    def scores(self, frames: Sequence[tuple[Found, Found]]) -> Scores:
        """Average precision over the frames; None where the dense model finds nothing."""
        truths = [self._sure(dense) for dense, _ in frames]
        if not any(len(truth["boxes"]) for truth in truths):
            return dict.fromkeys(self.measures)
        metric = _metric()
        metric.update([ours._asdict() for _, ours in frames], truths)
        found = metric.compute()
        return {"map50": float(found["map_50"]), "map": float(found["map"])}

    def _sure(self, found: Found) -> dict[str, Tensor]:
        sure = found.scores >= self.threshold
        return {"boxes": found.boxes[sure], "labels": found.labels[sure]}

    def draw(self, picture: np.ndarray, read: Found) -> np.ndarray:
        """The boxes from the threshold on."""
        sure = read.scores >= self.threshold
        return boxed(picture, read.boxes[sure].tolist(), read.labels[sure].tolist())


def _metric() -> Any:
    try:
        import pycocotools as _pycocotools  # noqa: F401, PLC0415 - optional libraries
        from torchmetrics.detection import MeanAveragePrecision  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"average precision needs {error.name}; pip install 'eventful-transformers[eval]'",
            name=error.name,
        ) from error
    return MeanAveragePrecision(backend="pycocotools")
