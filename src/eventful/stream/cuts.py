"""Scene cuts: frames on which nothing that is remembered is worth keeping."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor


@dataclass(frozen=True)
class SceneCuts:
    """Decides at the first gate, before any state changes, whether a row shows another scene.

    The measure is how far the mean token of each quarter of the frame (four bands from top to
    bottom) has moved from its reference (`change`). Single tokens would not do: under a moving
    camera most patches change on every frame as much as at a cut, but a quarter's mean hardly does.
    A frame is a cut when its change is large *and* jumps over the recent median.

    The defaults find the five cuts of the demo clip and none in eleven DAVIS sequences and `vtest`,
    at six policies from all tokens to one in sixteen, with 11 % to spare on either side
    (`benchmarks/scene_cuts.py`).

    Args:
        level: Smallest change of a cut.
        jump: Smallest factor of that change over the median of the last `memory` frames.
        memory: Frames that the median looks back on.

    Example:
        >>> SceneCuts().is_cut(0.8, history=[0.1, 0.1, 0.2])
        True
        >>> SceneCuts().is_cut(0.8, history=[0.7, 0.6, 0.8])
        False
    """

    level: float = 0.54
    jump: float = 2.0
    memory: int = 3

    def __post_init__(self) -> None:
        if not (self.level > 0 and self.jump > 0 and self.memory >= 1):
            raise ValueError(f"level and jump must be positive and memory at least 1, got {self}")

    def is_cut(self, change: float, history: Sequence[float]) -> bool:
        """Judge one frame of one row; without a history, by the level alone."""
        usual = median(history) if history else 0.0
        return change >= self.level and change >= self.jump * usual

    def new_history(self) -> deque[float]:
        """Return an empty record of the last changes."""
        return deque(maxlen=self.memory)


def change(reference: Tensor, c: Tensor) -> Tensor:
    """Measure ||mean(u - c)|| / ||mean u|| over quarters of each row's tokens.

    Args:
        reference: u (batch, tokens, dim).
        c: (batch, tokens, dim).

    Returns:
        (batch,) float32: the root of the summed squares over the quarters.

    Example:
        >>> change(torch.ones(1, 8, 2), torch.zeros(1, 8, 2)).tolist()
        [1.0]
    """

    def size(x: Tensor) -> Tensor:
        means = [part.mean(dim=1) for part in x.tensor_split(min(4, x.shape[1]), dim=1)]
        return torch.linalg.vector_norm(torch.cat(means, dim=1).float(), dim=1)

    floor = torch.finfo(torch.float32).tiny
    return size(reference - c) / size(reference).clamp_min(floor)


def picture_change(before: Tensor, now: Tensor) -> Tensor:
    """Measure how little of a picture's pattern is left in the next: 1 less their correlation.

    Pictures have no negative values, so that their means say little of what they show and `change`
    finds no cut. `benchmarks/scene_cuts.py` measures both sides of the limit.

    Args:
        before: (batch, patches, channels) in [0, 1].
        now: The same of the next frame.

    Returns:
        (batch,) from 0 to 2; near 0 between pictures that are both all but flat.

    Example:
        >>> stripes = torch.tensor([0.1, 0.9, 0.1, 0.9]).view(1, 4, 1)
        >>> [round(picture_change(stripes, x).item(), 2) for x in (stripes, 1 - stripes)]
        [0.0, 1.97]
    """
    a, b = ((x - x.mean(dim=1, keepdim=True)).flatten(1).float() for x in (before, now))
    flat = _FLAT**2 * a.shape[1]
    both = (a.square().sum(dim=1) + flat) * (b.square().sum(dim=1) + flat)
    return 1 - ((a * b).sum(dim=1) + flat) / both.sqrt()


_FLAT = 0.05  # contrast that counts as none
