"""Builds the tasks on annotated video from a choice of data: where files lie, which model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventful.datasets import CDnet, Davis, Mot
from eventful.evaluation.measures.patches import Size
from eventful.evaluation.runners.tokens import Models
from eventful.evaluation.task import Task
from eventful.evaluation.tasks.crowd import Crowd, CrowdTask
from eventful.evaluation.tasks.propagation import DavisPropagation
from eventful.evaluation.tasks.saliency import CDnetSaliency, DavisSaliency
from eventful.evaluation.tasks.segmentation import DavisSegmentation, unseen
from eventful.models.saliency import saliency_vit


def saliency_models(model: Any) -> Models:
    """The saliency network at any size, on the device of `model`.

    Example:
        >>> saliency_models(saliency_vit(28))((14, 42)).backbone.patch_embed.grid_size
        (1, 3)
    """
    device = next(model.parameters()).device

    def build(size: Size) -> Any:
        return saliency_vit(size).to(device)

    return Models(build)


def davis(root: Path, strict: bool) -> Davis:
    """DAVIS in `root`, or in a folder `davis2016` or `davis` below it."""
    return Davis(below(root, ("davis2016", "davis")), strict=strict)


def cdnet(root: Path, strict: bool) -> CDnet:
    """CDnet in `root`, or in a folder `cdnet2014` or `cdnet` below it."""
    return CDnet(below(root, ("cdnet2014", "cdnet")), strict=strict)


def vehicles(root: Path, strict: bool) -> CDnet:
    """CDnet's "highway" alone, which the detector of vehicles knows."""
    from eventful.evaluation.tasks.vehicles import highway  # noqa: PLC0415 - optional libraries

    return highway(below(root, ("cdnet2014", "cdnet")), strict)


def crowd(root: Path, strict: bool) -> Crowd:
    """The video of people in `root`, or in a folder `vtest` below it."""
    return Crowd(below(root, ("vtest",)), strict=strict)


def davis_unseen(root: Path, strict: bool) -> Davis:
    """Those sequences of DAVIS that the segmentation head is not trained on."""
    return unseen(davis(root, strict))


def people(root: Path, strict: bool) -> Mot:
    """The street that the detector of people has not seen."""
    from eventful.evaluation.tasks.people import campus  # noqa: PLC0415 - optional libraries

    return campus(root, strict)


def people_task(
    models: Models, data: Mot, folder: Path, size: int | None, frames: int | None
) -> Task[Any]:
    """Needs libraries for the detector and to score it."""
    from eventful.evaluation.tasks.people import CampusPeople  # noqa: PLC0415 - optional libraries

    return CampusPeople(models, data, folder, size, frames)


def vehicles_task(
    models: Models, data: CDnet, folder: Path, size: int | None, frames: int | None
) -> Task[Any]:
    """Needs them too."""
    from eventful.evaluation.tasks.vehicles import CDnetVehicles  # noqa: PLC0415 - optional libraries

    return CDnetVehicles(models, data, folder, size, frames)


def below(root: Path, names: tuple[str, ...]) -> Path:
    """The first folder of these names in `root`, or `root` itself.

    Example:
        >>> below(Path("nowhere"), ("davis2016",))
        PosixPath('nowhere')
    """
    return next((root / name for name in names if (root / name).is_dir()), root)


Kind = tuple[Callable[..., Task[Any]], Callable[[Path, bool], Any]]

KINDS: dict[str, Kind] = {
    "davis-saliency": (DavisSaliency, davis),
    "davis-propagation": (DavisPropagation, davis),
    "davis-segmentation": (DavisSegmentation, davis_unseen),
    "cdnet-saliency": (CDnetSaliency, cdnet),
    "cdnet-vehicles": (vehicles_task, vehicles),
    "vtest": (CrowdTask, crowd),
    "campus-people": (people_task, people),
}


def annotated(
    name: str,
    model: Any,
    root: Path,
    folder: Path,
    *,
    size: int | None = None,
    frames: int | None = None,
    strict: bool = False,
) -> Task[Any]:
    """Build a task.

    Args:
        name: A key of `KINDS`.
        model: The saliency network at any size; its device is taken.
        root: The data set's folder, or the one that holds it.
        folder: Where dense tokens are kept.
        size: Long side of the frames in pixels.
        frames: Frames of a video at most.
        strict: Raise at the first problem with a file.

    Raises:
        FileNotFoundError: The data set is not there.

    Example:
        >>> try:
        ...     annotated("davis-saliency", saliency_vit(28), Path("nowhere"), Path("out"))
        ... except FileNotFoundError as error:
        ...     print(str(error).partition(";")[0])
        expected the frames of DAVIS at nowhere/JPEGImages/480p or nowhere/DAVIS/JPEGImages/480p
    """
    task, data = KINDS[name]
    return task(saliency_models(model), data(root, strict), folder, size, frames)
