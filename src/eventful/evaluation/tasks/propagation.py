"""Mask propagation on DAVIS with frozen features: do the tokens still correspond?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from torch import Tensor

from eventful.datasets import Sample, Video
from eventful.evaluation.measures.labels import Carrying, Labels, mask_of
from eventful.evaluation.measures.masks import boundary_f, region_j, statistics
from eventful.evaluation.measures.patches import Size, share
from eventful.evaluation.scores import Arrays, Scores
from eventful.evaluation.tasks.pictures import tinted
from eventful.evaluation.tasks.token_task import TokenTask


@final
class DavisPropagation(TokenTask[Video[Tensor]]):
    """The mask of the first frame is carried through the video along the patch tokens.

    Scores are those of DAVIS: region J (mean, recall, decay) and boundary F (mean), at the masks'
    own size, over all frames but the first and the last; then the mean over the videos. A video
    whose first mask is missing, or of less than three frames, has no score.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from eventful.datasets import Davis
        >>> from eventful.evaluation import Setting
        >>> from eventful.evaluation.runners.tokens import Models
        >>> from eventful.models.saliency import saliency_vit
        >>> root = Path(tempfile.mkdtemp())
        >>> for part, kind in (("JPEGImages", "jpg"), ("Annotations", "png")):
        ...     folder = root / part / "480p" / "camel"
        ...     folder.mkdir(parents=True)
        ...     for number in range(4):
        ...         pixels = np.zeros((20, 30), np.uint8)
        ...         pixels[4:12, 4:16] = 255
        ...         Image.fromarray(pixels).save(folder / f"{number:05d}.{kind}")
        >>> task = DavisPropagation(Models(saliency_vit), Davis(root), root / "dense", size=210)
        >>> found, _ = task.run(task.runner(Setting("dense", None)), task.data[0])
        >>> task.quality(found)["j_recall"], int(found["scored"])
        (100.0, 2)
    """

    name = "davis-propagation"
    measures = ("j_mean", "j_recall", "j_decay", "f_mean")
    carrying = Carrying()

    def judge(self, video: Video[Tensor], shape: Size) -> _Propagation:
        """Carries the mask."""
        return _Propagation(self.grid(shape), self.carrying)

    def quality(self, found: Arrays) -> Scores:
        """J and F, in percent."""
        j, f = (statistics(found[name]) for name in ("j", "f"))
        if j is None or f is None:
            return dict.fromkeys(self.measures)
        values = (j.mean, j.recall, j.decay, f.mean)
        return {name: 100 * value for name, value in zip(self.measures, values, strict=True)}


@dataclass
class _Propagation:
    """One video: the labels, and how well they fitted."""

    grid: Size
    carrying: Carrying
    labels: Labels | None = None
    scores: list[tuple[int, float, float]] = field(default_factory=list)
    last: int = 0
    label: Tensor | None = None

    def see(self, number: int, tokens: Tensor, sample: Sample[Any]) -> None:
        """Take the first mask, or compare the mask of a later frame."""
        self.last = number
        if number == 0 and sample.target is not None:
            self.label = share(sample.target, self.grid).flatten()
            self.labels = Labels(self.grid, tokens, self.label, self.carrying)
        elif self.labels is not None:
            self.label = self.labels(tokens)
            if sample.target is not None:
                self._score(number, self.label, sample.target)

    def picture(self, tokens: Tensor, sample: Sample[Any]) -> Tensor:
        """The mask over the frame; the frame alone where there is none."""
        if self.label is None:
            return sample.image
        shape = sample.image.shape[1], sample.image.shape[2]
        return tinted(sample.image, mask_of(self.label, self.grid, shape))

    def _score(self, number: int, label: Tensor, truth: Tensor) -> None:
        shape = truth.shape[0], truth.shape[1]
        found, there = mask_of(label, self.grid, shape).numpy(), truth.numpy()
        self.scores.append((number, region_j(found, there), boundary_f(found, there)))

    def found(self) -> dict[str, np.ndarray]:
        """J and F of the scored frames; the last frame is left out, as DAVIS does."""
        kept = [(j, f) for number, j, f in self.scores if number < self.last]
        values = np.array(kept, np.float64).reshape(-1, 2)
        return {"j": values[:, 0], "f": values[:, 1], "scored": np.array(len(kept))}
