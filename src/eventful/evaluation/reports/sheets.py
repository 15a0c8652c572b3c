"""A contact sheet: frames of a task under one setting, the truth and the dense model beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eventful.datasets import Sample
from eventful.evaluation.measures.errors import relative_error
from eventful.evaluation.settings import Setting
from eventful.evaluation.tasks.pictures import AMBER, tinted
from eventful.evaluation.tasks.token_task import TokenTask

FRAMES, VIDEOS = 5, 3
_SPAN = 100  # frames behind the first quarter that pictures are taken from at most


@dataclass(frozen=True, eq=False)
class Shown:
    """One frame of a sheet.

    Attributes:
        video: Its name.
        number: The frame's number in it.
        pictures: The frame, the truth, what the dense model's tokens give, what the setting's
            give, and where tokens were computed anew; each (3, H, W).
        labelled: Whether anything is known of the frame.
        error: Relative error of the setting's tokens.
        action: What the setting did with the frame.
        share: Share of the patches that were computed anew.
    """

    video: str
    number: int
    pictures: Sequence[Tensor]
    labelled: bool
    error: float
    action: str
    share: float


@torch.inference_mode()
def shown(task: TokenTask[Any], setting: Setting) -> list[Shown]:
    """Run a setting on the first part of some videos and look at some frames of each.

    Args:
        task: The task, whose dense tokens are there.
        setting: Any but the dense one.

    Returns:
        Up to five frames of up to three videos, spread out, all behind the first quarter of a
        video, since a probe may be trained there.

    Raises:
        ValueError: No video has been evaluated.

    Example: see `sheet`.
    """
    known = [video for video in task.data if task.dense.read(video.id) is not None]
    if not known:
        raise ValueError(f"{task.name} has no dense tokens; evaluate the dense model (again)")
    videos = [known[at] for at in spread(len(known), min(VIDEOS, len(known)))]
    runner, found = task.runner(setting), []
    for number, video in enumerate(videos):
        count = len(range(number, FRAMES, len(videos)))
        found += _of_video(task, runner, video, count)
    return found


def spread(length: int, count: int) -> list[int]:
    """Positions in a row, spread out evenly: the middles of equal parts.

    Example:
        >>> spread(11, 3), spread(2, 2), spread(1, 3)
        ([1, 5, 9], [0, 1], [0])
    """
    return sorted({int((part + 0.5) * length / count) for part in range(count)})


def _of_video(task: TokenTask[Any], runner: Any, video: Any, count: int) -> list[Shown]:
    """Run a video as far as needed."""
    dense = task.dense.read(video.id)
    assert dense is not None
    first = len(dense) // 4
    wanted = [first + at for at in spread(min(_SPAN, len(dense) - first), count)]
    judges, found = None, []
    frames = zip(task.footage(video), task.outputs(runner, video), strict=True)
    for number, (sample, tokens) in enumerate(frames):
        pair = torch.tensor(dense[number]), tokens[0]
        shape = sample.image.shape[1], sample.image.shape[2]
        judges = judges or [task.judge(video, shape) for _ in pair]
        for judge, one in zip(judges, pair, strict=True):
            judge.see(number, one, sample)
        if number in wanted:
            seen = [judge.picture(one, sample) for judge, one in zip(judges, pair, strict=True)]
            found.append(_shown(task, video, sample, seen, pair, runner))
        if number == wanted[-1]:
            break
    return found


def _shown(
    task: TokenTask[Any],
    video: Any,
    sample: Sample[Any],
    seen: Sequence[Tensor],
    pair: tuple[Tensor, Tensor],
    runner: Any,
) -> Shown:
    labelled, updated = sample.target is not None, runner.updated[0].cpu()
    truth = task.truth(sample) if labelled else sample.image
    pictures = (sample.image, truth, *seen, tinted(sample.image, updated, AMBER))
    error, share = relative_error(pair[1], pair[0]), float(updated.float().mean())
    action = runner.steps[-1].action
    return Shown(video.id, sample.number, pictures, labelled, error, action, share)


def sheet(task: TokenTask[Any], setting: Setting, path: Path, name: str | None = None) -> None:
    """Draw a contact sheet.

    Args:
        task: The task, whose dense tokens are there.
        setting: Any but the dense one.
        path: The .png or .jpg file to write.
        name: What the task is called [its name].

    Raises:
        ValueError: No video has been evaluated.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from PIL import Image
        >>> from eventful.datasets import Davis
        >>> from eventful.evaluation import combined, evaluate
        >>> from eventful.evaluation.tasks.saliency import DavisSaliency
        >>> from eventful.evaluation.runners.tokens import Models
        >>> from eventful.models.saliency import saliency_vit
        >>> root = Path(tempfile.mkdtemp())
        >>> for part, kind in (("JPEGImages", "jpg"), ("Annotations", "png")):
        ...     folder = root / part / "480p" / "camel"
        ...     folder.mkdir(parents=True)
        ...     for number in range(5):
        ...         pixels = np.zeros((20, 30), np.uint8)
        ...         pixels[4:9, 4 + number : 9 + number] = 255
        ...         Image.fromarray(pixels).save(folder / f"{number:05d}.{kind}")
        >>> task = DavisSaliency(Models(saliency_vit), Davis(root), root / "dense", size=42)
        >>> dense, gated = combined(["dense", "input"], ["top:2"])
        >>> _ = evaluate(task, [dense], root / "out")
        >>> sheet(task, gated, root / "sheet.png")
        >>> (root / "sheet.png").read_bytes()[1:4]
        b'PNG'
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional library

    rows = shown(task, setting)
    columns = ["frame", task.truth_is, "dense", setting.name, "computed anew"]
    height, width = rows[0].pictures[0].shape[1:]
    size = (2.6 * len(columns), (2.6 * height / width + 0.3) * len(rows) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    for title, axes in zip(columns, panels[0], strict=True):
        axes.set_title(title, fontsize=10)
    for row, line in zip(rows, panels, strict=True):
        _draw(row, line)
    figure.suptitle(f"{name or task.name}: {setting.name}", fontsize=12)
    figure.savefig(path, dpi=100)


def _draw(row: Shown, line: Any) -> None:
    truth = "" if row.labelled else "none for this frame"
    done = f"{row.action}, {row.share:.0%} of the patches"
    notes = ("", truth, "", f"relative error {row.error:.3f}", done)
    for axes, picture, note in zip(line, row.pictures, notes, strict=True):
        axes.imshow(picture.permute(1, 2, 0).clamp(0, 1).numpy(), aspect="auto")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(note, fontsize=9)
    line[0].set_ylabel(f"{row.video}, {row.number}", fontsize=9)
