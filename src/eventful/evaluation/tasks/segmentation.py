"""Segmentation on DAVIS sequences that the head has not seen, on tokens of a frozen backbone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from eventful.datasets import Davis, Sample, Video
from eventful.evaluation.measures.masks import boundary_f, region_j, statistics
from eventful.evaluation.measures.patches import Size
from eventful.evaluation.runners.tokens import Models
from eventful.evaluation.scores import Arrays, Scores
from eventful.evaluation.tasks.pictures import tinted
from eventful.evaluation.tasks.token_task import TokenTask
from eventful.models.segmentation import SegmentationHead, segmentation_head
from eventful.stream.snapshots import digest

UNSEEN = ("camel", "dance-twirl", "drift-straight", "parkour")


def unseen(data: Davis) -> Davis:
    """The sequences that the head is not trained on.

    Args:
        data: DAVIS with whatever sequences there are.

    Raises:
        FileNotFoundError: None of them is there.
    """
    names = [name for name in data.sequences if name in UNSEEN]
    if not names:
        raise FileNotFoundError(
            f"expected one of the sequences {', '.join(UNSEEN)} in {data.root}, which the head of "
            f"davis-segmentation has not seen; found {', '.join(data.sequences) or 'none'}"
        )
    return Davis(data.root, names, strict=data.problems.strict)


@final
class DavisSegmentation(TokenTask[Video[Tensor]]):
    """A head's masks on the sequences of DAVIS that it has not seen, frame by frame.

    Region J (mean and recall) and boundary F (mean) at the masks' own size, over all frames, first
    and last included, since no frame's mask is given; then the mean over the videos. The head runs
    on every frame with a mask and is not counted.

    Args:
        models: The model for each input size.
        data: The sequences, see `unseen`.
        folder: Where dense tokens are kept.
        size: The long side in pixels; 518 unless it is given.
        frames: Frames of a video at most.
        head: Another head than the packaged one.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from eventful.evaluation import combined, evaluate
        >>> from eventful.models.saliency import saliency_vit
        >>> root = Path(tempfile.mkdtemp())
        >>> for part, kind in (("JPEGImages", "jpg"), ("Annotations", "png")):
        ...     folder = root / part / "480p" / "camel"
        ...     folder.mkdir(parents=True)
        ...     for number in range(3):
        ...         pixels = np.zeros((20, 30), np.uint8)
        ...         pixels[4:12, 4:16] = 255
        ...         Image.fromarray(pixels).save(folder / f"{number:05d}.{kind}")
        >>> task = DavisSegmentation(Models(saliency_vit), unseen(Davis(root)), root / "dense", 42)
        >>> found, _ = evaluate(task, combined(["dense"], ["skip:2"]), root / "out").settings
        >>> list(found.scores), found.videos[0]["scored"]
        (['j_mean', 'j_recall', 'f_mean'], 3)
    """

    name = "davis-segmentation"
    measures = ("j_mean", "j_recall", "f_mean")

    def __init__(
        self,
        models: Models,
        data: Davis,
        folder: Path,
        size: int | None = None,
        frames: int | None = None,
        head: SegmentationHead | None = None,
    ) -> None:
        super().__init__(models, data, folder, size, frames)
        device = next(self.model.parameters()).device
        self.head = (segmentation_head() if head is None else head.eval()).to(device)

    def identity(self) -> dict[str, Any]:
        """Also the weights of the head."""
        return {**super().identity(), "head": digest(self.head.state_dict().values())}

    def judge(self, video: Video[Tensor], shape: Size) -> _Masks:
        """Compares masks."""
        return _Masks(self.head, self.grid(shape))

    def quality(self, found: Arrays) -> Scores:
        """J and F, in percent."""
        j, f = (statistics(found[name]) for name in ("j", "f"))
        if j is None or f is None:
            return dict.fromkeys(self.measures)
        values = (j.mean, j.recall, f.mean)
        return {name: 100 * value for name, value in zip(self.measures, values, strict=True)}


@dataclass
class _Masks:
    """The masks of one video, and how well they fit."""

    head: SegmentationHead
    grid: Size
    scores: list[tuple[float, float]] = field(default_factory=list)

    def see(self, number: int, tokens: Tensor, sample: Sample[Tensor]) -> None:
        """Compare the mask of a frame that has one."""
        if sample.target is None:
            return
        height, width = sample.target.shape
        found, there = self._mask(tokens, (height, width)).numpy(), sample.target.numpy()
        self.scores.append((region_j(found, there), boundary_f(found, there)))

    def picture(self, tokens: Tensor, sample: Sample[Tensor]) -> Tensor:
        """The mask over the frame."""
        height, width = sample.image.shape[1:]
        return tinted(sample.image, self._mask(tokens, (height, width)))

    def _mask(self, tokens: Tensor, shape: Size) -> Tensor:
        """Where objects are likely, bool at a size (H, W)."""
        device = next(self.head.parameters()).device
        logits = self.head(tokens[None].to(device), self.grid)
        return F.interpolate(logits, shape, mode="bilinear")[0, 0].cpu() > 0

    def found(self) -> dict[str, np.ndarray]:
        """J and F of the scored frames."""
        values = np.array(self.scores, np.float64).reshape(-1, 2)
        return {"j": values[:, 0], "f": values[:, 1], "scored": np.array(len(values))}
