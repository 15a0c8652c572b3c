"""Decomposed relative positions: a bias on the scores that depends on the query and the key's cell.

    bias[i, j] = table_h[i, y_j] + table_w[i, x_j]

(Li et al., *MViTv2*, 2022; used by ViTDet and Segment Anything). The two tables of a query are
token-wise functions of it, so they are computed with it and buffered beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RelativePositions:
    """The bias of some queries on some keys, kept as its two tables.

    Args:
        table: (batch, heads, queries, height + width): for each query, one value for every line of
            the keys' grid and one for every column.
        grid: Height and width of the keys' grid.
        keys: (batch, keys) positions of the keys in the grid, line by line; None for all of them.

    Example:
        >>> table = torch.tensor([[[[10.0, 20.0, 1.0, 2.0, 3.0]]]])  # one query, a 2 x 3 grid
        >>> RelativePositions(table, (2, 3)).bias().flatten().tolist()
        [11.0, 12.0, 13.0, 21.0, 22.0, 23.0]
        >>> RelativePositions(table, (2, 3), torch.tensor([[4, 0]])).bias().flatten().tolist()
        [22.0, 11.0]
    """

    table: Tensor
    grid: tuple[int, int]
    keys: Tensor | None = None

    def of_rows(self, rows: slice) -> RelativePositions:
        """Keep the given batch rows alone."""
        keys = None if self.keys is None else self.keys[rows]
        return RelativePositions(self.table[rows], self.grid, keys)

    def of_queries(self, queries: Tensor) -> RelativePositions:
        """Keep the given queries (batch, queries) alone."""
        batch = torch.arange(len(queries), device=queries.device)[:, None]
        return RelativePositions(
            self.table.transpose(1, 2)[batch, queries].transpose(1, 2), self.grid, self.keys
        )

    def of_keys(self, keys: Tensor) -> RelativePositions:
        """Keep the given keys (batch, keys) alone."""
        return RelativePositions(self.table, self.grid, keys)

    def bias(self) -> Tensor:
        """Spread the tables out: (batch, heads, queries, keys)."""
        height, width = self.grid
        if self.keys is None:
            h, w = self.table.split(self.grid, dim=-1)
            return (h[..., :, None] + w[..., None, :]).flatten(-2)
        # A product with one-hot columns: on a CPU half the time of two gathers along the last axis.
        lines = torch.arange(height + width, device=self.keys.device)[:, None]
        y, x = self.keys[:, None] // width, height + self.keys[:, None] % width
        cells = ((lines == y) | (lines == x)).to(self.table.dtype)  # (batch, height + width, keys)
        return self.table @ cells[:, None]
