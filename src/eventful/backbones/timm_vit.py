"""timm's `vision_transformer.Block`: plain ViT, DeiT-3, DINOv2, CLIP and SigLIP towers."""

from __future__ import annotations

from typing import final

from timm.layers import Attention
from torch import Tensor, nn

from eventful.backbones import timm_parts as parts
from eventful.backbones.inventory import account
from eventful.block.gating import run
from eventful.block.state import Place


@final
class TimmBlock(parts.TimmPreNormBlock):
    """Gates a `Block`: LayerScale, query-key norms and any of timm's MLPs included.

    LayerScale belongs to the buffered functions.
    """

    ls1: nn.Module
    ls2: nn.Module
    drop_path1: nn.Module
    drop_path2: nn.Module

    @staticmethod
    def account(original: nn.Module, name: str) -> None:
        """Check that the block holds only what this adapter knows."""
        children = {
            "norm1": parts.NORMS,
            "attn": (Attention,),
            "ls1": parts.LAYER_SCALE,
            "drop_path1": parts.DROP_PATH,
            "norm2": parts.NORMS,
            "mlp": parts.MLPS,
            "ls2": parts.LAYER_SCALE,
            "drop_path2": parts.DROP_PATH,
        }
        account(original, name, children)
        parts.account_drop_path(original, name)
        parts.account_branches(original, name)

    def to_out(self, c: Tensor) -> Tensor:
        """Project the attention output, with LayerScale."""
        return parts.drop_path(self.drop_path1, self.ls1(self.attn.proj_drop(self.attn.proj(c))))

    def to_mlp(self, c: Tensor) -> Tensor:
        """Apply the MLP, with LayerScale."""
        return parts.drop_path(self.drop_path2, self.ls2(self.mlp(c)))

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Process tokens (batch, tokens, dim), with the signature of the original block."""
        self.check_call(attn_mask, is_causal)
        return self.original.forward(x) if self.binding is None else run(self, x, Place())
