"""Skipped frames and low resolution, and the runner of each plan."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, final

from torch import Tensor
from torch.nn import functional as F

from eventful.block.block import eventful_blocks
from eventful.convert import convert, restore
from eventful.counting import BlockSize, dense_operations
from eventful.motion import Motion, carry
from eventful.policies import KeepAll
from eventful.reuse.auto import AutoRunner
from eventful.reuse.plans import Auto, LowResolution, Plan, Skip
from eventful.reuse.runner import Found, PlanRunner


@final
class SkipRunner(PlanRunner):
    """The dense model on every k-th frame; in between its output, held or carried along.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0).eval()
        >>> runner = SkipRunner(model, Skip(2))
        >>> tokens = [runner(frame) for frame in torch.rand(3, 1, 3, 32, 32)]
        >>> [step.first for step in runner.steps], torch.equal(tokens[0], tokens[1])
        ([True, False, True], True)
    """

    def __init__(self, model: Any, plan: Skip) -> None:
        super().__init__(model)
        self._plan = plan
        self._motion = Motion(self.grid) if plan.carried else None

    def _process(self, frame: Tensor) -> Found:
        turn = (len(self.steps) + self._plan.phase) % self._plan.every == 0
        if self._frame is None or self._tokens is None or turn:
            return self._dense(frame)
        if self._motion is None:
            return Found(self._tokens, 0, "held")
        return Found(carry(self._tokens, self._motion(self._frame, frame)), 0, "carried")


@final
class LowResolutionRunner(PlanRunner):
    """The dense model on smaller frames, its tokens stretched to the full grid.

    The size is the largest of whole patches, of the same shape, that keeps to the share of
    operations. timm resamples the position embedding to it, once.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0).eval()
        >>> runner = LowResolutionRunner(model, LowResolution(0.5))
        >>> runner(torch.rand(1, 3, 64, 64)).shape, runner.size
        (torch.Size([1, 16, 192]), (32, 32))
    """

    def __init__(self, model: Any, plan: LowResolution) -> None:
        super().__init__(model)
        small = copy.deepcopy(model)
        self.size = _smaller(model, self.grid, plan.share)
        small.set_input_size(img_size=self.size)
        self._inside = SkipRunner(small, Skip(1))

    def start(self) -> None:
        """Begin a video."""
        super().start()
        self._inside.start()

    def _process(self, frame: Tensor) -> Found:
        if not self._stream.stats.frames:
            self._dense(frame)  # once, for what the dense model needs at full size
        small = F.interpolate(frame, self.size, mode="bilinear", antialias=True)
        tokens = self._inside(small).unflatten(1, self._inside.grid).permute(0, 3, 1, 2)
        tokens = F.interpolate(tokens, self.grid, mode="bilinear").permute(0, 2, 3, 1)
        return Found(tokens, self._inside.steps[-1].operations, "low resolution")


RUNNERS: dict[type[Plan], Callable[[Any, Any], PlanRunner]] = {
    Skip: SkipRunner,
    LowResolution: LowResolutionRunner,
    Auto: AutoRunner,
}


def runner(model: Any, plan: Plan) -> PlanRunner:
    """Make the runner of a plan; see `PlanRunner` for the model."""
    return RUNNERS[type(plan)](model, plan)


def _smaller(model: Any, grid: tuple[int, int], share: float) -> tuple[int, int]:
    """Height and width in pixels of the largest frame that costs at most a share of a full one."""
    convert(model, KeepAll())
    sizes = [BlockSize.of(block) for block in eventful_blocks(model).values()]
    restore(model)

    def cost(height: int, width: int) -> int:
        tokens = height * width + model.num_prefix_tokens
        return sum(dense_operations(size, tokens).total for size in sizes)

    patch = model.patch_embed.patch_size
    most = share * cost(*grid)
    for height in range(grid[0], 0, -1):
        width = max(1, round(height * grid[1] / grid[0]))
        if cost(height, width) <= most:
            return height * patch[0], width * patch[1]
    raise ValueError(f"lowres:{share} leaves no patch of a grid of {grid}; use a larger share")
