"""Windows of a token grid, padded at the bottom and on the right."""

from __future__ import annotations

from torch import Tensor


def cut_windows(x: Tensor, size: int, padding: Tensor | None = None) -> Tensor:
    """Cut a grid into windows, line by line.

    Args:
        x: (batch, height, width, dim).
        size: Side of a window.
        padding: (dim,) what stands where a window leaves the grid; None for zeros.

    Returns:
        (batch * windows, size, size, dim).

    Example:
        >>> import torch
        >>> x = torch.arange(1.0, 7.0).view(1, 2, 3, 1)
        >>> cut_windows(x, 2, torch.tensor([9.0])).flatten(1).tolist()
        [[1.0, 2.0, 4.0, 5.0], [3.0, 9.0, 6.0, 9.0]]
    """
    batch, height, width, dim = x.shape
    down, across = -(-height // size), -(-width // size)
    empty = x.new_zeros(dim) if padding is None else padding.to(x.dtype)
    whole = empty.expand(batch, down * size, across * size, dim).clone()
    whole[:, :height, :width] = x
    windows = whole.unflatten(2, (across, size)).unflatten(1, (down, size)).transpose(2, 3)
    return windows.flatten(0, 2)


def join_windows(windows: Tensor, grid: tuple[int, int]) -> Tensor:
    """Put windows together and drop the padding: the inverse of `cut_windows`.

    Args:
        windows: (batch * windows, size, size, dim).
        grid: Height and width of the grid.

    Returns:
        (batch, height, width, dim).

    Example:
        >>> import torch
        >>> x = torch.rand(7, 3, 5, 1)
        >>> torch.equal(join_windows(cut_windows(x, 2), (3, 5)), x)
        True
    """
    (height, width), size = grid, windows.shape[1]
    down, across = -(-height // size), -(-width // size)
    whole = windows.unflatten(0, (-1, down, across)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return whole[:, :height, :width]
