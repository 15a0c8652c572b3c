"""Operators that runtimes do not know, or not so, written out as ones that they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from eventful.ops import RelativePositions

SPREAD = 1 << 25  # relative positions that a dense graph spreads out at a time: 128 MB


class WrittenOut(TorchFunctionMode):
    """While it is entered, such operators are traced as others that give the same."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        written = _WRITTEN.get(func)
        found = None if written is None else written(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if found is None else found


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    bias: Tensor | None,
    table: Tensor | None,
    keys: Tensor | None,
    grid: list[int],
    backend: str,
) -> tuple[Tensor, Tensor]:
    """`eventful::attend`; nobody reads its log-sum-exp. Relative positions are of all keys."""
    parts = [(q, bias)]
    if table is not None:
        some, tables = [q], [table]
        if isinstance(q.shape[2], int):
            queries = max(1, SPREAD // (q.shape[0] * q.shape[1] * k.shape[2]))
            some, tables = (list(x.split(queries, dim=2)) for x in (q, table))
        biases = (RelativePositions(own, (grid[0], grid[1])).bias() for own in tables)
        parts = list(zip(some, biases, strict=True))
    attention = functional.scaled_dot_product_attention
    outputs = [attention(own, k, v, attn_mask=added, scale=scale) for own, added in parts]
    o = torch.cat(outputs, dim=2).transpose(1, 2)
    return o, q.new_zeros(q.shape[0], q.shape[2], q.shape[1])


def _in_four(*args: Any, **options: Any) -> Tensor | None:
    """Attention over three dimensions with a fourth one, without which no ONNX is written."""
    if args[0].ndim != 3:
        return None
    attention: Any = functional.scaled_dot_product_attention
    four = (x[None] if isinstance(x, Tensor) else x for x in args)
    named = {name: x[None] if isinstance(x, Tensor) else x for name, x in options.items()}
    return attention(*four, **named)[0]


def _interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor | None:
    """Bicubic resampling with antialias, which OpenVINO has not; other kinds stay as they are.

    It is linear along each axis: a product with a matrix.
    """
    if not (mode == "bicubic" and antialias and size is not None) or align_corners:
        return None
    wanted = (size, size) if isinstance(size, int) else size
    lines, columns = (
        torch.as_tensor(resampling(before, after), dtype=input.dtype, device=input.device)
        for before, after in zip(input.shape[2:], wanted, strict=True)
    )
    return lines @ input @ columns.T


def resampling(before: int, after: int) -> np.ndarray:
    """The matrix of bicubic resampling with antialias along an axis.

    Keys' kernel with a = -1/2 (Keys, 1981), as PyTorch and Pillow take it: as wide as a sample
    where there are to be more, and as wide as what a sample stands for where there are to be fewer.

    Args:
        before: Samples along the axis.
        after: As many as there are to be.

    Returns:
        (after, before), whose lines sum to 1.

    Example:
        >>> resampling(4, 2).round(2).tolist()
        [[0.46, 0.46, 0.12, -0.04], [-0.04, 0.12, 0.46, 0.46]]
    """
    step = before / after
    wide = max(step, 1.0)
    centres = step * (np.arange(after)[:, None] + 0.5)
    x = np.abs(np.arange(before) + 0.5 - centres) / wide
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


_WRITTEN: dict[Any, Callable[..., Any]] = {
    torch.ops.eventful.attend: _attend,
    functional.interpolate: _interpolate,
    functional.scaled_dot_product_attention: _in_four,
}
