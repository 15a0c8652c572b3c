"""The tasks by name: which model and data set each of them takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from eventful.datasets import EpicKitchens, ImageNetVID, Kinetics
from eventful.evaluation.actions import ActionTask
from eventful.evaluation.task import Task


@dataclass(frozen=True)
class Choice:
    """What of a data set is taken; None is the task's own choice.

    Attributes:
        root: The folder of the data set.
        split: Which of its parts.
        size: Side of the square frames in pixels.
        frames: Frames of a video at most.
        strict: Raise at the first problem with a file.

    Example:
        >>> Choice(Path("data"), size=672).split is None
        True
    """

    root: Path
    split: str | None = None
    size: int | None = None
    frames: int | None = None
    strict: bool = False


@dataclass(frozen=True)
class TaskKind:
    """One of the tasks.

    Attributes:
        title: The data set.
        weights: The kind of weights that it takes, a key of `eventful.models.weights.KINDS`.
        model: Builds the model with random weights.
        make: Builds the task from a model with weights.

    Example:
        >>> TASKS["epic"].weights
        'vivit_b_epic'
    """

    title: str
    weights: str
    model: Callable[[], nn.Module]
    make: Callable[[Any, Choice], Task[Any]]


def _preset(module: str, name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        return getattr(import_module(f"eventful.models.{module}"), name)()

    return build


def _vid(model: Any, choice: Choice) -> Task[Any]:
    from eventful.evaluation.detection import DetectionTask  # noqa: PLC0415 - optional libraries

    split, size = choice.split or "val", choice.size or 1024
    return DetectionTask(
        model, ImageNetVID(choice.root, split, size, strict=choice.strict), choice.frames
    )


def _epic(model: Any, choice: Choice) -> Task[Any]:
    _refuse_sizes(choice)
    split = choice.split or "validation"
    return ActionTask("epic", model, EpicKitchens(choice.root, split, strict=choice.strict))


def _kinetics(model: Any, choice: Choice) -> Task[Any]:
    _refuse_sizes(choice)
    split = choice.split or "val"
    return ActionTask("kinetics", model, Kinetics(choice.root, split, strict=choice.strict))


def _refuse_sizes(choice: Choice) -> None:
    """Views of clips are given by the model.

    Raises:
        ValueError: The choice wants something else.
    """
    for name in ("size", "frames"):
        if getattr(choice, name) is not None:
            raise ValueError(f"--{name} is for vid alone: a clip is seen in the model's own views")


TASKS: Mapping[str, TaskKind] = {
    "vid": TaskKind("ImageNet VID", "vitdet_b_vid", _preset("vitdet", "vitdet_b_vid"), _vid),
    "epic": TaskKind("EPIC-Kitchens", "vivit_b_epic", _preset("vivit", "vivit_b_epic"), _epic),
    "kinetics": TaskKind(
        "Kinetics-400", "vivit_b_kinetics", _preset("vivit", "vivit_b_kinetics"), _kinetics
    ),
}


def task_kind(name: str) -> TaskKind:
    """Look a task up.

    Raises:
        ValueError: There is none of that name.

    Example:
        >>> task_kind("vid").title
        'ImageNet VID'
    """
    if name not in TASKS:
        raise ValueError(f"expected a task out of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name]
