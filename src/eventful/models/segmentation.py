"""A light head that segments what stands out, on the patch tokens of a frozen ViT-S/14."""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

from torch import Tensor, nn
from torch.nn import functional as F

from eventful.models.weights.heads import loaded

WEIGHTS = Path(__file__).parent / "data" / "segmentation.safetensors"


@final
class ResidualConvs(nn.Module):
    """Two convolutions beside a skip connection, as between DPT's fusion steps.

        x + conv(relu(conv(relu(x))))

    (Ranftl et al., *Vision Transformers for Dense Prediction*, 2021).

    Args:
        channels: Of the map.

    Example:
        >>> import torch
        >>> ResidualConvs(3)(torch.randn(1, 3, 5, 7)).shape
        torch.Size([1, 3, 5, 7])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """A map (batch, channels, height, width) of the same shape."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


@final
class SegmentationHead(nn.Module):
    """Patch tokens to a mask of the objects: projection, and three steps of growing size.

    The grid of patches is enlarged twice by two, with residual convolutions at each size, and half
    of the channels after each step. The logits are then stretched to the pixels of the input.

    Args:
        dim: Channels of the tokens.
        channels: At the size of the grid, a multiple of 4.
        patch_size: Side of a patch in pixels.
        dropout: Share of the tokens' channels that is left out in training.

    Example:
        >>> import torch
        >>> head = SegmentationHead(dim=12, channels=8).eval()
        >>> head(torch.zeros(1, 3 * 5, 12), grid=(3, 5)).shape
        torch.Size([1, 1, 42, 70])
    """

    def __init__(
        self, dim: int = 384, channels: int = 96, patch_size: int = 14, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        half, quarter = channels // 2, channels // 4
        self.dropout = nn.Dropout2d(dropout)
        self.project = nn.Conv2d(dim, channels, kernel_size=1)
        self.steps = nn.ModuleList(map(ResidualConvs, (channels, half, quarter)))
        self.narrow = nn.ModuleList(
            [nn.Conv2d(channels, half, kernel_size=1), nn.Conv2d(half, quarter, kernel_size=1)]
        )
        self.logits = nn.Conv2d(quarter, 1, kernel_size=1)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """How likely each pixel belongs to an object.

        Args:
            tokens: final-normed patch tokens, (batch, h * w, dim), row by row, no class token.
            grid: number of patches (h, w).

        Returns:
            Logits, above 0 where an object is likely, (batch, 1, patch_size h, patch_size w).

        Raises:
            ValueError: The tokens do not fill the grid.
        """
        height, width = grid
        if tokens.shape[1] != height * width:
            raise ValueError(
                f"expected {height} x {width} = {height * width} patch tokens, got "
                f"{tokens.shape[1]}; leave the class token out: tokens[:, 1:]"
            )
        x = self.dropout(tokens.transpose(1, 2).unflatten(2, grid))  # (batch, dim, h, w)
        x = self.steps[0](self.project(x))
        for narrow, step in zip(self.narrow, self.steps[1:], strict=True):
            x = step(narrow(F.interpolate(x, scale_factor=2, mode="bilinear")))
        size = (height * self.patch_size, width * self.patch_size)
        return F.interpolate(self.logits(x), size=size, mode="bilinear")


def segmentation_head(path: str | os.PathLike[str] | None = None) -> SegmentationHead:
    """The head with its trained weights, in eval mode.

    It is trained on the dense tokens of `saliency_vit` on seven sequences of DAVIS 2016: animals,
    vehicles and people that move, each of them the one thing that a sequence is about.
    `benchmarks/train_segmentation.py` makes the weights.

    Args:
        path: Other weights of that script; by default those that come with the package.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.

    Example:
        >>> head = segmentation_head()
        >>> sum(weight.numel() for weight in head.parameters())
        260881
    """
    return loaded(SegmentationHead(), path or WEIGHTS, "benchmarks/train_segmentation.py")
