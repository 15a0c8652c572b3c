"""What is kept of a model's output: the columns of a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class Shown:
    """The frame that an output is of.

    Attributes:
        size: Height and width of what the model saw, in pixels.
        native: Height and width of the video, upright.
    """

    size: Size
    native: Size


class Head(ABC):
    """Turns what the model returns for a frame into values of some columns."""

    @property
    @abstractmethod
    def types(self) -> Mapping[str, pa.DataType]:
        """The columns and their types."""

    @abstractmethod
    def values(self, output: Any, shown: Shown) -> dict[str, Any]:
        """The values of one frame.

        Args:
            output: What the model returned for it, one batch row.
            shown: The frame.

        Returns:
            A value a column: an array (n,) for a fixed-size list of n, (m, n) for a list of
            fixed-size lists, else whatever Arrow takes.
        """


@final
@dataclass(frozen=True)
class Pooled(Head):
    """The mean of the patch tokens, in column `embedding`.

    Args:
        tokens: Patch tokens (1, patches, dim) of the model's output.
        dim: Their channels.

    Example:
        >>> import torch
        >>> head = Pooled(lambda output: output, dim=3)
        >>> head.values(torch.ones(1, 5, 3), Shown((28, 42), (280, 420)))
        {'embedding': array([1., 1., 1.], dtype=float16)}
    """

    tokens: Callable[[Any], Tensor]
    dim: int

    @property
    def types(self) -> Mapping[str, pa.DataType]:
        """A fixed-size list of float16."""
        return {"embedding": pa.list_(pa.float16(), self.dim)}

    def values(self, output: Any, shown: Shown) -> dict[str, Any]:
        """The mean over patches."""
        return {"embedding": _half(self.tokens(output)[0].float().mean(dim=0))}


@final
@dataclass(frozen=True)
class Patches(Head):
    """Every patch token, in column `patches`, row by row of the grid in `grid`.

    Args:
        tokens: Patch tokens (1, patches, dim) of the model's output.
        dim: Their channels.
        patch: Side of a patch in pixels.

    Example:
        >>> import torch
        >>> head = Patches(lambda output: output, dim=3, patch=14)
        >>> found = head.values(torch.ones(1, 6, 3), Shown((28, 42), (280, 420)))
        >>> found["patches"].shape, found["grid"].tolist()
        ((6, 3), [2, 3])
    """

    tokens: Callable[[Any], Tensor]
    dim: int
    patch: int

    @property
    def types(self) -> Mapping[str, pa.DataType]:
        """A list of fixed-size lists of float16, and two numbers."""
        return {
            "patches": pa.list_(pa.list_(pa.float16(), self.dim)),
            "grid": pa.list_(pa.int32(), 2),
        }

    def values(self, output: Any, shown: Shown) -> dict[str, Any]:
        """All tokens, and the grid's height and width."""
        grid = np.array([side // self.patch for side in shown.size], np.int32)
        return {"patches": _half(self.tokens(output)[0]), "grid": grid}


@final
@dataclass(frozen=True)
class Boxes(Head):
    """Objects: `boxes` (x0, y0, x1, y1 in pixels of the video), `labels` and `scores`.

    Args:
        find: One image's detections in the model's output: something with `boxes` (n, 4) in pixels
            of what the model saw, `scores` (n,) and `labels` (n,), such as
            `eventful.models.vitdet.Detections`.
        least: The score from which a box is kept.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> box = torch.tensor([[0.0, 7.0, 14.0, 14.0]])
        >>> found = SimpleNamespace(boxes=box, scores=torch.ones(1), labels=torch.zeros(1))
        >>> Boxes(lambda output: output).values(found, Shown((28, 42), (280, 420)))["boxes"]
        array([[  0.,  70., 140., 140.]], dtype=float32)
    """

    find: Callable[[Any], Any]
    least: float = 0.05

    @property
    def types(self) -> Mapping[str, pa.DataType]:
        """Lists, of one element a box."""
        return {
            "boxes": pa.list_(pa.list_(pa.float32(), 4)),
            "labels": pa.list_(pa.int32()),
            "scores": pa.list_(pa.float32()),
        }

    def values(self, output: Any, shown: Shown) -> dict[str, Any]:
        """The objects of a frame."""
        found = self.find(output)
        kept = found.scores >= self.least
        y, x = (native / side for native, side in zip(shown.native, shown.size, strict=True))
        boxes = found.boxes[kept].float() * found.boxes.new_tensor([x, y, x, y])
        return {
            "boxes": boxes.cpu().numpy().astype(np.float32),
            "labels": found.labels[kept].cpu().numpy().astype(np.int32),
            "scores": found.scores[kept].float().cpu().numpy(),
        }


@final
@dataclass(frozen=True)
class Mask(Head):
    """Where something is shown, as COCO's run lengths: `mask_size` and `mask_counts`.

    Args:
        likely: How likely each pixel belongs to it, (1, 1, height, width) of the model's output.
        least: The likelihood from which it does.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[0.0, 1.0], [1.0, 1.0]])[None, None]
        >>> Mask(lambda output: output).values(mask, Shown((2, 2), (20, 20)))["mask_counts"]
        array([1, 3], dtype=int32)
    """

    likely: Callable[[Any], Tensor]
    least: float = 0.5

    @property
    def types(self) -> Mapping[str, pa.DataType]:
        """Height and width of the mask, and the lengths of its runs."""
        return {"mask_size": pa.list_(pa.int32(), 2), "mask_counts": pa.list_(pa.int32())}

    def values(self, output: Any, shown: Shown) -> dict[str, Any]:
        """The mask of a frame."""
        mask = (self.likely(output)[0, 0] >= self.least).cpu().numpy()
        return {"mask_size": np.array(mask.shape, np.int32), "mask_counts": run_lengths(mask)}


def run_lengths(mask: np.ndarray) -> np.ndarray:
    """The lengths of runs of equal values, down column after column, the first run of False.

    These are the `counts` of COCO's uncompressed run-length encoding.

    Args:
        mask: bool (height, width).

    Example:
        >>> run_lengths(np.array([[True, False, False], [True, False, True]]))
        array([0, 2, 3, 1], dtype=int32)
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate([[0], changes, [flat.size]])
    lengths = np.diff(ends)
    begins_true = flat.size > 0 and bool(flat[0])
    return np.concatenate([[0] if begins_true else [], lengths]).astype(np.int32)


def _half(x: Tensor) -> np.ndarray:
    return x.detach().half().cpu().numpy()
