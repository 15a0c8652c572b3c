"""Token buffers: the latest known output of a token-wise operation (paper, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eventful.ops import Index


@dataclass
class TokenBuffer:
    """Holds b, every token's latest known output.

    Attributes:
        tokens: b (batch, places, dim). Readers must not keep or change it: the next frame writes
            into it.
        slots: (tokens,) the place of each token, where b is kept in another order, such as window
            order; None where places are tokens.
        index: The places that the last frame wrote to.
        before: What stood there, (total, dim).

    Example:
        >>> buffer = TokenBuffer(torch.zeros(1, 3, 1))
        >>> index = Index.from_mask(torch.tensor([[False, True, False]]))
        >>> old = buffer.replace_(index, torch.ones(1, 1))
        >>> old.tolist(), buffer.tokens.flatten().tolist()
        ([[0.0]], [0.0, 1.0, 0.0])
    """

    tokens: Tensor
    slots: Tensor | None = None
    index: Index | None = None
    before: Tensor | None = None

    @classmethod
    def new(cls, values: Tensor, batch: int, dtype: torch.dtype) -> TokenBuffer:
        """Take all tokens' outputs (batch * tokens, dim) in, to be kept in a dtype."""
        return cls(values.to(dtype).unflatten(0, (batch, -1)).contiguous())

    def reorder(self, slots: Tensor, places: int, padding: Tensor) -> None:
        """Keep tokens in another order from now on.

        Args:
            slots: (tokens,) the place of each token.
            places: Places of a row.
            padding: (dim,) what stands where no token is.
        """
        whole = padding.to(self.tokens.dtype).expand(len(self.tokens), places, -1).clone()
        self.tokens, self.slots = whole.index_copy_(1, slots, self.tokens), slots

    def replace_(self, index: Index, values: Tensor, keep: bool = True) -> Tensor | None:
        """Write the updated tokens' outputs and return what stood there before, (total, dim).

        Args:
            index: The updated tokens.
            values: (total, dim).
            keep: Keep what is overwritten, in `before`; else None is returned.
        """
        self.index = index if self.slots is None else index.moved(self.slots, self.tokens.shape[1])
        self.before = self.index.gather(self.tokens).clone() if keep else None
        self.index.scatter_(self.tokens, values)
        return self.before

    def undo_(self) -> None:
        """Take the last frame's writes back."""
        if self.index is not None and self.before is not None:
            self.index.scatter_(self.tokens, self.before)
            self.before = None
