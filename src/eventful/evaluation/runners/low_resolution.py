"""The dense model on smaller frames, its tokens stretched to the full grid."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F

from eventful.block.block import eventful_blocks
from eventful.convert import convert, restore
from eventful.counting import BlockSize, dense_operations
from eventful.evaluation.baselines import LowResolution
from eventful.evaluation.runners.frames import Runner, Step
from eventful.evaluation.settings import Setting
from eventful.policies import KeepAll
from eventful.stream.bound import now

_METHOD = "forward_features"


@final
class LowResolutionRunner:
    """Runs a timm ViT on smaller frames.

    The size is the largest of whole patches, of the same shape, that keeps to the share of
    operations. timm resamples the position embedding to it, once.

    Args:
        backbone: The backbone at full size, dense.
        policy: What share of its operations to use.

    Attributes:
        steps: What each frame since the last `start` took.
        watch: Called after each frame with the number of frames since the last `start`.
        size: Height and width in pixels of the smaller frames.

    Raises:
        ValueError: The share leaves no patch.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0).eval()
        >>> runner = LowResolutionRunner(model, LowResolution(0.5))
        >>> runner(torch.rand(1, 3, 64, 64)).shape, runner.size
        (torch.Size([1, 16, 192]), (32, 32))
    """

    def __init__(self, backbone: Any, policy: LowResolution) -> None:
        self.steps: list[Step] = []
        self.watch: Callable[[int], None] | None = None
        self._grid: tuple[int, int] = tuple(backbone.patch_embed.grid_size)
        self.size = _smaller(backbone, self._grid, policy)
        small = copy.deepcopy(backbone)
        small.set_input_size(img_size=self.size)
        self._inner: tuple[int, int] = tuple(small.patch_embed.grid_size)
        self._prefix: int = backbone.num_prefix_tokens
        dense = Setting("dense", None)
        self._whole, self._small = Runner(backbone, dense, _METHOD), Runner(small, dense, _METHOD)
        self._rows = 0

    @property
    def updated(self) -> Tensor:
        """All patches, bool (batch, h, w): each frame is computed whole, if smaller."""
        return torch.ones(self._rows, *self._grid, dtype=torch.bool)

    def start(self) -> None:
        """Begin a video."""
        self.steps = []
        self._small.start()

    def __call__(self, frame: Tensor) -> Tensor:
        """Patch tokens (batch, h * w, dim) of a frame (batch, 3, height, width) in [0, 1]."""
        if not self._whole.steps:
            self._whole(frame)  # once, for what the dense model needs at full size
        begin = now(frame)
        small = F.interpolate(frame, self.size, mode="bilinear", antialias=True)
        tokens = self._small(small)[:, self._prefix :]
        tokens = tokens.unflatten(1, self._inner).permute(0, 3, 1, 2)
        tokens = F.interpolate(tokens, self._grid, mode="bilinear").flatten(2).mT
        milliseconds = (now(tokens) - begin) * 1e3
        used, dense = self._small.steps[-1].operations, self._whole.steps[0].dense_operations
        self.steps.append(Step(used, dense, milliseconds, not self.steps, "low resolution"))
        self._rows = len(frame)
        if self.watch is not None:
            self.watch(len(self.steps))
        return tokens

    def run(self, frames: Iterable[Tensor], lookahead: int) -> Iterator[Tensor]:
        """Not possible: every frame is computed whole, and none waits for another.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"low resolution looks no way ahead; got lookahead={lookahead}")


def _smaller(backbone: Any, grid: tuple[int, int], policy: LowResolution) -> tuple[int, int]:
    """Height and width in pixels of the largest frame that keeps to the share."""
    convert(backbone, KeepAll())
    sizes = [BlockSize.of(block) for block in eventful_blocks(backbone).values()]
    restore(backbone)

    def cost(height: int, width: int) -> int:
        tokens = height * width + backbone.num_prefix_tokens
        return sum(dense_operations(size, tokens).total for size in sizes)

    patch = backbone.patch_embed.patch_size
    most = policy.share * cost(*grid)
    for height in range(grid[0], 0, -1):
        width = max(1, round(height * grid[1] / grid[0]))
        if cost(height, width) <= most:
            return height * patch[0], width * patch[1]
    raise ValueError(f"{policy} leaves no patch of a grid of {grid}; use a larger share")
