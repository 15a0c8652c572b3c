"""`eventful.models.vitdet`: the blocks of ViTDet's backbone."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from eventful.backbones.inventory import Types, account
from eventful.block.block import EventfulBlock, TokenOperations
from eventful.block.gating import run
from eventful.block.state import Grid, Place, Stage
from eventful.models.vitdet.attention import Attention
from eventful.models.vitdet.backbone import Mlp


@final
class VitDetBlock(EventfulBlock):
    """Gates a ViTDet `Block`: windows with padding, decomposed relative positions.

    Tokens come as a grid (batch, height, width, dim). A padding token is projected from zeros, as
    in the original, so its q, k, v are the projection's bias.
    """

    has_grid = True
    attn: Attention
    norm1: nn.LayerNorm
    norm2: nn.LayerNorm
    mlp: Mlp

    @staticmethod
    def account(original: nn.Module, name: str) -> None:
        """Check that the block holds only what this adapter knows."""
        norm: Types = (nn.LayerNorm,)
        children = {"norm1": norm, "attn": (Attention,), "norm2": norm, "mlp": (Mlp,)}
        account(original, name, children)
        for child in ("norm1", "norm2"):
            _account_norm(original.get_submodule(child), f"{name}.{child}")
        linear: Types = (nn.Linear,)
        own = frozenset({"rel_pos_h", "rel_pos_w"})
        attn, projections = original.get_submodule("attn"), {"qkv": linear, "proj": linear}
        account(attn, f"{name}.attn", projections, own, called=False)
        layers = {"fc1": linear, "act": (nn.GELU,), "fc2": linear}
        account(original.get_submodule("mlp"), f"{name}.mlp", layers)

    @property
    def heads(self) -> int:
        """H, the number of heads."""
        return self.attn.num_heads

    @property
    def head_dim(self) -> int:
        """d, the size of one head."""
        return self.attn.head_dim

    @property
    def scale(self) -> float:
        """Factor on the scores."""
        return self.attn.scale

    @property
    def window_size(self) -> int:
        """Side of the windows that attention stays within; 0 in global blocks."""
        return self.attn.window_size

    def bias_grid(self, grid: Grid | None) -> Grid | None:
        """Relative positions lie within a window, or span the frame."""
        return (self.window_size, self.window_size) if self.window_size else grid

    def norm_1(self, x: Tensor) -> Tensor:
        """Normalise the input of the attention branch."""
        return self.norm1(x)

    def norm_2(self, x: Tensor) -> Tensor:
        """Normalise the input of the MLP branch."""
        return self.norm2(x)

    def to_qkv(self, c: Tensor, place: Place) -> Tensor:
        """Project to q, k, v."""
        return self.attn.qkv(c)

    def relative_tables(self, q: Tensor, positions: Tensor, grid: Grid) -> Tensor:
        """Look up the relative positions of queries, within their windows or across the frame."""
        return self.attn.relative_tables(q, positions, grid)

    def mix(self, o: Tensor, qkv: Tensor) -> Tensor:
        """Nothing stands between attention and projection."""
        return o

    def to_out(self, c: Tensor) -> Tensor:
        """Project the attention output."""
        return self.attn.proj(c)

    def to_mlp(self, c: Tensor) -> Tensor:
        """Apply the MLP."""
        return self.mlp(c)

    def linears(self) -> dict[Stage, list[TokenOperations]]:
        """List the linear layers that each gate guards."""
        return {
            "qkv": [_linear(self.attn.qkv)],
            "proj": [_linear(self.attn.proj)],
            "mlp": [_linear(self.mlp.fc1), _linear(self.mlp.fc2)],
        }

    def forward(self, x: Tensor) -> Tensor:
        """Process tokens (batch, height, width, dim), as the original block does."""
        self.check_call(None, False)
        if self.binding is None:
            return self.original.forward(x)
        _, height, width, _ = x.shape
        return run(self, x.flatten(1, 2), Place(grid=(height, width))).unflatten(1, (height, width))


def _account_norm(norm: nn.Module, name: str) -> None:
    """Accept a norm over the last axis."""
    account(norm, name, {}, frozenset({"weight", "bias"}))
    if len(getattr(norm, "normalized_shape", (1,))) != 1:
        raise ValueError(f"cannot convert {name}: it norms over more than the last axis")


def _linear(layer: nn.Linear) -> TokenOperations:
    return TokenOperations(layer.in_features, layer.out_features, layer.bias is not None)
