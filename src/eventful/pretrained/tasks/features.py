"""Features: relative error and cosine of what a backbone or a tower gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from eventful.pretrained.pictures import PrincipalColours, resized
from eventful.pretrained.tasks.task import Scores, Shown, Task, missing

_FIELDS = ("last_hidden_state", "feature_maps", "image_embeds", "pooler_output", "logits")


class Vectors(NamedTuple):
    """The features of a frame.

    Attributes:
        parts: (vectors, dim) each.
        taps: What the picture is drawn from: (patches, dim).
        grid: Height and width of their grid.
    """

    parts: Sequence[Tensor]
    taps: Tensor
    grid: tuple[int, int]


@final
class Features(Task):
    """Features against the dense model's.

    They are the last hidden state, a backbone's feature maps, or what `get_image_features` gives.

    Example:
        >>> tokens = torch.tensor([[3.0, 4.0], [0.0, 5.0]])
        >>> dense = Vectors([tokens], tokens, (1, 2))
        >>> ours = Vectors([torch.tensor([[3.0, 4.0], [5.0, 0.0]])], tokens, (1, 2))
        >>> {n: round(x, 3) for n, x in Features(None, 0.3).differ(dense, ours).items()}
        {'relative_error': 1.0, 'cosine': 0.5}
    """

    name = "features"
    autos = ("AutoModel",)
    measures: ClassVar[Mapping[str, str]] = {
        "relative_error": "||y - dense|| / ||dense||; 0 is best",
        "cosine": "mean cosine of vectors with the dense model's; 1 is best",
    }

    def __init__(self, processor: Any, threshold: float) -> None:
        super().__init__(processor, threshold)
        self._colours = PrincipalColours()

    def read(self, shown: Shown, size: tuple[int, int]) -> Vectors:
        """The vectors of a frame, and what a picture needs."""
        found = [x.detach().float().cpu() for x in _tensors(shown.output)]
        if not found:
            raise missing("features", shown.output)
        parts, last = [_vectors(x) for x in found], found[-1]
        if last.ndim == 4:
            return Vectors(parts, parts[-1], (last.shape[2], last.shape[3]))
        return Vectors(parts, shown.taps.cpu(), shown.grid)

    def differ(self, dense: Vectors, ours: Vectors) -> Scores:
        """Over all vectors of a frame."""
        pairs = [*zip(dense.parts, ours.parts, strict=True)]
        off = torch.stack([(o - d).square().sum() for d, o in pairs]).sum()
        size = torch.stack([d.square().sum() for d, _ in pairs]).sum()
        alike = torch.cat([torch.cosine_similarity(d, o, dim=1) for d, o in pairs])
        return {"relative_error": float((off / size).sqrt()), "cosine": float(alike.mean())}

    def draw(self, picture: np.ndarray, read: Vectors) -> np.ndarray:
        """The patch tokens' principal components as colours."""
        return resized(self._colours(read.taps[None], read.grid), picture.shape[:2], sharp=True)


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors that are the features."""
    if isinstance(output, Tensor):
        yield output
    elif hasattr(output, "keys"):
        name = next((n for n in _FIELDS if n in output and output[n] is not None), None)
        yield from _tensors(output[name]) if name else ()
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _tensors(part)


def _vectors(x: Tensor) -> Tensor:
    """(vectors, dim) of tokens (..., dim) or of a map (batch, dim, height, width)."""
    return x.movedim(1, -1).flatten(0, -2) if x.ndim == 4 else x.reshape(-1, x.shape[-1])
