"""Runs settings of a task over its videos, and goes on where a run was ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from eventful.datasets import Problem
from eventful.evaluation.scores import SettingReport
from eventful.evaluation.settings import Setting
from eventful.evaluation.store import Result, Store
from eventful.evaluation.summary import summarize
from eventful.evaluation.task import Named, Task
from eventful.stream.snapshots import digest


class Progress(NamedTuple):
    """How far `evaluate` is.

    Attributes:
        setting: The setting that runs.
        settings: Settings done.
        videos: Videos of it that are done.
        total: Videos of each setting.
        video: The one that runs.
        step: Frames of it that are done.
    """

    setting: str
    settings: int
    videos: int
    total: int
    video: str
    step: int = 0


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        settings: One a setting.
        problems: What is wrong with the files of the data set.
    """

    settings: list[SettingReport]
    problems: list[Problem]


def evaluate(
    task: Task[Any],
    settings: Sequence[Setting],
    folder: str | os.PathLike[str],
    *,
    videos: int | None = None,
    fresh: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Evaluation:
    r"""Run every setting over the videos, one setting after the other, and score each.

    A setting has the device for itself, since the state of the paper's full form alone takes
    gigabytes and times are to be of one model. The price is that frames are decoded anew for each.

    What is done is kept in the folder, video by video. The same call goes on behind it.

    Args:
        task: The task.
        settings: Of different names.
        folder: Where results are kept.
        videos: Take the first so many.
        fresh: Forget what the folder holds.
        progress: Called before and behind each video, and after each frame.

    Raises:
        ValueError: A setting does not fit, there is no video, two have the same name, or the folder
            holds results of another task, data set, model or setting.
        FileNotFoundError: A file is missing and the data set is strict; for other problems
            ValueError.

    Example:
        >>> import json, tempfile
        >>> import numpy as np
        >>> from eventful import TopR
        >>> from eventful.datasets import Kinetics, Views
        >>> from eventful.evaluation import ActionTask, combined, report, write_report
        >>> from eventful.models.vivit import ViViT
        >>> from eventful.video import Writer
        >>> model = ViViT(classes=1, img_size=16, frames=4, dim=24, heads=3, depth=2).eval()
        >>> root = Path(tempfile.mkdtemp())
        >>> _ = (root / "val.csv").write_text(
        ...     "label,youtube_id,time_start,time_end,split\nzumba,a,0,1,val")
        >>> with Writer(root / "a_000000_000001.mp4", rate=25) as writer:
        ...     for level in range(8):
        ...         writer.write(np.full((16, 24, 3), 20 * level, np.uint8))
        >>> data = Kinetics(root, views=Views(frames=4, size=16, stride=1))
        >>> task = ActionTask("kinetics", model, data)
        >>> found = evaluate(task, combined(["dense", "incremental"], [TopR(1)]), root / "out")
        >>> [one.scores["top1"] for one in found.settings]
        [100.0, 100.0]
        >>> about = {"title": "Kinetics", "weights": {"file": None}}
        >>> content = write_report(report(task, found, about), found, root / "out")
        >>> [Path(name).name for name in content["files"]]
        ['kinetics.json', 'kinetics.csv', 'kinetics.png', 'kinetics.svg']
    """
    chosen = list(islice(task.data, videos))
    _check(task, settings, [video.id for video in chosen])
    store = Store(Path(folder), _identity(task), fresh)
    for setting in settings:
        store.claim(setting)
    listing = list(task.data.problems)
    run = _Run(task, store, chosen, progress or (lambda _: None))
    found = [run.setting(number, setting) for number, setting in enumerate(settings)]
    problems = [*listing, *(one for video in chosen for one in run.problems.get(video.id, ()))]
    return Evaluation(found, list(dict.fromkeys(problems)))


class _Run:
    """One call of `evaluate`."""

    def __init__(
        self,
        task: Task[Any],
        store: Store,
        videos: Sequence[Named],
        progress: Callable[[Progress], None],
    ) -> None:
        self.task, self.store, self.videos, self.progress = task, store, videos, progress
        self.problems: dict[str, tuple[Problem, ...]] = {}

    def setting(self, number: int, setting: Setting) -> SettingReport:
        """Run what is left of a setting, and summarise all of it."""
        holds = [self.store.holds(setting, video.id) for video in self.videos]
        done = sum(holds)
        if done < len(holds):
            runner = self.task.runner(setting)
            for video, held in zip(self.videos, holds, strict=True):
                if held:
                    continue
                at = Progress(setting.name, number, done, len(holds), video.id)
                self.progress(at)
                runner.watch = lambda step, at=at: self.progress(at._replace(step=step))
                self.store.write(setting, self._video(runner, video))
                done += 1
        self.progress(Progress(setting.name, number, done, len(holds), ""))
        return summarize(self.task, setting, self._results(setting))

    def _video(self, runner: Any, video: Named) -> Result:
        """Run a video, and note which problems its files have.

        They are reported once by a data set, and are to stand in the files of every setting.
        """
        before = set(self.task.data.problems)
        found, after = self.task.run(runner, video)
        new = (one for one in self.task.data.problems if one not in before)
        self._note(video.id, new)
        return Result(video.id, found, list(runner.steps), after, self.problems[video.id])

    def _results(self, setting: Setting) -> Iterator[Result]:
        for video in self.videos:
            result = self.store.read(setting, video.id)
            self._note(video.id, result.problems)
            yield result

    def _note(self, video: str, problems: Any) -> None:
        self.problems[video] = tuple(dict.fromkeys([*self.problems.get(video, ()), *problems]))


def _check(task: Task[Any], settings: Sequence[Setting], videos: Sequence[str]) -> None:
    names = [setting.name for setting in settings]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected settings of different names, got {names}")
    if not videos:
        raise ValueError(f"there is no video to evaluate on:\n{task.data.problems}")
    if len(set(videos)) < len(videos):
        twice = next(video for video in videos if videos.count(video) > 1)
        raise ValueError(f"the data set names two videos {twice!r}; names must differ")
    for setting in settings:
        try:
            task.check(setting)
        except ValueError as error:
            raise ValueError(f"{setting.name}: {error}") from error


def _identity(task: Task[Any]) -> dict[str, Any]:
    """What all results depend on, and times too."""
    device = next(task.model.parameters()).device.type
    weights = digest(task.model.state_dict().values())
    return {"task": task.name, **task.identity(), "weights": weights, "device": device}
