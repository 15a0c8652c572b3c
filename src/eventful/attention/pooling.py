"""Keys and values averaged over cells of tokens (the paper's "spatial" variant, section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from eventful.ops import Index


@dataclass(frozen=True)
class Pooling:
    """A token grid cut into square cells, each of which becomes one key.

    Cells at the bottom and on the right hold fewer tokens where the side does not divide the grid,
    and average over these.

    Attributes:
        grid: Height and width of the token grid.
        side: Side of a cell.

    Example:
        >>> pooling = Pooling((2, 3), 2)
        >>> pooling.cells, pooling.pool(torch.arange(6.0).view(1, 6, 1)).flatten().tolist()
        ((1, 2), [2.0, 3.5])
        >>> pooling.index(Index.from_positions(torch.tensor([[1, 4]]), 6)).flat.tolist()
        [0]
    """

    grid: tuple[int, int]
    side: int

    @property
    def cells(self) -> tuple[int, int]:
        """Height and width of the grid of cells."""
        height, width = (-(-side // self.side) for side in self.grid)
        return height, width

    @property
    def count(self) -> int:
        """Cells of a frame."""
        return self.cells[0] * self.cells[1]

    def pool(self, x: Tensor) -> Tensor:
        """Average over each cell: (batch, tokens, dim) -> (batch, cells, dim)."""
        x = x.unflatten(1, self.grid).movedim(-1, 1)
        x = avg_pool2d(x, self.side, ceil_mode=True, count_include_pad=False)
        return x.flatten(2).mT

    def pool_lines(self, table: Tensor) -> Tensor:
        """Average tables of relative positions over the lines and columns of each cell.

        A sum of a value a line and a value a column averages to the sum of their averages.

        Args:
            table: (..., height + width) of the token grid.

        Returns:
            (..., height + width) of the grid of cells.
        """
        lines = table.split(self.grid, dim=-1)
        return torch.cat([self._average(axis) for axis in lines], dim=-1)

    def index(self, index: Index) -> Index:
        """The cells that hold a token of a set."""
        row = index.flat.div(index.tokens, rounding_mode="floor")
        y, x = index.positions // self.grid[1], index.positions % self.grid[1]
        cell = y // self.side * self.cells[1] + x // self.side
        touched = torch.zeros(
            len(index.counts), self.count, dtype=torch.bool, device=index.flat.device
        )
        touched[row, cell] = True
        return Index.from_mask(touched)

    def _average(self, x: Tensor) -> Tensor:
        full = x.shape[-1] // self.side * self.side
        means = x[..., :full].unflatten(-1, (-1, self.side)).mean(dim=-1)
        if full == x.shape[-1]:
            return means
        return torch.cat([means, x[..., full:].mean(dim=-1, keepdim=True)], dim=-1)
