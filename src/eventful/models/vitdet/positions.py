"""Positions of ViTDet at any input size: absolute ones, and decomposed relative ones.

A query in line y of the grid meets the keys of line j with the embedding R[y, j] of one axis, and
likewise for the columns:

    table_h[i, j] = q_i . R_h[y_i, j];   table_w[i, j] = q_i . R_w[x_i, j]

(Li et al., *MViTv2*, 2022). At the trained size R[y, j] = rel_pos[y - j + size - 1]; see
`by_line` for the two ways to other sizes.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

RelativeKind = Literal["linear", "paper"]


def absolute_positions(pos_embed: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize a learned grid of positions bicubically, without antialiasing.

    Args:
        pos_embed: (1, height, width, dim).
        grid: Height and width of the token grid.

    Returns:
        (1, *grid, dim).

    Example:
        >>> absolute_positions(torch.ones(1, 2, 2, 7), (3, 5)).shape
        torch.Size([1, 3, 5, 7])
    """
    if pos_embed.shape[1:3] == grid:
        return pos_embed
    channels_first = pos_embed.permute(0, 3, 1, 2)
    resized = F.interpolate(channels_first, size=grid, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1)


def by_line(rel_pos: Tensor, size: int, kind: RelativeKind = "linear") -> Tensor:
    """Spread one axis of relative positions out: R[y, j] for each line of queries and of keys.

    At another size than the trained one, "linear" interpolates the offsets to 2 * size - 1 first,
    as Detectron2 does. "paper" resizes the spread-out map bicubically, as the code of the paper on
    Eventful Transformers does; R[y, j] is then no function of y - j.

    Args:
        rel_pos: (2 * trained - 1, dim), from the most negative offset y - j on.
        size: Lines of the grid along this axis.
        kind: The way to another size.

    Returns:
        R, (size, size, dim).

    Example:
        >>> offsets = torch.tensor([[-1.0], [0.0], [1.0]])
        >>> by_line(offsets, 2)[..., 0].tolist()
        [[0.0, -1.0], [1.0, 0.0]]
        >>> by_line(offsets, 3)[2, :, 0]
        tensor([1.0000, 0.6000, 0.0000])
    """
    trained = (len(rel_pos) + 1) // 2
    if kind == "linear" or size == trained:
        return _spread(_linear(rel_pos, 2 * size - 1))
    channels_first = _spread(rel_pos).permute(2, 0, 1)[None]
    resized = F.interpolate(channels_first, (size, size), mode="bicubic", align_corners=False)
    return resized[0].permute(1, 2, 0)


def _linear(rel_pos: Tensor, offsets: int) -> Tensor:
    """Interpolate (offsets before, dim) linearly to (offsets, dim)."""
    if len(rel_pos) == offsets:
        return rel_pos
    return F.interpolate(rel_pos.T[None], offsets, mode="linear", align_corners=False)[0].T


def _spread(rel_pos: Tensor) -> Tensor:
    """(2 * size - 1, dim) -> (size, size, dim): rel_pos[y - j + size - 1] for y and j."""
    size = (len(rel_pos) + 1) // 2
    line = torch.arange(size, device=rel_pos.device)
    return rel_pos[line[:, None] - line + size - 1]


def relative_table(q: Tensor, line: Tensor, embeddings: Tensor) -> Tensor:
    """Look up one axis of the relative positions of some queries.

    Args:
        q: (total, heads, dim), not scaled.
        line: (total,) each query's line along the axis.
        embeddings: R, (size, size, dim), as `by_line` gives it.

    Returns:
        (total, heads, size).

    Example:
        >>> embeddings = torch.tensor([[[0.0], [-1.0]], [[1.0], [0.0]]])
        >>> relative_table(torch.tensor([[[3.0]]]), torch.tensor([1]), embeddings).tolist()
        [[[3.0, 0.0]]]
    """
    return q @ embeddings[line].mT


def relative_tables_of_grid(q: Tensor, embeddings: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Look up both axes of the relative positions of a whole grid of queries.

    Args:
        q: (batch, heads, height, width, dim), not scaled.
        embeddings: R of the lines (height, height, dim) and of the columns (width, width, dim).

    Returns:
        (batch, heads, height, width, height) and (batch, heads, height, width, width).

    Example:
        >>> embeddings = torch.ones(3, 3, 2), torch.ones(5, 5, 2)
        >>> [tuple(t.shape) for t in relative_tables_of_grid(torch.ones(1, 7, 3, 5, 2), embeddings)]
        [(1, 7, 3, 5, 3), (1, 7, 3, 5, 5)]
    """
    lines, columns = embeddings
    table_h = torch.einsum("bnyxd,yjd->bnyxj", q, lines)
    table_w = torch.einsum("bnyxd,xjd->bnyxj", q, columns)
    return table_h, table_w


def check_relative_kind(kind: str) -> None:
    """Refuse an unknown way to another size.

    Raises:
        ValueError: It is neither "linear" nor "paper".

    Example:
        >>> check_relative_kind("linear")
    """
    if kind not in get_args(RelativeKind):
        raise ValueError(f"rel_positions must be one of {get_args(RelativeKind)}, got {kind!r}")
