"""timm's `vision_transformer_sam.Block`: Segment Anything and other ViTDet-style encoders."""

from __future__ import annotations

from typing import final

import torch
from timm.models.vision_transformer_sam import Attention, get_rel_pos
from torch import Tensor, nn

from eventful.backbones import timm_parts as parts
from eventful.backbones.inventory import Types, account
from eventful.block.block import TokenOperations
from eventful.block.gating import run
from eventful.block.state import Grid, Place, Stage


@final
class TimmSamBlock(parts.TimmParts):
    """Gates a SAM `Block`: windows with padding, decomposed relative positions, LayerScale.

    Tokens come as a grid (batch, height, width, dim). A padding token is projected from zeros, as
    in the original, so its q, k, v are the projection's bias.
    """

    has_grid = True

    ls1: nn.Module
    ls2: nn.Module
    drop_path1: nn.Module
    drop_path2: nn.Module

    @staticmethod
    def account(original: nn.Module, name: str) -> None:
        """Check that the block holds only what this adapter knows."""
        children: dict[str, Types] = {
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
        for norm in ("norm1", "norm2"):
            parts.account_norm(getattr(original, norm), f"{name}.{norm}")
        children = dict.fromkeys(("qkv", "proj"), (nn.Linear,))
        children |= dict.fromkeys(("q_norm", "k_norm"), parts.NORM_OR_NONE)
        children |= dict.fromkeys(("attn_drop", "proj_drop"), parts.DROPOUT)
        own = frozenset({"rel_pos_h", "rel_pos_w"})
        account(original.get_submodule("attn"), f"{name}.attn", children, own, called=False)
        parts.account_attention_drop(original.get_submodule("attn"), f"{name}.attn")
        parts.account_mlp(original.get_submodule("mlp"), f"{name}.mlp")

    @property
    def window_size(self) -> int:
        """Side of the windows that attention stays within; 0 in global blocks."""
        return self.original.window_size  # type: ignore[return-value]

    def bias_grid(self, grid: Grid | None) -> Grid | None:
        """Relative positions lie within a window, or span the frame."""
        if not self.attn.use_rel_pos:
            return None
        return (self.window_size, self.window_size) if self.window_size else grid

    def to_qkv(self, c: Tensor, place: Place) -> Tensor:
        """Project to q, k, v with their norms."""
        attn = self.attn
        q, k, v = attn.qkv(c).unflatten(1, (3, self.heads, -1)).unbind(1)
        return torch.cat([x.flatten(1) for x in (attn.q_norm(q), attn.k_norm(k), v)], dim=1)

    def relative_tables(self, q: Tensor, positions: Tensor, grid: Grid) -> Tensor:
        """Look up the relative positions of queries, within their windows or across the frame."""
        lines = self.bias_grid(grid)
        assert lines is not None
        y, x = positions // grid[1] % lines[0], positions % grid[1] % lines[1]
        table_h = relative_table(q, y, lines[0], self.attn.rel_pos_h)
        table_w = relative_table(q, x, lines[1], self.attn.rel_pos_w)
        return torch.cat([table_h, table_w], dim=2)

    def mix(self, o: Tensor, qkv: Tensor) -> Tensor:
        """Nothing stands between attention and projection."""
        return o

    def to_out(self, c: Tensor) -> Tensor:
        """Project the attention output, with LayerScale."""
        return parts.drop_path(self.drop_path1, self.ls1(self.attn.proj_drop(self.attn.proj(c))))

    def to_mlp(self, c: Tensor) -> Tensor:
        """Apply the MLP, with LayerScale."""
        return parts.drop_path(self.drop_path2, self.ls2(self.mlp(c)))

    def linears(self) -> dict[Stage, list[TokenOperations]]:
        """List the linear layers that each gate guards."""
        return {
            "qkv": [parts.linear(self.attn.qkv)],
            "proj": [parts.linear(self.attn.proj)],
            "mlp": parts.mlp_linears(self.mlp),
        }

    def forward(self, x: Tensor) -> Tensor:
        """Process tokens (batch, height, width, dim), as the original block does."""
        self.check_call(None, False)
        if self.binding is None:
            return self.original.forward(x)
        _, height, width, _ = x.shape
        return run(self, x.flatten(1, 2), Place(grid=(height, width))).unflatten(1, (height, width))


def relative_table(q: Tensor, position: Tensor, size: int, rel_pos: Tensor) -> Tensor:
    """Look up one axis of the relative positions of some queries.

    table[i, j] = q_i . R[position_i - j], one product with all of R and a choice of its columns

    Args:
        q: (total, heads, dim).
        position: (total,) along this axis.
        size: Lines of the key grid along it.
        rel_pos: R as the block holds it (offsets, dim), resampled by timm to 2 * size - 1 offsets
            where it has another number.

    Returns:
        (total, heads, size).
    """
    by_pair = get_rel_pos(size, size, rel_pos)  # (size, size, dim): R[y - j] for y and j
    by_offset = torch.cat([by_pair[0].flip(0), by_pair[1:, 0]])
    offsets = position[:, None] - torch.arange(size, device=q.device) + size - 1
    choice = offsets[:, None].expand(-1, q.shape[1], -1)
    return (q @ by_offset.mT).gather(2, choice)
