"""Saliency on annotated video: do the maps find what moves?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from eventful.datasets import CDnet, Motion, Sample, Video
from eventful.evaluation.measures.maps import MapCounts, map_scores
from eventful.evaluation.measures.patches import Size
from eventful.evaluation.runners.tokens import Models
from eventful.evaluation.scores import Arrays, Scores
from eventful.evaluation.tasks.pictures import tinted
from eventful.evaluation.tasks.token_task import TokenTask

EVERY = 4
WARM_UP = 8


class SaliencyTask(TokenTask[Any]):
    """The decoder's maps against masks, pixel by pixel at the masks' own size.

    Pixels of all scored frames of a video are taken together. Scores: AUC (area under the ROC
    curve), maximal F-beta (beta^2 = 0.3, over 256 thresholds) and MAE, the mean absolute
    difference between map and mask. The decoder runs on scored frames alone and is not counted.

    Example: see `DavisSaliency`.
    """

    measures = ("auc", "f_beta", "mae")
    every: int

    def judge(self, video: Any, shape: Size) -> _Maps:
        """Compares maps with what is known of the objects."""
        return _Maps(self, self.grid(shape), self.models(self.input_size(shape)).decoder)

    def scored(self, target: Any) -> tuple[Tensor, Tensor | None]:
        """A target's mask (H, W), and where it counts (None: everywhere)."""
        return target, None

    def quality(self, found: Arrays) -> Scores:
        """The three scores, in percent."""
        return {
            name: None if value is None else 100 * value
            for name, value in map_scores(found)._asdict().items()
        }


@dataclass
class _Maps:
    """Counts over the maps of one video."""

    task: SaliencyTask
    grid: Size
    decoder: Any
    counts: MapCounts = field(default_factory=MapCounts)
    frames: int = 0

    def see(self, number: int, tokens: Tensor, sample: Sample[Any]) -> None:
        """Make the map of a frame that is scored."""
        if sample.target is None or number % self.task.every:
            return
        mask, where = self.task.scored(sample.target)
        values = self._map(tokens, mask.shape)
        inside = slice(None) if where is None else where
        self.counts.add(values[inside], mask[inside])
        self.frames += 1

    def found(self) -> dict[str, np.ndarray]:
        """The counts."""
        return {**self.counts.arrays(), "scored": np.array(self.frames)}

    def picture(self, tokens: Tensor, sample: Sample[Any]) -> Tensor:
        """The map over the frame, from its least value to its greatest."""
        values = self._map(tokens, sample.image.shape[1:])
        least, greatest = values.aminmax()
        return tinted(sample.image, (values - least) / (greatest - least).clamp(min=1e-6))

    def _map(self, tokens: Tensor, shape: Any) -> Tensor:
        """Saliency at a size (H, W)."""
        device = next(self.decoder.parameters()).device
        return _at(self.decoder(tokens[None].to(device), self.grid), shape).cpu()


def _at(values: Tensor, shape: Any) -> Tensor:
    """A map (1, 1, h, w) at the size (H, W) of its mask."""
    if tuple(values.shape[2:]) != tuple(shape):
        values = F.interpolate(values, tuple(shape), mode="bilinear", antialias=True)
    return values[0, 0].clamp(0, 1)


@final
class DavisSaliency(SaliencyTask):
    """Saliency on DAVIS: every frame is run, every 4th is scored.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from eventful import TopR
        >>> from eventful.datasets import Davis
        >>> from eventful.evaluation import combined, evaluate, report
        >>> from eventful.models.saliency import saliency_vit
        >>> root = Path(tempfile.mkdtemp())
        >>> for part, kind in (("JPEGImages", "jpg"), ("Annotations", "png")):
        ...     folder = root / part / "480p" / "camel"
        ...     folder.mkdir(parents=True)
        ...     for number in range(5):
        ...         pixels = np.zeros((20, 30), np.uint8)
        ...         pixels[4:9, 4 + number : 9 + number] = 255
        ...         Image.fromarray(pixels).save(folder / f"{number:05d}.{kind}")
        >>> task = DavisSaliency(Models(saliency_vit), Davis(root), root / "dense", size=42)
        >>> found = evaluate(task, combined(["dense", "input"], ["top:2"]), root / "out")
        >>> content = report(task, found, {"title": "DAVIS"})
        >>> [row["policy"] for row in content["rows"]], sorted(content["rows"][0]["quality"])
        (['top:2'], ['auc', 'f_beta', 'mae'])
        >>> content["rows"][0]["operations_ratio"] > 1 > content["rows"][0]["relative_error"]
        True
    """

    name = "davis-saliency"
    every = EVERY


@final
class CDnetSaliency(SaliencyTask):
    """Saliency on CDnet, inside the region of interest: moving against still and shadow.

    Videos are run from 8 frames before the first labelled one; each labelled frame is scored.
    Pixels outside the region and those labelled as outside or unknown do not count.

    Args:
        models: The model for each input size.
        data: The videos at their own size.
        folder: Where dense tokens are kept.
        size: The long side in pixels.
        frames: Frames of a video at most, those before the first labelled one included.

    Example:
        >>> Motion.__name__, CDnetSaliency.every
        ('Motion', 1)
    """

    name = "cdnet-saliency"
    every = 1

    def __init__(
        self,
        models: Models,
        data: CDnet,
        folder: Path,
        size: int | None = None,
        frames: int | None = None,
    ) -> None:
        super().__init__(models, data, folder, size, frames)
        self._first = {video.id: data.labelled(at)[0] for at, video in enumerate(data)}

    def footage(self, video: Video[Motion]) -> Iterator[Sample[Motion]]:
        """From a little before the first labelled frame."""
        return islice(video.since(self._first[video.id] - WARM_UP), self.frames)

    def objects(self, target: Motion) -> Tensor:
        """What moves."""
        return target.moving

    def scored(self, target: Motion) -> tuple[Tensor, Tensor]:
        """What moves, and where labels count."""
        return target.moving, target.scored
