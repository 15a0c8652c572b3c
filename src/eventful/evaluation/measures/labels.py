"""Labels carried from frame to frame along frozen features, as DINO evaluates them.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021, section 4.2.2,
after Jabri et al., Space-Time Correspondence as a Contrastive Random Walk, NeurIPS 2020.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from eventful.evaluation.measures.patches import Size


@dataclass(frozen=True)
class Carrying:
    """How labels are carried.

    Attributes:
        context: Latest frames to take labels from, beside the first one.
        neighbours: Patches that a patch takes its label from, the most similar ones of all frames.
        radius: How far away they may be, in patches to each side.
        temperature: Weights are exp(cosine / temperature).

    Example:
        >>> Carrying(radius=12).neighbours
        5
    """

    context: int = 5
    neighbours: int = 5
    radius: int = 6
    temperature: float = 0.1


@final
class Labels:
    """Carries the label of each patch from the first frame through a video.

    Args:
        grid: Patches (h, w) of a frame.
        tokens: Features of the first frame, (h * w, dim).
        label: Its labels in [0, 1], (h * w,).
        carrying: How.

    Example:
        >>> tokens = torch.eye(3, 5)
        >>> labels = Labels((1, 3), tokens, torch.tensor([1.0, 0.0, 0.0]), Carrying(neighbours=1))
        >>> labels(tokens.roll(1, dims=0)).tolist()  # everything has moved on by a patch
        [0.0, 1.0, 0.0]
    """

    def __init__(
        self, grid: Size, tokens: Tensor, label: Tensor, carrying: Carrying | None = None
    ) -> None:
        self._how = carrying or Carrying()
        self._near = _near(grid, self._how.radius)
        self._first = F.normalize(tokens.float(), dim=1), label
        self._latest: deque[tuple[Tensor, Tensor]] = deque(maxlen=self._how.context)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Labels (h * w,) of the next frame, from its features (h * w, dim)."""
        features = F.normalize(tokens.float(), dim=1)
        sources = [self._first, *self._latest]
        likeness = torch.cat([self._likeness(features, known) for known, _ in sources], dim=1)
        labels = torch.cat([label for _, label in sources])
        top = likeness.topk(min(self._how.neighbours, likeness.shape[1]), dim=1)
        weights = (top.values / self._how.temperature).softmax(dim=1)
        label = (weights * labels[top.indices]).sum(dim=1)
        self._latest.append((features, label))
        return label

    def _likeness(self, features: Tensor, known: Tensor) -> Tensor:
        """Cosines (h * w, h * w) to the patches of another frame, -inf to those too far away."""
        return (features @ known.T).masked_fill(~self._near, -torch.inf)


def _near(grid: Size, radius: int) -> Tensor:
    """Which patches lie at most `radius` rows and columns from each other, bool (h * w, h * w)."""
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()])
    return ((places[:, :, None] - places[:, None]).abs() <= radius).all(dim=0)


def mask_of(label: Tensor, grid: Size, shape: Size) -> Tensor:
    """The mask (H, W) of an object from the labels (h * w,) of the patches.

    Labels are interpolated; the object is where they are nearer to the largest than to the least.

    Example:
        >>> mask_of(torch.tensor([0.0, 0.4]), (1, 2), (2, 4)).int().tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    values = label.view(1, 1, *grid)
    values = F.interpolate(values, shape, mode="bilinear", align_corners=False)[0, 0]
    low, high = values.aminmax()
    return (values - low > (high - low) / 2) & (high > 0)
