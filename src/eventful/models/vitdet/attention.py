"""Attention of ViTDet over a token grid: windows, decomposed relative positions."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eventful.models.vitdet.positions import (
    RelativeKind,
    by_line,
    relative_table,
    relative_tables_of_grid,
)
from eventful.models.vitdet.windows import cut_windows, join_windows

_BIAS_VALUES = 2**27  # relative positions that are spread out at a time: 512 MB in float32


@final
class Attention(nn.Module):
    """Self-attention over a token grid, whole or in windows, with decomposed relative positions.

        score[i, j] = scale * q_i . k_j + q_i . R_h[y_i, y_j] + q_i . R_w[x_i, x_j]

    Windows are padded at the bottom and on the right with zero tokens, before the projection: the
    q, k, v of padding are the projection's bias, and are attended to.

    Args:
        dim: Size of a token.
        num_heads: Heads; they divide `dim`.
        window_size: Side of the windows; 0 for attention over the whole grid.
        trained_grid: Height and width that the relative positions are learned for.
        rel_positions: The way to other grids, see `positions.by_line`.
        qkv_bias: Whether the projection to q, k, v has a bias.

    Example:
        >>> attention = Attention(24, num_heads=3, window_size=2, trained_grid=(2, 2))
        >>> attention(torch.zeros(1, 3, 5, 24)).shape
        torch.Size([1, 3, 5, 24])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        trained_grid: tuple[int, int],
        rel_positions: RelativeKind = "linear",
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.window_size = window_size
        self.rel_positions: RelativeKind = rel_positions
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        lines, columns = trained_grid
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * lines - 1, self.head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * columns - 1, self.head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Attend over tokens (batch, height, width, dim)."""
        qkv, grid = self.qkv(x), (x.shape[1], x.shape[2])
        if not self.window_size:
            return self.proj(self._attend(qkv))
        windows = cut_windows(qkv, self.window_size, self.qkv.bias)
        return self.proj(join_windows(self._attend(windows), grid))

    def relative_tables(self, q: Tensor, positions: Tensor, grid: tuple[int, int]) -> Tensor:
        """Look up the relative positions of some queries.

        Args:
            q: (total, heads, head_dim), not scaled.
            positions: (total,) their places in the frame's token grid, line by line.
            grid: Height and width of the frame's token grid.

        Returns:
            table_h and table_w, (total, heads, height + width) of the keys' grid: the frame's, or
            a window's.
        """
        y, x = positions // grid[1], positions % grid[1]
        if self.window_size:
            grid = self.window_size, self.window_size
            y, x = y % self.window_size, x % self.window_size
        lines, columns = self._embeddings(grid)
        return torch.cat([relative_table(q, y, lines), relative_table(q, x, columns)], dim=2)

    def _embeddings(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """R of both axes for a grid of keys."""
        height, width = grid
        return (
            by_line(self.rel_pos_h, height, self.rel_positions),
            by_line(self.rel_pos_w, width, self.rel_positions),
        )

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attention over each whole grid of qkv (batch, height, width, 3 * dim), some lines a time.

        The bias of all queries on all keys would take 4 bytes * batch * heads * tokens^2.
        """
        batch, height, width, _ = qkv.shape
        heads = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 4, 1, 2, 5)
        q, k, v = heads.unbind(0)  # (batch, heads, height, width, head_dim) each
        tables = relative_tables_of_grid(q, self._embeddings((height, width)))
        k, v = k.flatten(2, 3), v.flatten(2, 3)
        lines = max(1, _BIAS_VALUES // (batch * self.num_heads * width * height * width))
        parts = (x.split(lines, dim=2) for x in (q, *tables))
        outputs = [
            F.scaled_dot_product_attention(
                queries.flatten(2, 3), k, v, attn_mask=_bias(table_h, table_w), scale=self.scale
            )
            for queries, table_h, table_w in zip(*parts, strict=True)
        ]
        o = torch.cat(outputs, dim=2).transpose(1, 2)  # (batch, tokens, heads, head_dim)
        return o.flatten(2).unflatten(1, (height, width))


def _bias(table_h: Tensor, table_w: Tensor) -> Tensor:
    """Spread tables (batch, heads, lines, width, ...) out: (batch, heads, queries, keys)."""
    return (table_h[..., :, None] + table_w[..., None, :]).flatten(-2).flatten(2, 3)
