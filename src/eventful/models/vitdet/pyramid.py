"""The simple feature pyramid of ViTDet: five scales from the backbone's one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@final
class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel.

    Args:
        channels: Their number.

    Example:
        >>> x = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
        >>> ChannelNorm(2)(x).flatten().round(decimals=3).tolist()
        [-1.0, 1.0]
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (batch, channels, height, width)."""
        channels_last = x.permute(0, 2, 3, 1)
        normed = F.layer_norm(channels_last, self.weight.shape, self.weight, self.bias, eps=1e-6)
        return normed.permute(0, 3, 1, 2)


@final
class NormedConv(nn.Conv2d):
    """A convolution without bias and a norm behind it, with the parameter names of Detectron2.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        kernel_size: Side of the kernel, odd; the size of the map stays.

    Example:
        >>> list(NormedConv(3, 5, 1).state_dict())
        ['weight', 'norm.weight', 'norm.bias']
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int) -> None:
        super().__init__(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = ChannelNorm(outputs)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve and normalise (batch, channels, height, width)."""
        return self.norm(super().forward(input))


@final
class SimplePyramid(nn.Module):
    """Maps of several scales, each from the last map of a plain backbone.

        x -> transposed convolutions (up), nothing, or max pooling (down)
          -> 1 x 1 convolution, norm -> 3 x 3 convolution, norm

    (Li et al., *Exploring Plain Vision Transformer Backbones for Object Detection*, 2022). One more
    map takes every second pixel of the coarsest one. With patches of 16 pixels and the default
    scales the maps are `p2` to `p6`, with strides of 4 to 64 pixels: level = log2(stride).

    Args:
        dim: Channels of the backbone.
        out_channels: Channels of every map.
        scales: Size of each map relative to the backbone's: any of 4, 2, 1 and 0.5, falling.
        patch_size: Pixels of a patch, a power of two; it names the maps.

    Attributes:
        strides: Pixels to a step of each map, by its name.

    Raises:
        ValueError: A scale or the patch size is not one of these.

    Example:
        >>> pyramid = SimplePyramid(8, out_channels=4)
        >>> maps = pyramid(torch.zeros(1, 3, 5, 8))
        >>> {name: tuple(x.shape[1:]) for name, x in maps.items()}
        {'p2': (4, 12, 20), 'p3': (4, 6, 10), 'p4': (4, 3, 5), 'p5': (4, 1, 2), 'p6': (4, 1, 1)}
        >>> pyramid.strides
        {'p2': 4, 'p3': 8, 'p4': 16, 'p5': 32, 'p6': 64}
    """

    def __init__(
        self,
        dim: int,
        out_channels: int = 256,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        patch_size: int = 16,
    ) -> None:
        super().__init__()
        _check(scales, patch_size)
        levels = {scale: round(math.log2(patch_size / scale)) for scale in scales}
        self.levels = nn.ModuleDict(
            {f"p{level}": _branch(dim, out_channels, scale) for scale, level in levels.items()}
        )
        coarsest = levels[scales[-1]]
        self.strides = {f"p{level}": 2**level for level in (*levels.values(), coarsest + 1)}

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Compute all maps.

        Args:
            tokens: (batch, height, width, dim), as the backbone gives them.

        Returns:
            The maps (batch, out_channels, ...) by name, finest first. The side of a map at half the
            backbone's scale is rounded down, that of the last map up.
        """
        x = tokens.permute(0, 3, 1, 2)
        maps = {name: branch(x) for name, branch in self.levels.items()}
        *_, coarsest = maps.values()
        *_, name = self.strides
        maps[name] = F.max_pool2d(coarsest, kernel_size=1, stride=2)
        return maps


def _branch(dim: int, out_channels: int, scale: float) -> nn.Sequential:
    """Build one scale; the layers' numbers are those of Detectron2."""
    layers, width = _resampling(dim, scale)
    layers += [NormedConv(width, out_channels, 1), NormedConv(out_channels, out_channels, 3)]
    return nn.Sequential(*layers)


def _resampling(dim: int, scale: float) -> tuple[list[nn.Module], int]:
    """Build what changes the size of the map, and say how many channels it gives."""
    if scale == 4:
        first = nn.ConvTranspose2d(dim, dim // 2, kernel_size=2, stride=2)
        second = nn.ConvTranspose2d(dim // 2, dim // 4, kernel_size=2, stride=2)
        return [first, ChannelNorm(dim // 2), nn.GELU(), second], dim // 4
    if scale == 2:
        return [nn.ConvTranspose2d(dim, dim // 2, kernel_size=2, stride=2)], dim // 2
    return [nn.MaxPool2d(kernel_size=2, stride=2)] if scale == 0.5 else [], dim


def _check(scales: Sequence[float], patch_size: int) -> None:
    known = [scale for scale in (4, 2, 1, 0.5) if scale in scales]
    if not known or list(scales) != known:
        raise ValueError(
            f"expected scales out of 4, 2, 1 and 0.5, falling and each once, got {tuple(scales)}"
        )
    if patch_size < 4 or patch_size & (patch_size - 1):
        raise ValueError(
            f"expected a patch size that is a power of two from 4 on, got {patch_size}"
        )
