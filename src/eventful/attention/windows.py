"""Attention within windows: only windows that hold an updated token change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eventful.attention.forms import Attention, AttentionState, Bias, join_heads, split_heads
from eventful.ops import Index, RelativePositions, attend


@dataclass(frozen=True)
class Windows:
    """A token grid cut into square windows, padded at the bottom and on the right.

    In *window order* the tokens of a window stand together, line by line, padding among them.

    Attributes:
        grid: Height and width of the token grid.
        size: Side of a window.

    Example:
        >>> windows = Windows((2, 3), 2)
        >>> windows.count, windows.places, windows.slots().tolist()
        (2, 8, [0, 1, 4, 2, 3, 6])
    """

    grid: tuple[int, int]
    size: int

    @property
    def across(self) -> int:
        """Windows in a line of windows."""
        return -(-self.grid[1] // self.size)

    @property
    def count(self) -> int:
        """Windows of a frame."""
        return -(-self.grid[0] // self.size) * self.across

    @property
    def places(self) -> int:
        """Tokens of a frame, padding included."""
        return self.count * self.size**2

    def slots(self, device: torch.device | None = None) -> Tensor:
        """(tokens,) each token's place in window order."""
        y, x = (torch.arange(side, device=device) for side in self.grid)
        window = (y // self.size * self.across)[:, None] + x // self.size
        place = (y % self.size * self.size)[:, None] + x % self.size
        return (window * self.size**2 + place).flatten()


class Windowed(Attention):
    """Full attention within each window, over tokens in window order.

    A window without an updated token keeps its output, which is exact; the paper recomputes all of
    them (`keep=False`).

    Args:
        heads: H.
        scale: Factor on the scores q . k.
        fixed: Compute min(updated tokens, windows) windows on every frame: as many as can hold one.
        size: Tokens of a window, padding included.
        keep: Keep the output of windows without an updated token.
    """

    def __init__(
        self, heads: int, scale: float, fixed: bool = False, *, size: int, keep: bool = True
    ) -> None:
        super().__init__(heads, scale, fixed)
        self.size = size
        self.keep = keep

    def start(self, qkv: Tensor, bias: Bias = None) -> tuple[Tensor, AttentionState]:
        """Compute all windows of qkv (batch, windows * size, 3 * heads * dim)."""
        batch, places, _ = qkv.shape
        output = self._attend(self._cut(qkv), self._cut_bias(bias)).view(batch, places, -1)
        state = AttentionState(
            {"output": output} if self.keep else {},
            corrected=(0,) * batch,
            recomputed=(places,) * batch,
        )
        return output, state

    def update(
        self, state: AttentionState, qkv: Tensor, old: Tensor, index: Index, bias: Bias = None
    ) -> Tensor:
        """Compute the windows that hold an updated token; `index` is in window order too."""
        if not self.keep:
            return self.start(qkv, bias)[0]
        cut, cut_bias = self._cut(qkv), self._cut_bias(bias)
        windows, state.recomputed = self._touched(index, len(cut))
        output = state.tensors["output"]
        if len(windows) == len(cut):
            output.copy_(self._attend(cut, cut_bias).view_as(output))
        elif len(windows):
            part = cut_bias and RelativePositions(cut_bias.table[windows], cut_bias.grid)
            new = self._attend(cut.index_select(0, windows), part)
            output.view(len(cut), self.size, -1).index_copy_(0, windows, new)
        return output

    def _touched(self, index: Index, windows: int) -> tuple[Tensor, tuple[int, ...]]:
        """The windows to compute, numbered through the batch, and the tokens in them by row."""
        batch = len(index.counts)
        touched = index.flat.new_zeros(windows, dtype=torch.bool)
        touched = touched.index_fill(0, index.flat // self.size, True)
        if self.fixed and index.is_even:
            each = min(index.counts[0], windows // batch)
            first = touched.view(batch, -1).to(torch.uint8).topk(each, dim=1).indices
            start = torch.arange(batch, device=first.device)[:, None] * (windows // batch)
            return (first + start).flatten(), (each * self.size,) * batch
        counts = touched.view(batch, -1).sum(dim=1).tolist()
        return touched.nonzero().squeeze(1), tuple(self.size * count for count in counts)

    def _attend(self, qkv: Tensor, bias: Bias) -> Tensor:
        o, _ = attend(*split_heads(qkv, self.heads), self.scale, bias)
        return join_heads(o)

    def _cut(self, x: Tensor) -> Tensor:
        """(batch, windows * size, dim) -> (batch * windows, size, dim)."""
        return x.unflatten(1, (-1, self.size)).flatten(0, 1)

    def _cut_bias(self, bias: Bias) -> Bias:
        if bias is None:
            return None
        table = bias.table.transpose(1, 2)  # (batch, windows * size, heads, lines)
        return RelativePositions(self._cut(table).transpose(1, 2), bias.grid)
