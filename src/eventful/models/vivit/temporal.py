"""The temporal model: a transformer over what the spatial model says of successive moments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eventful.models.vivit.blocks import EPS, FRAMES, initialize_, transformer_blocks


class TemporalModel(nn.Module):
    """A transformer over the class tokens of successive moments, with one of its own.

    Attributes:
        cls_token: (1, 1, dim).
        pos_embed: (1, 1 + clips, dim), the class token's first.
        blocks: The transformer blocks.
        norm: The final layer norm.

    Example:
        >>> import torch
        >>> TemporalModel(clips=5, dim=24, heads=3, depth=1)(torch.zeros(2, 5, 24)).shape
        torch.Size([2, 24])
    """

    num_prefix_tokens = 1

    def __init__(self, clips: int = 16, dim: int = 768, heads: int = 12, depth: int = 4) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + clips, dim))
        self.blocks = transformer_blocks(depth, dim, heads)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        initialize_(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """Describe a view.

        Args:
            tokens: (batch, clips, dim), the spatial model's outputs in order.

        Returns:
            (batch, dim).

        Raises:
            ValueError: There are more or fewer clips than learned positions.
        """
        _, positions, dim = self.pos_embed.shape
        if tokens.ndim != 3 or tokens.shape[1:] != (positions - 1, dim):
            raise ValueError(
                f"expected tokens (batch, {positions - 1}, {dim}), got {tuple(tokens.shape)}; a "
                f"view has {FRAMES * (positions - 1)} frames"
            )
        x = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return self.norm(self.blocks(x + self.pos_embed)[:, 0])
