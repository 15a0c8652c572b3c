"""Plans put into practice: the patch tokens of one frame of a video after another."""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eventful.blocks import eventful_blocks
from eventful.convert import convert, restore
from eventful.counting import BlockSize, dense_operations
from eventful.inputs import normalization
from eventful.policies import KeepAll, TopR
from eventful.reuse.motion import Motion, carry
from eventful.reuse.plans import Auto, LowResolution, Plan, Skip
from eventful.stream import Stream

Action = Literal["dense", "held", "carried", "gated", "low resolution"]


class Step(NamedTuple):
    """What one frame took, over all batch rows.

    Attributes:
        operations: Multiply-accumulates.
        dense_operations: Those of the dense model.
        milliseconds: Wall time, motion and choices included.
        first: Whether it was computed in full.
        action: What was done: "dense", "held", "carried", "gated" or "low resolution".
    """

    operations: int
    dense_operations: int
    milliseconds: float
    first: bool
    action: Action = "gated"


class Found(NamedTuple):
    """The tokens of a frame.

    Attributes:
        tokens: (batch, grid height, grid width, dim).
        operations: Spent on them.
        action: What was done.
        updated: bool (batch, grid height, grid width), the patches computed anew; None if the
            action says it.
    """

    tokens: Tensor
    operations: int
    action: Action
    updated: Tensor | None = None


class PlanRunner(ABC):
    """Runs a plan over the frames of one video after another.

    Args:
        model: A dense ViT of timm's kind for one size of frames (`forward_features`, `patch_embed`,
            `num_prefix_tokens`, `pretrained_cfg`).

    Attributes:
        steps: What each frame since the last `start` took.
        watch: Called after each frame with the number of frames since the last `start`.
        updated: bool (batch, grid height, grid width), the patches computed anew on the last frame;
            all with a dense frame (at low resolution too), none where the output was held.
    """

    updated: Tensor

    def __init__(self, model: Any) -> None:
        self.steps: list[Step] = []
        self.watch: Callable[[int], None] | None = None
        self.grid: tuple[int, int] = tuple(model.patch_embed.grid_size)
        self._mean, self._std = normalization(model)
        self._prefix: int = model.num_prefix_tokens
        self._stream = _stream(model)
        self._frame: Tensor | None = None  # that the dense model last ran on, and its tokens
        self._tokens: Tensor | None = None

    def start(self) -> None:
        """Begin a video: its first frame is computed in full."""
        self.steps, self._frame, self._tokens = [], None, None

    @torch.inference_mode()
    def __call__(self, frame: Tensor) -> Tensor:
        """Process a frame.

        Args:
            frame: (batch, 3, height, width) in [0, 1].

        Returns:
            Final-normed patch tokens (batch, grid height * grid width, dim), the caller's own.
        """
        begin = time.perf_counter()
        found = self._process(frame.clone())  # kept, while the caller's may change
        tokens = found.tokens.flatten(1, 2).clone()
        milliseconds = (time.perf_counter() - begin) * 1e3
        dense = self._stream.stats.dense_operations.total
        first = found.action == "dense" or not self.steps
        self.steps.append(Step(found.operations, dense, milliseconds, first, found.action))
        if found.updated is None:
            whole = found.action in ("dense", "low resolution")
            self.updated = torch.full(found.tokens.shape[:3], whole, device=tokens.device)
        else:
            self.updated = found.updated
        if self.watch is not None:
            self.watch(len(self.steps))
        return tokens

    @abstractmethod
    def _process(self, frame: Tensor) -> Found:
        """Find the tokens of a frame."""

    def _dense(self, frame: Tensor) -> Found:
        """Run the dense model; the stream's state is taken in anew."""
        self._stream.reset()
        self._frame, self._tokens = frame, self._run(frame)
        return Found(self._tokens, self._stream.stats.operations.total, "dense")

    def _run(self, frame: Tensor) -> Tensor:
        x = (frame - self._mean.to(frame)) / self._std.to(frame)
        return self._stream(x)[:, self._prefix :].unflatten(1, self.grid)


@final
class SkipRunner(PlanRunner):
    """The dense model on every k-th frame; in between its output, held or carried along.

    Example:
        >>> import timm
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
        >>> import timm
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


@final
class AutoRunner(PlanRunner):
    """A choice for each frame, by how much of it changed; see `plans.Auto`.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0).eval()
        >>> runner = AutoRunner(model, Auto(0.5))
        >>> for frame in torch.rand(4, 1, 3, 64, 64):
        ...     _ = runner(frame)
        >>> runner.steps[0].first
        True
    """

    def __init__(self, model: Any, plan: Auto) -> None:
        super().__init__(model)
        self._plan = plan
        self._motion = Motion(self.grid)
        self._embed: nn.Module = model.patch_embed
        self._patches = self.grid[0] * self.grid[1]
        self.start()

    def start(self) -> None:
        """Begin a video."""
        super().start()
        self._credit = 0.0  # dense frames' worth of operations; a dense frame may overdraw it
        self._before: tuple[Tensor, Tensor] | None = None  # the last frame and its embedding
        self._newer: tuple[Tensor, Tensor] | None = None  # tokens computed since, and where

    def _process(self, frame: Tensor) -> Found:
        embedding = self._embed((frame - self._mean.to(frame)) / self._std.to(frame))
        plan, moving = self._plan, self._changed(embedding) > self._plan.moving
        self._credit += plan.share
        if self._tokens is None or self._credit >= plan.share - 1e-9:
            self._newer = None
            found = self._dense(frame)
        elif moving:
            found = Found(self._carried(frame), 0, "carried")
        else:
            updated = math.floor((1 - plan.refresh) * plan.share * self._patches)
            found = self._gated(frame, updated)
        self._before = frame, embedding
        self._credit -= found.operations / self._stream.stats.dense_operations.total
        return found

    def _changed(self, embedding: Tensor) -> float:
        """Share of patches whose embedding moved by more than a fifth since the last frame."""
        if self._before is None:
            return 1.0
        error = (embedding - self._before[1]).norm(dim=-1) / self._before[1].norm(dim=-1)
        return (error > CHANGED).float().mean().item()

    def _carried(self, frame: Tensor) -> Tensor:
        """The last dense output carried along, under what was computed since then."""
        assert self._frame is not None
        assert self._tokens is not None
        tokens = carry(self._tokens, self._motion(self._frame, frame))
        if self._newer is None or self._before is None:
            return tokens
        moved = torch.cat(self._newer, dim=-1)
        moved = carry(moved, self._motion(self._before[0], frame))
        newer, where = moved[..., :-1], (moved[..., -1:] > 0.5).to(moved.dtype)
        self._newer = newer, where
        return torch.where(where > 0, newer, tokens)

    def _gated(self, frame: Tensor, updated: int) -> Found:
        """The output carried along, and some tokens computed anew."""
        tokens = self._carried(frame)
        if updated < 1:
            return Found(tokens, 0, "carried")
        self._stream.policy = TopR(updated)
        fresh = self._run(frame)
        (gate,) = self._stream.gates
        mask = self._stream.gate(gate).updated[:, self._prefix :].unflatten(1, self.grid)[..., None]
        where = mask.to(fresh.dtype)
        if self._newer is not None:
            where = torch.maximum(where, self._newer[1])
        tokens = torch.where(mask, fresh, tokens)
        self._newer = tokens, where
        return Found(tokens, self._stream.stats.operations.total, "gated", mask[..., 0])


CHANGED = 0.2  # relative change of a patch's embedding from one frame to the next that counts
RUNNERS: dict[type[Plan], Callable[[Any, Any], PlanRunner]] = {
    Skip: SkipRunner,
    LowResolution: LowResolutionRunner,
    Auto: AutoRunner,
}


def runner(model: Any, plan: Plan) -> PlanRunner:
    """Make the runner of a plan; see `PlanRunner` for the model."""
    return RUNNERS[type(plan)](model, plan)


def _stream(model: nn.Module) -> Stream:
    """A stream with one gate for the network; the model is as it was afterwards."""
    convert(model, KeepAll(), gating="input", measure="relative")
    try:
        return Stream(model, scene_cuts=None, method="forward_features")
    finally:
        restore(model)


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
