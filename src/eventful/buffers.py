"""Token buffers: the latest known output of a token-wise operation (paper, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from eventful.ops import Index


@dataclass
class TokenBuffer:
    """Holds b (batch, tokens, dim), every token's latest known output.

    Attributes:
        tokens: b. Readers must not keep or change it: the next frame writes into it.

    Example:
        >>> import torch
        >>> buffer = TokenBuffer(torch.zeros(1, 3, 1))
        >>> index = Index.from_mask(torch.tensor([[False, True, False]]))
        >>> old = buffer.replace_(index, torch.ones(1, 1))
        >>> old.tolist(), buffer.tokens.flatten().tolist()
        ([[0.0]], [0.0, 1.0, 0.0])
    """

    tokens: Tensor

    def write_(self, index: Index, values: Tensor) -> None:
        """Write the updated tokens' outputs (total, dim)."""
        index.scatter_(self.tokens, values)

    def replace_(self, index: Index, values: Tensor) -> Tensor:
        """Write as `write_` does and return what stood there before, (total, dim)."""
        old = index.gather(self.tokens).clone()
        self.write_(index, values)
        return old
