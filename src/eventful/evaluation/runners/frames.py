"""One setting of a model on one video after another, and what each frame took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from eventful.convert import convert, restore
from eventful.evaluation.baselines import LowResolution
from eventful.evaluation.settings import Setting
from eventful.policies import Auto, KeepAll
from eventful.stream import Stream
from eventful.stream.bound import now
from eventful.stream.cuts import SceneCuts
from eventful.stream.inputs import Inputs

Action = Literal["dense", "partial", "carried", "held", "mixed", "gated", "low resolution"]


class Step(NamedTuple):
    """What one frame took, over all batch rows.

    Attributes:
        operations: Multiply-accumulates.
        dense_operations: Those of the dense model.
        milliseconds: Wall time, motion and choices included.
        first: Whether it was computed in full.
        action: What was done: "dense", "partial", "carried" or "held" by a frame policy ("mixed"
            where rows differ), "gated" by a token policy, "low resolution".
    """

    operations: int
    dense_operations: int
    milliseconds: float
    first: bool
    action: Action = "gated"


class FrameRunner(Protocol):
    """What a task runs frames through, whatever is behind it."""

    watch: Callable[[int], None] | None

    @property
    def steps(self) -> list[Step]:
        """What each frame since the last `start` took."""
        ...

    def start(self) -> None:
        """Begin a video."""
        ...

    @property
    def updated(self) -> Tensor:
        """Which tokens the last frame has computed, as far as one gate can say."""
        ...

    def __call__(self, frame: Tensor) -> Any:
        """Run one frame, (batch, channels, height, width) in [0, 1]."""
        ...


class LateRunner(FrameRunner, Protocol):
    """A runner whose frames may wait for those after them."""

    def run(self, frames: Iterable[Tensor], lookahead: int) -> Iterator[Any]:
        """Run the frames of a video, each up to so many frames late."""
        ...


class Runner:
    """Runs the frames of one video after another, and keeps what each of them took.

    Several runners share a model's weights: it is converted for each of them and restored. As in
    every reproduction of the paper, scene cuts are not looked for, but for `Auto`, to which they
    belong.

    Without a policy the model runs as it is. The first frame of a video then goes through a stream
    all the same, which computes it in full and counts its operations; the others are of equal size.

    Args:
        model: A model that is not converted.
        setting: How to run it.
        method: The model's method that takes frames.

    Attributes:
        steps: Of the frames since the last `start`.
        watch: Called after each frame with the number of frames since the last `start`.

    Raises:
        ValueError: The model cannot be converted in this way.

    Example:
        >>> import timm
        >>> from eventful import TopR
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=5).eval()
        >>> runner = Runner(model, Setting("token-wise", TopR(2), {"attention": "dense"}))
        >>> for video in torch.rand(2, 3, 1, 3, 32, 32):
        ...     runner.start()
        ...     logits = [runner(frame) for frame in video]
        >>> [step.first for step in runner.steps]
        [True, False, False]
    """

    def __init__(self, model: nn.Module, setting: Setting, method: str = "forward") -> None:
        self._stream = _stream(model, setting, method)
        self._dense = _Dense(model, method) if setting.policy is None else None
        self._shape: torch.Size | None = None
        self.steps: list[Step] = []
        self.watch: Callable[[int], None] | None = None

    @property
    def updated(self) -> Tensor:
        """Which tokens the last frame has computed, bool (batch, tokens); see `Stream.computed`."""
        return self._stream.computed

    def start(self) -> None:
        """Begin a video: its first frame is computed in full."""
        self._stream.reset()
        self._shape, self.steps = None, []

    def __call__(self, frame: Tensor) -> Any:
        """Run one frame.

        Args:
            frame: (batch, channels, height, width) in [0, 1], not normalised.

        Returns:
            What the model's method returns.

        Raises:
            ValueError: The frame does not fit the model, or the policy not the frame.
        """
        if self._dense is None or frame.shape != self._shape:
            output, step = self._stream(frame), self._step()
        else:
            output, milliseconds = self._dense(frame)
            count = self.steps[-1].dense_operations
            step = Step(count, count, milliseconds, first=False, action="dense")
        self._shape = frame.shape
        self._note(step)
        return output

    def run(self, frames: Iterable[Tensor], lookahead: int) -> Iterator[Any]:
        """Run the frames of a video, each up to so many frames late.

        Args:
            frames: (1, channels, height, width) each.
            lookahead: See `eventful.Stream.run`.

        Raises:
            ValueError: As for a call, or the policy does not go with lookahead.
        """
        for output in self._stream.run(frames, lookahead=lookahead):
            self._note(self._step())
            yield output

    def _note(self, step: Step) -> None:
        self.steps.append(step)
        if self.watch is not None:
            self.watch(len(self.steps))

    def _step(self) -> Step:
        """What the frame took that the stream has just given."""
        stats = self._stream.stats
        counts = stats.operations.total, stats.dense_operations.total
        kinds = {row.kind for row in stats.rows}
        if kinds:
            action: Any = kinds.pop() if len(kinds) == 1 else "mixed"
            return Step(*counts, stats.seconds * 1e3, action == "dense", action)
        first = bool(stats.flushes) and stats.flushes[-1].frame == stats.frames - 1
        return Step(*counts, stats.seconds * 1e3, first)


class _Dense:
    """The model as it is, timed as streams are."""

    def __init__(self, model: nn.Module, method: str) -> None:
        self._call = model if method == "forward" else getattr(model, method)
        self._inputs = Inputs(model, normalize=True)
        self._weight = next(model.parameters())

    @torch.inference_mode()
    def __call__(self, frame: Tensor) -> tuple[Any, float]:
        x = self._inputs.prepare(frame, self._weight, number=0)
        start = now(x)
        output = self._call(x)
        return output, (now(x) - start) * 1e3


def _stream(model: nn.Module, setting: Setting, method: str) -> Stream:
    if isinstance(setting.policy, LowResolution):
        raise ValueError(
            f"{setting.policy} is for tasks on patch tokens, such as davis-saliency; here a policy "
            f"such as top:512 or skip:5 is needed"
        )
    if setting.policy is None:
        convert(model, KeepAll(), attention="dense")
    else:
        convert(model, setting.policy, **setting.options)
    cuts = SceneCuts() if isinstance(setting.policy, Auto) else None
    try:
        return Stream(model, normalize=True, scene_cuts=cuts, method=method)
    finally:
        restore(model)
