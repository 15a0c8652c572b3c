"""Runs a backbone under a setting, on frames of any size, for its final-normed patch tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from torch import Tensor, nn

from eventful.evaluation.baselines import LowResolution
from eventful.evaluation.measures.patches import Size
from eventful.evaluation.runners.frames import LateRunner, Runner, Step
from eventful.evaluation.runners.low_resolution import LowResolutionRunner
from eventful.evaluation.settings import Setting

Make = Callable[[nn.Module, Setting], LateRunner]


class Models:
    """A model at any input size, each size built when it is first asked for.

    Args:
        build: Makes the model for (height, width).

    Example:
        >>> models = Models(lambda size: nn.Linear(*size))
        >>> models((3, 5)) is models((3, 5)), models((3, 7)).out_features
        (True, 7)
    """

    def __init__(self, build: Callable[[Size], Any]) -> None:
        self._build = build
        self._built: dict[Size, Any] = {}

    def __call__(self, size: Size) -> Any:
        """The model for (height, width)."""
        if size not in self._built:
            self._built[size] = self._build(size)
        return self._built[size]


class PatchRunner:
    """A `Runner` on a timm backbone's `forward_features`, without its class token and registers.

    Args:
        backbone: The backbone, dense.
        setting: How to run it.

    Example:
        >>> import timm, torch
        >>> from eventful import TopR
        >>> backbone = timm.create_model("vit_tiny_patch16_224", img_size=(32, 48), num_classes=0)
        >>> runner = PatchRunner(backbone.eval(), Setting("incremental", TopR(2)))
        >>> runner.start()
        >>> runner(torch.rand(1, 3, 32, 48)).shape, len(runner.steps)
        (torch.Size([1, 6, 192]), 1)
    """

    def __init__(self, backbone: Any, setting: Setting) -> None:
        self._prefix = backbone.num_prefix_tokens
        self._grid = backbone.patch_embed.grid_size
        self._runner = Runner(backbone, setting, "forward_features")
        self.watch: Callable[[int], None] | None = None

    @property
    def steps(self) -> list[Step]:
        """What each frame since the last `start` took."""
        return self._runner.steps

    @property
    def updated(self) -> Tensor:
        """Which patches the last frame has computed, bool (batch, h, w)."""
        return self._runner.updated[:, self._prefix :].unflatten(1, self._grid)

    def start(self) -> None:
        """Begin a video."""
        self._runner.start()

    def __call__(self, frame: Tensor) -> Tensor:
        """Patch tokens (1, h * w, dim) of a frame (1, 3, height, width) in [0, 1]."""
        return self._runner(frame)[:, self._prefix :]

    def run(self, frames: Iterable[Tensor], lookahead: int) -> Iterator[Tensor]:
        """The same of a video's frames, each up to so many frames late."""
        for tokens in self._runner.run(frames, lookahead):
            yield tokens[:, self._prefix :]


def patch_runner(backbone: Any, setting: Setting) -> LateRunner:
    """The runner of a setting on a backbone."""
    if isinstance(setting.policy, LowResolution):
        return LowResolutionRunner(backbone, setting.policy)
    return PatchRunner(backbone, setting)


class TokenRunner:
    """Runs the frames of one video after another; videos may differ in size.

    Args:
        models: Of which the `backbone` is run.
        setting: How to run it.
        make: Makes the runner of a backbone for one size.

    Attributes:
        setting: The setting.
        steps: What each frame since the last `start` took.
        watch: Called after each frame with the number of frames since the last `start`.

    Example:
        >>> import torch
        >>> from eventful.models.saliency import saliency_vit
        >>> runner = TokenRunner(Models(saliency_vit), Setting("dense", None))
        >>> for size in ((28, 42), (14, 70)):
        ...     runner.start()
        ...     print(tuple(runner(torch.rand(1, 3, *size)).shape))
        (1, 6, 384)
        (1, 5, 384)
    """

    def __init__(self, models: Models, setting: Setting, make: Make = patch_runner) -> None:
        self.setting = setting
        self.steps: list[Step] = []
        self.watch: Callable[[int], None] | None = None
        self._models, self._make = models, make
        self._runners: dict[Size, LateRunner] = {}
        self._size: Size | None = None

    @property
    def updated(self) -> Tensor:
        """Which patches the last frame has computed, bool (batch, h, w).

        Raises:
            ValueError: There was no frame yet.
        """
        if self._size is None:
            raise ValueError("there is nothing to see before the first frame of a video")
        return self._runners[self._size].updated

    def start(self) -> None:
        """Begin a video."""
        self._size, self.steps = None, []

    def __call__(self, frame: Tensor) -> Tensor:
        """Run one frame.

        Args:
            frame: (1, 3, height, width) in [0, 1].

        Returns:
            Final-normed patch tokens (1, h * w, dim), on the model's device.

        Raises:
            ValueError: It has another size than the video's first frame.
        """
        runner = self._of(_size(frame))
        tokens = runner(frame)
        self._note(runner)
        return tokens

    def through(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Run the frames of a video, as late as the setting says.

        Raises:
            ValueError: One has another size than the first.
        """
        if not self.setting.lookahead:
            yield from map(self, frames)
            return
        left = iter(frames)
        first = next(left, None)
        if first is None:
            return
        runner = self._of(_size(first))
        for tokens in runner.run(map(self._checked, chain([first], left)), self.setting.lookahead):
            self._note(runner)
            yield tokens

    def _checked(self, frame: Tensor) -> Tensor:
        """The frame, if it has the size of the first."""
        self._of(_size(frame))
        return frame

    def _note(self, runner: LateRunner) -> None:
        self.steps = runner.steps
        if self.watch is not None:
            self.watch(len(self.steps))

    def _of(self, size: Size) -> LateRunner:
        if size not in self._runners:
            self._runners[size] = self._make(self._models(size).backbone, self.setting)
        if self._size is None:
            self._runners[size].start()
        elif size != self._size:
            raise ValueError(f"a video's frames differ in size: {self._size}, then {size}")
        self._size = size
        return self._runners[size]


def _size(frame: Tensor) -> Size:
    height, width = frame.shape[-2:]
    return height, width
