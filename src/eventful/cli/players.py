"""Models as `eventful run` plays them: they open videos, run frames and draw the results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from eventful import FramePolicy, Policy, SceneCuts, Stream, restore
from eventful.block.block import eventful_blocks
from eventful.cli.choices import Gates
from eventful.cli.subjects import Grid, Subject, Unbuilt, check_size, find
from eventful.convert import Where
from eventful.pretrained import Extras, Loaded, load
from eventful.pretrained.inputs import Given, Inputs
from eventful.pretrained.loading import PREFIX
from eventful.pretrained.taps import Taps, found
from eventful.pretrained.tasks.task import Shown
from eventful.stream.bound import now
from eventful.video import Frame, Reader


class Played(NamedTuple):
    """What a model gave for a frame.

    Attributes:
        tokens: What the rest of the model reads, by tap; errors are measured on it.
        drawn: What its picture is made of.
    """

    tokens: Sequence[Tensor]
    drawn: Any


class Player(ABC):
    """A model on one clip. Prepared frames go through its stream, or the dense model.

    Attributes:
        title: What its pictures show.
        stream: The stream, once it is started.
        grid: Height and width of the grid of patches, then too.
        special: Class, register and other tokens beside them.
        prefix: How many of these stand in front.
    """

    title: str
    stream: Stream
    grid: Grid
    special: int
    prefix: int

    @abstractmethod
    def start(self, policy: FramePolicy | Policy, gates: Gates, cuts: SceneCuts | None) -> None:
        """Convert the model and make the stream.

        Raises:
            ValueError: The model does not convert, or the policy does not fit.
        """

    @abstractmethod
    def prepare(self, frame: Frame) -> Any:
        """A frame as `dense` and `eventful` take it."""

    @abstractmethod
    def frame(self, prepared: Any) -> Tensor:
        """What the stream takes of it."""

    @abstractmethod
    def dense(self, prepared: Any) -> tuple[Played, float]:
        """What the dense model gives, and its time in milliseconds."""

    @abstractmethod
    def eventful(self, prepared: Any) -> Played:
        """What the stream gives."""

    @abstractmethod
    def picture(self, played: Played) -> np.ndarray:
        """The result as an RGB image."""

    @abstractmethod
    def input(self, prepared: Any, frame: Frame) -> np.ndarray:
        """The frame as an RGB image, which pictures of results lie beside."""

    @abstractmethod
    def aspect(self, clip: Path) -> float:
        """Width over height of its pictures."""

    @property
    def computed(self) -> np.ndarray:
        """Which patches were computed on the last frame, on their grid."""
        patches = self.grid[0] * self.grid[1]
        return self.stream.computed[0, self.prefix :][:patches].view(self.grid).cpu().numpy()

    @abstractmethod
    def close(self) -> None:
        """Leave the model as it was."""


class Model(ABC):
    """What opens videos for a model, and makes its players."""

    @abstractmethod
    def open(self, path: Path) -> Reader:
        """Open a video."""

    @abstractmethod
    def player(self, reader: Reader) -> Player:
        """A player for it."""


def model_of(
    name: str,
    weights: Path | None,
    size: int | None,
    square: bool,
    task: str | None,
    extras: Extras,
    where: Where | None,
) -> Model:
    """The model that the options of `eventful run` name.

    Raises:
        ValueError: There is none, or options do not go with it.
    """
    if not name.startswith(PREFIX):
        if task is not None or extras != Extras() or where is not None:
            raise ValueError(
                f"--task, --text, --point and --blocks are for models of transformers (hf:...), "
                f"not for {name}"
            )
        return _Timm(find(name, weights), size, square)
    if weights is not None or size is not None or square:
        raise ValueError(
            f"--weights, --size and --square are for models of timm; {name} brings its own "
            f"weights, and its processor says the size"
        )
    loaded = load(name, task)
    if loaded.clip > 1:
        raise ValueError(
            f"{name} takes clips of {loaded.clip} frames; use eventful evaluate folder"
        )
    return _Transformers(loaded, extras, where)


class _Timm(Model):
    """The demo, or a model of timm."""

    def __init__(self, unbuilt: Unbuilt, size: int | None, square: bool) -> None:
        self._unbuilt, self._square = unbuilt, square
        self._size = unbuilt.size if size is None else size

    def open(self, path: Path) -> Reader:
        if self._square:
            check_size(self._size, self._unbuilt.patch)
        square, patch = self._square, self._unbuilt.patch
        return Reader(path, self._size, keep_aspect=not square, patch=patch)

    def player(self, reader: Reader) -> Player:
        patch = self._unbuilt.patch
        subject = self._unbuilt.build(reader.height, reader.width)
        return _TimmPlayer(subject, (reader.height // patch, reader.width // patch))


class _TimmPlayer(Player):
    def __init__(self, subject: Subject, grid: Grid) -> None:
        self._subject, self.grid, self.title = subject, grid, subject.title
        self.prefix = self.special = subject.prefix

    def start(self, policy: FramePolicy | Policy, gates: Gates, cuts: SceneCuts | None) -> None:
        backbone = self._subject.backbone
        gates.convert(backbone, policy)
        if isinstance(policy, Policy):
            policy.select(torch.zeros(1, self.grid[0] * self.grid[1]))  # raises if it does not fit
        self.stream = Stream(backbone, normalize=True, method="forward_features", scene_cuts=cuts)

    def prepare(self, frame: Frame) -> Tensor:
        return frame.image

    def frame(self, prepared: Tensor) -> Tensor:
        return prepared

    def dense(self, prepared: Tensor) -> tuple[Played, float]:
        x = self._subject.normalize(prepared)
        start = now(x)
        features = self._subject.backbone.forward_features(x)  # type: ignore[operator]
        milliseconds = 1e3 * (now(x) - start)
        return self._played(features), milliseconds

    def eventful(self, prepared: Tensor) -> Played:
        return self._played(self.stream(prepared))

    def _played(self, features: Tensor) -> Played:
        tokens = self._subject.patches(features)
        return Played([tokens], tokens)

    def picture(self, played: Played) -> np.ndarray:
        return self._subject.picture(played.drawn, self.grid)

    def input(self, prepared: Tensor, frame: Frame) -> np.ndarray:
        return frame.pixels

    def aspect(self, clip: Path) -> float:
        return _aspect(clip)

    def close(self) -> None:
        _restored(self._subject.backbone)


@cache
def _aspect(clip: Path) -> float:
    with Reader(clip) as native:
        return float(native.aspect)


class _Transformers(Model):
    """A model of transformers, which its processor prepares frames for."""

    def __init__(self, loaded: Loaded, extras: Extras, where: Where | None) -> None:
        self._loaded, self._where = loaded, where
        self._inputs = Inputs(loaded, extras)

    def open(self, path: Path) -> Reader:
        return Reader(path)

    def player(self, reader: Reader) -> Player:
        shape = reader.height, reader.width, 3
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return _TransformersPlayer(self._loaded, self._inputs, self._inputs([noise]), self._where)


class _TransformersPlayer(Player):
    def __init__(self, loaded: Loaded, inputs: Inputs, like: Given, where: Where | None) -> None:
        self._loaded, self._inputs, self._like, self._where = loaded, inputs, like, where
        self._open = ExitStack()
        self._last: dict[str, Tensor] = {}
        self.title = loaded.task.name

    def start(self, policy: FramePolicy | Policy, gates: Gates, cuts: SceneCuts | None) -> None:
        model, method, like = self._loaded.model, self._loaded.method, self._like
        gates.convert(model, policy, self._where)
        layout = found(model, like.frame, like.inputs, method)
        self._taps = Taps(model, layout, method)
        self._open.enter_context(self._taps.noted())
        self.grid, self.prefix = layout.grid, layout.prefix
        if not self.grid[0] * self.grid[1]:
            raise ValueError(
                f"{self._loaded.name} has blocks of several shapes, whose patches no picture can "
                f"show; use eventful evaluate folder"
            )
        self.special = layout.prefix + layout.suffix
        if isinstance(policy, Policy):
            policy.select(torch.zeros(1, self.grid[0] * self.grid[1]))  # raises if it does not fit
        pixels = self._inputs.pixels_of(like.frame)
        self.stream = Stream(model, pixels=pixels, scene_cuts=cuts, method=method)

    def prepare(self, frame: Frame) -> Given:
        return self._inputs([frame.pixels])

    def frame(self, prepared: Given) -> Tensor:
        return prepared.frame

    def dense(self, prepared: Given) -> tuple[Played, float]:
        output, milliseconds = self._inputs.run(prepared)
        return self._played(output, self._taps.read(), prepared), milliseconds

    def eventful(self, prepared: Given) -> Played:
        output = self.stream(prepared.frame, **prepared.inputs)
        self._last = self._taps.read(self._last)
        return self._played(output, self._last, prepared)

    def _played(self, output: Any, taps: dict[str, Tensor], prepared: Given) -> Played:
        shown = Shown(output, *self._taps.patches(taps))
        height, width = prepared.picture.shape[:2]
        read = self._loaded.task.read(shown, (height, width))
        return Played([*taps.values()], (prepared.picture, read))

    def picture(self, played: Played) -> np.ndarray:
        return self._loaded.task.draw(*played.drawn)

    def input(self, prepared: Given, frame: Frame) -> np.ndarray:
        return prepared.picture

    def aspect(self, clip: Path) -> float:
        height, width = self._like.picture.shape[:2]
        return width / height

    def close(self) -> None:
        self._open.close()
        _restored(self._loaded.model)


def _restored(model: nn.Module) -> None:
    if eventful_blocks(model):
        restore(model)
