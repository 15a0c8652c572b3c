"""What is measured: models of several families, single blocks of them, and a clip to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from eventful.bench.case import Setup


@dataclass(frozen=True)
class Subject:
    """A timm model at one input size, with random weights.

    Attributes:
        label: In case names.
        model: timm's name of it.
        side: Of the square input, in pixels.
        patch: Side of a patch.
        options: More arguments for `timm.create_model`.
        block: Measure this block alone, on tokens without a prefix; None measures the model.
        dim: Size of a token; needed with `block` alone.
    """

    label: str
    model: str
    side: int
    patch: int = 16
    options: Mapping[str, Any] = field(default_factory=dict)
    block: int | None = None
    dim: int = 0

    @property
    def tokens(self) -> int:
        """N, the number of patches."""
        return (self.side // self.patch) ** 2

    @property
    def method(self) -> str:
        """The method that a stream runs."""
        return "forward_features" if self.block is None else "forward"

    def alone(self, block: int, label: str, dim: int) -> Subject:
        """One block of this model."""
        return replace(self, label=label, block=block, dim=dim)

    def build(self, setup: Setup) -> nn.Module:
        """Build the model, or the block in a shell that takes frames of tokens.

        Weights are random, but larger than timm's own, so that attention is no mere average and
        LayerScale hides no branch: an error in a block shows at the end.
        """
        import timm  # noqa: PLC0415 - optional library

        torch.manual_seed(0)
        options = {"img_size": self.side, "num_classes": 0, **self.options}
        model = timm.create_model(self.model, pretrained=False, **options).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                _draw_(name, weight)
        if self.block is not None:
            model = OneBlock(model.get_submodule(f"blocks.{self.block}"))
        return model.to(setup.device, setup.dtype)

    def clip(self, frames: int, batch: int, setup: Setup) -> list[Tensor]:
        """Frames of this size."""
        grid = self.side // self.patch
        channels, side = (3, self.side) if self.block is None else (self.dim, grid)
        return clip((batch, channels, side, side), frames, setup)


def _draw_(name: str, weight: Tensor) -> None:
    """Redraw matrices for unit variance, and LayerScale at a size that matters."""
    if "blocks" in name and weight.ndim > 1:
        weight.normal_(std=weight.shape[-1] ** -0.5)
    elif "gamma" in name:
        weight.fill_(0.5)


class OneBlock(nn.Module):
    """A block that takes tokens as a frame: (batch, dim, height, width)."""

    num_prefix_tokens = 0

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.on_grid = hasattr(block, "window_size")
        self.blocks = nn.ModuleList([block])

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on the grid, or on the list of tokens that it takes."""
        x = x.permute(0, 2, 3, 1)
        return self.blocks[0](x if self.on_grid else x.flatten(1, 2))


def clip(shape: tuple[int, int, int, int], frames: int, setup: Setup) -> list[Tensor]:
    """Noise over a still picture in which one patch of a sixth of each side moves.

    Args:
        shape: (batch, channels, height, width) of a frame.
        frames: How many; no two are alike.
        setup: Device and dtype.
    """
    draw = torch.Generator().manual_seed(0)
    still = torch.randn(shape, generator=draw)
    height, width = (max(1, side // 6) for side in shape[2:])
    moving = torch.randn(*shape[:2], height, width, generator=draw)
    video = []
    for t in range(frames):
        frame = still + 0.05 * torch.randn(shape, generator=draw)
        y, x = (t * s % (side - s + 1) for side, s in zip(shape[2:], (height, width), strict=True))
        frame[:, :, y : y + height, x : x + width] = moving
        video.append(frame.to(setup.device, setup.dtype))
    return video
