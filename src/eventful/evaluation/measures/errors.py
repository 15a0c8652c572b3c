"""Relative errors of patch tokens, over whole frames and on the objects' own patches."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor


class ErrorSummary(NamedTuple):
    """Of the relative errors of frames; all None without a frame.

    Attributes:
        mean: Over the frames.
        max: The worst frame.
        rms: Root mean square.
    """

    mean: float | None
    max: float | None
    rms: float | None


@final
class TokenErrors:
    """Collects ||y - y_dense|| / ||y_dense|| (Frobenius) of one frame after another.

    Example:
        >>> errors = TokenErrors()
        >>> dense = torch.tensor([[3.0, 4.0], [0.0, 12.0]])
        >>> errors.add(dense + torch.tensor([[0.0, 1.0], [0.0, 0.0]]), dense, None)
        >>> errors.add(dense, dense, torch.tensor([True, False]))
        >>> round(13 * summarised(errors.arrays()["error"]).max, 4)
        1.0
        >>> errors.arrays()["error_objects"].tolist()
        [nan, 0.0]
    """

    def __init__(self) -> None:
        self._all: list[float] = []
        self._objects: list[float] = []

    def add(self, tokens: Tensor, dense: Tensor, objects: Tensor | None) -> None:
        """Compare the tokens of a frame.

        Args:
            tokens: (tokens, dim).
            dense: Those of the dense model.
            objects: bool (tokens,), the patches of objects; None if nobody knows.
        """
        self._all.append(relative_error(tokens, dense))
        known = objects is not None and bool(objects.any())
        self._objects.append(relative_error(tokens[objects], dense[objects]) if known else np.nan)

    def arrays(self) -> dict[str, np.ndarray]:
        """Errors by frame; NaN on frames without an object."""
        return {"error": np.array(self._all), "error_objects": np.array(self._objects)}


def relative_error(tokens: Tensor, dense: Tensor) -> float:
    """||tokens - dense|| / ||dense|| (Frobenius)."""
    difference = torch.linalg.vector_norm(tokens.float() - dense.float())
    return float(difference / torch.linalg.vector_norm(dense.float()))


def summarised(errors: np.ndarray) -> ErrorSummary:
    """Mean, worst and root mean square of those that are not NaN.

    Example:
        >>> summarised(np.array([3.0, np.nan, 4.0]))
        ErrorSummary(mean=3.5, max=4.0, rms=3.5355339059327378)
    """
    errors = errors[~np.isnan(errors)]
    if not len(errors):
        return ErrorSummary(None, None, None)
    rms = np.sqrt((errors**2).mean())
    return ErrorSummary(float(errors.mean()), float(errors.max()), float(rms))
