"""What a detector finds in an image, and which of its boxes are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from eventful.models.vitdet.boxes import Size, check_size, clip, has_area
from eventful.models.vitdet.torchvision_parts import batched_nms


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one image, the most certain first.

    Args:
        boxes: x0, y0, x1, y1 in pixels, (n, 4).
        scores: (n,) in [0, 1].
        labels: (n,) int64, the class from 0 on.
        masks: How likely each point of the box belongs to the object, (n, 28, 28) in [0, 1];
            `paste_masks` puts them into the image. None where the model has no mask head.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
        >>> found = Detections(boxes, torch.tensor([0.9]), torch.tensor([3]))
        >>> len(found), found.scaled((100, 100), (50, 200)).boxes.tolist()
        (1, [[20.0, 10.0, 60.0, 30.0]])
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Tensor) -> Detections:
        """Choose some of them by a mask or by their numbers."""
        masks = None if self.masks is None else self.masks[index]
        return Detections(self.boxes[index], self.scores[index], self.labels[index], masks)

    def scaled(self, from_size: Size, to_size: Size) -> Detections:
        """Bring the boxes from one size of the image to another, such as the original's.

        As in Detectron2 they are clipped to the image, and those without an area are left out.

        Args:
            from_size: Height and width that the boxes refer to, without padding.
            to_size: Height and width that they are to refer to.

        Raises:
            ValueError: One of these is not positive.
        """
        check_size(from_size, "from_size")
        check_size(to_size, "to_size")
        y, x = (to / came for to, came in zip(to_size, from_size, strict=True))
        boxes = clip(self.boxes * self.boxes.new_tensor([x, y, x, y]), to_size)
        return replace(self, boxes=boxes)[has_area(boxes)]


def select(
    boxes: Tensor,
    scores: Tensor,
    size: Size,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    keep: int = 100,
) -> Detections:
    """Choose the detections of one image, as Detectron2's Fast R-CNN does at test time.

    Every class of every box whose score is above the threshold counts; of boxes of one class that
    overlap, the best stays.

    Args:
        boxes: (n, classes, 4), or (n, 1, 4) where all classes share a box. Those that are not
            finite are left out.
        scores: (n, classes + 1), the background last.
        size: Height and width of the image; boxes are clipped to it.
        score_threshold: The score that a detection is above.
        nms_threshold: Overlap (intersection over union) above which the worse box goes.
        keep: The largest number of detections.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0]], [[0.0, 0.0, 10.0, 9.0]]])
        >>> scores = torch.tensor([[0.6, 0.1, 0.3], [0.7, 0.02, 0.28]])
        >>> found = select(boxes, scores, (20, 20))
        >>> found.labels, found.scores
        (tensor([0, 1]), tensor([0.7000, 0.1000]))
    """
    finite = boxes.isfinite().flatten(1).all(dim=1) & scores.isfinite().all(dim=1)
    boxes, scores = clip(boxes[finite], size), scores[finite, :-1]
    box, label = (scores > score_threshold).nonzero(as_tuple=True)
    scores = scores[box, label]
    boxes = boxes[box, label if boxes.shape[1] > 1 else 0]
    best = batched_nms(boxes, scores, label, nms_threshold)[:keep]
    return Detections(boxes[best], scores[best], label[best])
