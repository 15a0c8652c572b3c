"""What all plans share: a model that runs on one frame of a video after another."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from eventful.convert import convert, restore
from eventful.policies import KeepAll
from eventful.stream import Stream
from eventful.stream.inputs import normalization

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


def _stream(model: nn.Module) -> Stream:
    """A stream with one gate for the network; the model is as it was afterwards."""
    convert(model, KeepAll(), gating="input")
    try:
        return Stream(model, scene_cuts=None, method="forward_features")
    finally:
        restore(model)
