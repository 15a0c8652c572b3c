"""The set of tokens that a gate lets through, for a batch of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class Index:
    """Which tokens of each batch row are updated on this frame.

    Rows may hold different numbers of tokens, from none to all, so the set is kept flat:
    `flat` lists `row * tokens + token`, ascending, and `counts` says how many belong to each row.
    A set made of positions, as by top-r, never looks at their values: its shapes are known without
    waiting for a device, and fixed for a compiler.

    Args:
        flat: (total,) int64 positions in the flattened (batch * tokens) axis, ascending.
        counts: Tokens selected in each row; they sum to `total`.
        tokens: N, the number of tokens in a row.
        ascending: False for a set whose tokens are named in another order (`moved`).

    Example:
        >>> index = Index.from_mask(torch.tensor([[True, False, True], [False, False, False]]))
        >>> index.counts, index.flat.tolist()
        ((2, 0), [0, 2])
        >>> index.gather(torch.arange(6.0).view(2, 3, 1)).flatten().tolist()
        [0.0, 2.0]
    """

    flat: Tensor
    counts: tuple[int, ...]
    tokens: int
    ascending: bool = True

    @classmethod
    def from_mask(cls, mask: Tensor) -> Index:
        """Build the set from a boolean mask (batch, tokens)."""
        flat = mask.flatten().nonzero().squeeze(1)
        return cls(flat, tuple(mask.sum(dim=1).tolist()), mask.shape[1])

    @classmethod
    def from_positions(cls, positions: Tensor, tokens: int) -> Index:
        """Build the set from token positions (batch, active), as many in every row."""
        batch, active = positions.shape
        flat = flatten_positions(positions.sort(dim=1).values, tokens)
        return cls(flat, (active,) * batch, tokens)

    @classmethod
    def from_rows(cls, rows: Sequence[Tensor], tokens: int) -> Index:
        """Build the set from the ascending positions of each row."""
        flat = torch.cat([own + row * tokens for row, own in enumerate(rows)])
        return cls(flat, tuple(map(len, rows)), tokens)

    @classmethod
    def everything(cls, batch: int, tokens: int, device: torch.device | None = None) -> Index:
        """Build the set of all tokens, as on the first frame."""
        return cls(torch.arange(batch * tokens, device=device), (tokens,) * batch, tokens)

    @property
    def is_everything(self) -> bool:
        """Whether every token of every row is in the set, in order."""
        return self.ascending and all(count == self.tokens for count in self.counts)

    @property
    def is_nothing(self) -> bool:
        """Whether no token is in the set."""
        return not any(self.counts)

    @property
    def starts(self) -> tuple[int, ...]:
        """Where the tokens of each row begin in `flat`."""
        return (0, *accumulate(self.counts))[:-1]

    @property
    def is_even(self) -> bool:
        """Whether every row holds as many tokens."""
        return all(count == self.counts[0] for count in self.counts)

    @property
    def positions(self) -> Tensor:
        """(total,) the token's position within its own row."""
        return self.flat % self.tokens

    def even_positions(self) -> Tensor:
        """(batch, active) positions of an even set."""
        assert self.is_even
        return self.positions.view(len(self.counts), self.counts[0])

    def rows(self) -> list[Tensor]:
        """Positions of the selected tokens, one (count,) tensor for each batch row."""
        return list(self.positions.split(self.counts))

    def mask(self) -> Tensor:
        """The set as a boolean mask (batch, tokens)."""
        size = len(self.counts) * self.tokens
        mask = torch.zeros(size, dtype=torch.bool, device=self.flat.device)
        return mask.index_fill(0, self.flat, True).view(-1, self.tokens)

    def gather(self, x: Tensor) -> Tensor:
        """Pick the selected tokens: (batch, tokens, dim) -> (total, dim)."""
        rows = x.flatten(0, 1)
        return rows if self.is_everything else rows.index_select(0, self.flat)

    def scatter_(self, x: Tensor, values: Tensor) -> None:
        """Write `values` (total, dim) over the selected tokens of `x` (batch, tokens, dim)."""
        if self.is_everything:
            x.copy_(values.view_as(x))
        else:
            x.view(-1, x.shape[-1]).index_copy_(0, self.flat, values.to(x.dtype))

    def moved(self, slots: Tensor, size: int) -> Index:
        """Name the same tokens, in the same sequence, by where they lie in another order.

        Args:
            slots: (tokens,) the place of each token.
            size: Places in a row; some may belong to no token.
        """
        row = self.flat.div(self.tokens, rounding_mode="floor")
        flat = row * size + slots[self.positions]
        return Index(flat, self.counts, size, ascending=False)

    def after_prefix(self, prefix: int) -> Index:
        """Move a set over patch tokens behind `prefix` tokens that are always selected."""
        return self.between(prefix, 0)

    def between(self, prefix: int, suffix: int) -> Index:
        """Put tokens that are always selected in front of a set over patch tokens and behind it."""
        if prefix == suffix == 0:
            return self
        if self.is_even:
            tokens, rows = prefix + self.tokens + suffix, len(self.counts)
            places = torch.arange(tokens, device=self.flat.device).expand(rows, -1)
            front, back = places[:, :prefix], places[:, tokens - suffix :]
            positions = torch.cat([front, self.even_positions() + prefix, back], dim=1)
            counts = (positions.shape[1],) * rows
            return Index(flatten_positions(positions, tokens), counts, tokens)
        mask = self.mask()
        front, back = (mask.new_ones(len(mask), count) for count in (prefix, suffix))
        return Index.from_mask(torch.cat([front, mask, back], dim=1))

    def with_rows(self, rows: list[int]) -> Index:
        """Add every token of the given batch rows."""
        if not rows:
            return self
        mask = self.mask()
        mask[rows] = True
        return Index.from_mask(mask)


def flatten_positions(positions: Tensor, tokens: int) -> Tensor:
    """Number positions (batch, active) within rows of `tokens` through the whole batch."""
    start = torch.arange(len(positions), device=positions.device)[:, None] * tokens
    return (positions + start).flatten()
