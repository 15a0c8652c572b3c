"""The tasks by name: which model and data set each of them takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from eventful.datasets import EpicKitchens, ImageNetVID, Kinetics
from eventful.evaluation.task import Task
from eventful.evaluation.tasks.actions import ActionTask


@dataclass(frozen=True)
class Choice:
    """What of a data set is taken; None is the task's own choice.

    Attributes:
        root: The folder of the data set.
        split: Which of its parts.
        size: Side of the square frames in pixels; the long side on annotated video.
        frames: Frames of a video at most.
        strict: Raise at the first problem with a file.
        out: The folder of the results, where dense tokens are kept too.

    Example:
        >>> Choice(Path("data"), size=672).split is None
        True
    """

    root: Path
    split: str | None = None
    size: int | None = None
    frames: int | None = None
    strict: bool = False
    out: Path = Path("eventful-evaluation")


@dataclass(frozen=True)
class TaskKind:
    """One of the tasks.

    Attributes:
        title: The data set.
        weights: The kind of weights that it takes, a key of `eventful.models.weights.KINDS`; None
            if its model comes with trained weights.
        model: Builds the model, with random weights unless it comes with its own.
        make: Builds the task from a model with weights.

    Example:
        >>> TASKS["epic"].weights
        'vivit_b_epic'
    """

    title: str
    weights: str | None
    model: Callable[[], nn.Module]
    make: Callable[[Any, Choice], Task[Any]]


def _preset(module: str, name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        return getattr(import_module(f"eventful.models.{module}"), name)()

    return build


def _vid(model: Any, choice: Choice) -> Task[Any]:
    from eventful.evaluation.tasks.detection import DetectionTask  # noqa: PLC0415 - optional

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


def _saliency_vit() -> nn.Module:
    return import_module("eventful.models.saliency").saliency_vit()


def _annotated(name: str, title: str) -> TaskKind:
    """A task on annotated video, with the saliency network."""

    def make(model: Any, choice: Choice) -> Task[Any]:
        from eventful.evaluation.tasks.annotated import annotated  # noqa: PLC0415 - optional

        if choice.split is not None:
            raise ValueError(f"{name} has no parts to choose from; leave --split out")
        options = {key: getattr(choice, key) for key in ("size", "frames", "strict")}
        return annotated(name, model, choice.root, dense_folder(choice.out), **options)

    return TaskKind(title, None, _saliency_vit, make)


def dense_folder(out: Path) -> Path:
    """Where dense tokens lie: among the results, which belong to one task, model and size."""
    return out / "results" / "dense-tokens"


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
    "davis-saliency": _annotated("davis-saliency", "DAVIS, saliency"),
    "davis-propagation": _annotated("davis-propagation", "DAVIS, mask propagation"),
    "davis-segmentation": _annotated("davis-segmentation", "DAVIS, segmentation"),
    "cdnet-saliency": _annotated("cdnet-saliency", "CDnet, saliency"),
    "cdnet-vehicles": _annotated("cdnet-vehicles", "CDnet highway, vehicles"),
    "vtest": _annotated("vtest", "vtest, probe for people"),
    "campus-people": _annotated("campus-people", "TUD-Campus, people"),
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
