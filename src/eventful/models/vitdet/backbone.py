"""The plain ViT backbone of ViTDet: windows, a few global blocks, relative positions in all."""

from __future__ import annotations

from collections.abc import Collection
from typing import final

import torch
from torch import Tensor, nn

from eventful.models.vitdet.attention import Attention
from eventful.models.vitdet.positions import (
    RelativeKind,
    absolute_positions,
    check_relative_kind,
)

MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)  # Detectron2's for ViTDet, RGB
STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


@final
class Mlp(nn.Module):
    """Two linear layers with a GELU in between.

    Args:
        dim: Size of a token.
        hidden: Size in between.

    Example:
        >>> Mlp(24, 96)(torch.zeros(1, 3, 5, 24)).shape
        torch.Size([1, 3, 5, 24])
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Process tokens (..., dim)."""
        return self.fc2(self.act(self.fc1(x)))


@final
class Block(nn.Module):
    """A pre-norm transformer block on a token grid.

        x = x + attn(norm1(x));   x = x + mlp(norm2(x))

    Args:
        dim: Size of a token.
        attn: Its attention.
        mlp_ratio: Hidden size of the MLP relative to `dim`.

    Example:
        >>> block = Block(24, Attention(24, 3, window_size=2, trained_grid=(2, 2)))
        >>> block(torch.zeros(1, 3, 5, 24)).shape, block.window_size
        (torch.Size([1, 3, 5, 24]), 2)
    """

    def __init__(self, dim: int, attn: Attention, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    @property
    def window_size(self) -> int:
        """Side of the windows; 0 in global blocks."""
        return self.attn.window_size

    def forward(self, x: Tensor) -> Tensor:
        """Process tokens (batch, height, width, dim)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@final
class PatchEmbed(nn.Module):
    """Patches of an image to tokens, by one convolution.

    Args:
        patch_size: Side of a patch in pixels.
        in_chans: Channels of an image.
        dim: Size of a token.

    Example:
        >>> PatchEmbed(4, 3, 24)(torch.zeros(1, 3, 12, 20)).shape
        torch.Size([1, 3, 5, 24])
    """

    def __init__(self, patch_size: int, in_chans: int, dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Embed images (batch, channels, height, width).

        Raises:
            ValueError: The images have the wrong shape, or are cut by a patch.
        """
        channels, patch = self.proj.in_channels, self.patch_size
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(
                f"expected images (batch, {channels}, height, width), got {tuple(x.shape)}"
            )
        _check_sides((x.shape[2], x.shape[3]), patch)
        return self.proj(x).permute(0, 2, 3, 1)


@final
class ViTDetBackbone(nn.Module):
    """The ViT backbone of ViTDet (Li et al., 2022): windowed blocks and a few global ones.

    As in Detectron2 there is no class token and no norm at the end. Images of other sizes than the
    trained one work; positions are then resized.

    Args:
        img_size: Side of the square images that it is trained for, or their (height, width).
        patch_size: Side of a patch in pixels.
        embed_dim: Size of a token.
        depth: Blocks.
        num_heads: Heads of a block; they divide `embed_dim`.
        mlp_ratio: Hidden size of the MLPs relative to `embed_dim`.
        window_size: Side of the windows in tokens.
        global_blocks: The blocks, from 0 on, that attend over the whole grid.
        position_grid: Side of the learned grid of absolute positions.
        rel_positions: The way of relative positions to other sizes: "linear" is Detectron2's,
            "paper" that of the paper on Eventful Transformers, see `positions.by_line`.
        in_chans: Channels of an image.
        qkv_bias: Whether the projections to q, k, v have a bias.

    Attributes:
        pretrained_cfg: `mean` and `std` of Detectron2's ViTDet, for RGB images in [0, 1].

    Raises:
        ValueError: Sizes do not fit each other.

    Example:
        >>> model = ViTDetBackbone(
        ...     (12, 20), patch_size=4, embed_dim=24, depth=2, num_heads=3, window_size=2,
        ...     global_blocks=(1,)
        ... ).eval()
        >>> model(torch.zeros(1, 3, 12, 20)).shape, model(torch.zeros(1, 3, 8, 24)).shape
        (torch.Size([1, 3, 5, 24]), torch.Size([1, 2, 6, 24]))
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 1024,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        window_size: int = 14,
        global_blocks: Collection[int] = (2, 5, 8, 11),
        position_grid: int = 14,
        rel_positions: RelativeKind = "linear",
        in_chans: int = 3,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        _check_sides((height, width), patch_size)
        check_relative_kind(rel_positions)
        _check_blocks(embed_dim, num_heads, depth, window_size, global_blocks)
        self.pretrained_cfg = {"mean": MEAN, "std": STD}
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, position_grid, position_grid, embed_dim))
        trained_grid = (height // patch_size, width // patch_size)

        def attention(i: int) -> Attention:
            window, grid = window_size, (window_size, window_size)
            if i in global_blocks:
                window, grid = 0, trained_grid
            return Attention(embed_dim, num_heads, window, grid, rel_positions, qkv_bias)

        self.blocks = nn.ModuleList(Block(embed_dim, attention(i), mlp_ratio) for i in range(depth))
        self._initialise()

    def _initialise(self) -> None:
        """Start as Detectron2 does: small normal weights, biases and relative positions at 0."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Tokens of some images.

        Args:
            x: Normalised images (batch, channels, height, width), sides in whole patches.

        Returns:
            (batch, height / patch, width / patch, dim).

        Raises:
            ValueError: The images have the wrong shape, or are cut by a patch.
        """
        x = self.patch_embed(x)
        x = x + absolute_positions(self.pos_embed, (x.shape[1], x.shape[2]))
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """The same as `forward_features`: this model has no head."""
        return self.forward_features(x)


def _check_sides(sides: tuple[int, int], patch: int) -> None:
    height, width = sides
    if min(sides) < patch or height % patch or width % patch:
        whole = tuple(max(-(-side // patch), 1) * patch for side in sides)
        raise ValueError(
            f"expected sides that are multiples of {patch} pixels, got {height} x {width}; pad the "
            f"images at the bottom and on the right, to {whole[0]} x {whole[1]}"
        )


def _check_blocks(
    dim: int, heads: int, depth: int, window: int, global_blocks: Collection[int]
) -> None:
    if dim % heads:
        raise ValueError(f"num_heads must divide embed_dim, got {heads} and {dim}")
    if window < 1:
        raise ValueError(
            f"window_size must be at least 1, got {window}; for a model without windows name all "
            f"blocks in global_blocks"
        )
    outside = sorted(set(global_blocks) - set(range(depth)))
    if outside:
        raise ValueError(
            f"global_blocks must lie within 0 to {depth - 1}, the blocks that there are, got "
            f"{outside}"
        )
