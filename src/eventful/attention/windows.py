"""Attention within windows: only windows that hold an updated token change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eventful.attention.form import (
    Attention,
    AttentionState,
    Bias,
    Keys,
    join_heads,
)
from eventful.ops import Index, RelativePositions, attend
from eventful.ops.recompute import recompute_windows_


class Seats(NamedTuple):
    """How chosen tokens sit in their windows: those of a window side by side, as many in each.

    Attributes:
        touched: (touched,) windows that hold a chosen token, counted through all rows, ascending.
        order: (touched, most) which of the chosen tokens sits where. Windows are filled up to the
            fullest one; what sits on a seat too many is any token.
        seat: (total,) where each of the chosen tokens sits, counted through all seats.
        place: (total,) its place, counted through the places of the touched windows.
    """

    touched: Tensor
    order: Tensor
    seat: Tensor
    place: Tensor

    def seated(self, x: Tensor) -> Tensor:
        """(total, ...) -> (touched, most, ...)."""
        return x.index_select(0, self.order.flatten()).unflatten(0, self.order.shape)

    def risen(self, x: Tensor) -> Tensor:
        """(touched, most, ...) -> (total, ...), the inverse."""
        return x.flatten(0, 1).index_select(0, self.seat)


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

    def slots_of(self, index: Index) -> Tensor:
        """(total,) the place of each chosen token, counted through all rows."""
        row = index.flat.div(index.tokens, rounding_mode="floor")
        return row * self.places + self.slots(index.flat.device)[index.positions]

    def seats(self, index: Index) -> Seats:
        """Where chosen tokens sit.

        Example:
            >>> seats = Windows((2, 3), 2).seats(Index(torch.tensor([1, 2, 3]), (3,), 6))
            >>> seats.touched.tolist(), seats.order.tolist(), seats.place.tolist()
            ([0, 1], [[0, 2], [1, 0]], [1, 4, 2])
        """
        area, slots = self.size**2, self.slots_of(index)
        window, order = (slots // area).sort(stable=True)
        touched, which, counts = window.unique_consecutive(return_inverse=True, return_counts=True)
        most, before = int(counts.max()), counts.cumsum(0) - counts
        rank = torch.arange(len(slots), device=slots.device) - before[which]
        seat = which * most + rank
        filled = order.new_zeros(len(touched) * most).index_copy_(0, seat, order)
        seats, places = (torch.empty_like(slots).index_copy_(0, order, x) for x in (seat, which))
        return Seats(touched, filled.unflatten(0, (-1, most)), seats, places * area + slots % area)


class Windowed(Attention):
    """Full attention within each window, over tokens in window order.

    A window without an updated token keeps its output, which is exact; the paper recomputes all of
    them (`keep=False`).

    Args:
        heads: H.
        scale: Factor on the scores q . k.
        fixed: Compute min(updated tokens, windows) windows a row on every frame: as many as can
            hold one.
        size: Tokens of a window, padding included.
        keep: Keep the output of windows without an updated token.
    """

    def __init__(
        self, heads: int, scale: float, fixed: bool = False, *, size: int, keep: bool = True
    ) -> None:
        super().__init__(heads, scale, fixed)
        self.size = size
        self.keep = keep

    def start(
        self, qkv: Tensor, bias: Bias = None, kv: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """Compute all windows of qkv (batch, windows * size, 3 * heads * dim)."""
        assert kv is None  # keys are pooled across the frame alone
        batch, places, _ = qkv.shape
        output = self._attend(self._cut(qkv), self._cut_bias(bias)).view(batch, places, -1)
        state = AttentionState(
            {"output": output} if self.keep else {},
            corrected=(0,) * batch,
            planned=(places,) * batch,
        )
        return output, state

    def update(
        self,
        state: AttentionState,
        qkv: Tensor,
        old: Tensor,
        index: Index,
        bias: Bias = None,
        keys: Keys | None = None,
    ) -> Tensor:
        """Compute the windows that hold an updated token; `index` is in window order too."""
        if not self.keep:
            return self.start(qkv, bias)[0]
        cut, output = self._cut(qkv), state.tensors["output"]
        touched = torch.zeros(len(cut), dtype=torch.bool, device=qkv.device)
        touched = touched.index_fill(0, index.flat // self.size, True)
        own = self._cut_bias(bias)
        if self.fixed:
            each = [min(count, len(cut) // len(qkv)) for count in index.counts]
            state.planned, state.more = tuple(self.size * count for count in each), None
            spare = sum(each)
        else:
            state.planned = (0,) * len(qkv)
            state.more = self.size * touched.view(len(qkv), -1).sum(dim=1)
            spare = None
        recompute_windows_(self._cut(output), cut, self.heads, self.scale, touched, own, spare)
        return output

    def _attend(self, qkv: Tensor, bias: Bias) -> Tensor:
        o, _ = attend(*self.split(qkv), self.scale, bias)
        return join_heads(o)

    def _cut(self, x: Tensor) -> Tensor:
        """(batch, windows * size, dim) -> (batch * windows, size, dim)."""
        return x.unflatten(1, (-1, self.size)).flatten(0, 1)

    def _cut_bias(self, bias: Bias) -> Bias:
        if bias is None:
            return None
        table = bias.table.transpose(1, 2)  # (batch, windows * size, heads, lines)
        return RelativePositions(self._cut(table).transpose(1, 2), bias.grid)
