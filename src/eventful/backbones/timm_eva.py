"""timm's `eva.EvaBlock`: EVA-02, DINOv3, Perception Encoder and rotary ViTs."""

from __future__ import annotations

from typing import final

from timm.layers import AttentionRope
from timm.models.eva import EvaAttention
from torch import Tensor, nn

from eventful.backbones import timm_parts as parts
from eventful.backbones.inventory import account
from eventful.block.gating import run
from eventful.block.state import Place


@final
class TimmEvaBlock(parts.TimmPreNormBlock):
    """Gates an `EvaBlock`: rotary positions, grouped queries, inner norm, attention gate.

    Updated tokens are rotated by their own positions and buffered rotated. Grouped keys and values
    are buffered once for each query head. LayerScale belongs to the buffered functions.
    """

    gamma_1: Tensor | None
    gamma_2: Tensor | None
    drop_path1: nn.Module
    drop_path2: nn.Module

    @staticmethod
    def account(original: nn.Module, name: str) -> None:
        """Check that the block holds only what this adapter knows."""
        children = {
            "norm1": parts.NORMS,
            "attn": (EvaAttention, AttentionRope),
            "drop_path1": parts.DROP_PATH,
            "norm2": parts.NORMS,
            "mlp": parts.MLPS,
            "drop_path2": parts.DROP_PATH,
        }
        account(original, name, children, frozenset({"gamma_1", "gamma_2"}))
        parts.account_drop_path(original, name)
        parts.account_branches(original, name)

    def to_out(self, c: Tensor) -> Tensor:
        """Project the attention output, with LayerScale."""
        c = self.attn.proj_drop(self.attn.proj(c))
        return parts.drop_path(self.drop_path1, c if self.gamma_1 is None else self.gamma_1 * c)

    def to_mlp(self, c: Tensor) -> Tensor:
        """Apply the MLP, with LayerScale."""
        c = self.mlp(c)
        return parts.drop_path(self.drop_path2, c if self.gamma_2 is None else self.gamma_2 * c)

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Process tokens (batch, tokens, dim), with the signature of the original block."""
        self.check_call(attn_mask, is_causal)
        if self.binding is None:
            return self.original.forward(x, rope=rope)
        return run(self, x, Place(rope))
