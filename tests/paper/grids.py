"""Relative positions and pooled cells, in float64 and from the paper's description alone."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Grid = tuple[int, int]


def gather(offsets: Array) -> Array:
    """The table (S, S, d) of y - y' for all pairs, from the 2 S - 1 offsets (2 S - 1, d)."""
    size = (len(offsets) + 1) // 2
    return np.stack([[offsets[y - other + size - 1] for other in range(size)] for y in range(size)])


def linear(offsets: Array, size: int) -> Array:
    """As Detectron2: the offsets are resized to 2 size - 1, linearly, and then gathered."""
    return gather(line_weights(len(offsets), 2 * size - 1) @ offsets)


def bicubic(offsets: Array, size: int) -> Array:
    """As the paper's code: the gathered table is resized on both its axes, bicubically."""
    table = gather(offsets)
    weights = cubic_weights(len(table), size)
    return np.einsum("yY,xX,YXd->yxd", weights, weights, table)


def line_weights(length: int, size: int) -> Array:
    """Weights (size, length) of linear interpolation between the centres of equal pixels."""
    weights = np.zeros((size, length))
    for i in range(size):
        place = max((i + 0.5) * length / size - 0.5, 0.0)
        below = math.floor(place)
        weights[i, below] += 1 - (place - below)
        weights[i, min(below + 1, length - 1)] += place - below
    return weights


def cubic_weights(length: int, size: int) -> Array:
    """The same for cubic convolution with a = -0.75, in which border pixels are repeated."""
    weights = np.zeros((size, length))
    for i in range(size):
        place = (i + 0.5) * length / size - 0.5
        below = math.floor(place)
        for pixel in range(below - 1, below + 3):
            weights[i, min(max(pixel, 0), length - 1)] += cubic(abs(place - pixel))
    return weights


def cubic(distance: float, a: float = -0.75) -> float:
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return a * (distance**3 - 5 * distance**2 + 8 * distance - 4)


def bias(q: Array, grid: Grid, table_h: Array, table_w: Array) -> Array:
    """bias[i, j] = q_i . R_h[y_i, y_j] + q_i . R_w[x_i, x_j] of one head: (N, d) to (N, keys)."""
    y, x = np.divmod(np.arange(len(q)), grid[1])
    h = np.einsum("id,ijd->ij", q, table_h[y])
    w = np.einsum("id,ijd->ij", q, table_w[x])
    return (h[:, :, None] + w[:, None, :]).reshape(len(q), -1)


def pool_keys(table: Array, side: int) -> Array:
    """Average a table (queries, keys, d) over cells of `side` keys; the last may be smaller."""
    starts = range(0, table.shape[1], side)
    return np.stack([table[:, start : start + side].mean(axis=1) for start in starts], axis=1)


def pool_cells(x: Array, grid: Grid, side: int) -> Array:
    """Average tokens (H, N, d) over cells of side x side; those at the border may be smaller."""
    x = x.reshape(x.shape[0], *grid, x.shape[-1])
    cells = [
        x[:, y : y + side, z : z + side].mean(axis=(1, 2))
        for y in range(0, grid[0], side)
        for z in range(0, grid[1], side)
    ]
    return np.stack(cells, axis=1)


def pooled_index(index: Indices, grid: Grid, side: int) -> Indices:
    """The cells that hold at least one token of an index set."""
    across = -(-grid[1] // side)
    return np.unique(index // grid[1] // side * across + index % grid[1] // side)
