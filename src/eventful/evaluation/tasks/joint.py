"""Several tasks on the same tokens: a video is run once, and each of them judges it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from torch import Tensor

from eventful.datasets import Sample
from eventful.evaluation.measures.patches import Size
from eventful.evaluation.scores import Arrays, Scores
from eventful.evaluation.tasks.token_task import Judge, TokenTask


@final
class Joint(TokenTask[Any]):
    """Runs the frames of one task and has others judge them too.

    Saliency and mask propagation on the same frames take half of the time in this way. Dense
    tokens are kept where the first task keeps them.

    Args:
        name: What it is called.
        tasks: Their frames, objects and size are those of the first. Measures differ by name.
        drawn: Which of them a contact sheet shows, from 0.

    Raises:
        ValueError: Two tasks have a measure of the same name, or differ in size.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from eventful.datasets import Davis
        >>> from eventful.evaluation import combined, evaluate
        >>> from eventful.evaluation.tasks.propagation import DavisPropagation
        >>> from eventful.evaluation.tasks.saliency import DavisSaliency
        >>> from eventful.evaluation.runners.tokens import Models
        >>> from eventful.models.saliency import saliency_vit
        >>> root = Path(tempfile.mkdtemp())
        >>> for part, kind in (("JPEGImages", "jpg"), ("Annotations", "png")):
        ...     folder = root / part / "480p" / "camel"
        ...     folder.mkdir(parents=True)
        ...     for number in range(5):
        ...         pixels = np.zeros((20, 30), np.uint8)
        ...         pixels[4:12, 4:16] = 255
        ...         Image.fromarray(pixels).save(folder / f"{number:05d}.{kind}")
        >>> parts = [
        ...     kind(Models(saliency_vit), Davis(root), root / "dense", size=42)
        ...     for kind in (DavisSaliency, DavisPropagation)]
        >>> task = Joint("davis", parts)
        >>> (dense,) = evaluate(task, combined(["dense"], []), root / "out").settings
        >>> list(dense.scores)
        ['auc', 'f_beta', 'mae', 'j_mean', 'j_recall', 'j_decay', 'f_mean']
    """

    def __init__(self, name: str, tasks: Sequence[TokenTask[Any]], drawn: int = 0) -> None:
        first, measures = tasks[0], [name for task in tasks for name in task.measures]
        if len(set(measures)) < len(measures):
            raise ValueError(f"tasks that run together need measures of their own, got {measures}")
        if any((task.size, task.frames) != (first.size, first.frames) for task in tasks):
            raise ValueError("tasks that run together need the same size and number of frames")
        self.name, self.measures = name, tuple(measures)
        self.models, self.data, self.frames = first.models, first.data, first.frames
        self.size, self.dense = first.size, first.dense
        self.model, self.tokens = first.model, first.tokens
        self._tasks, self._drawn = tuple(tasks), tasks[drawn]
        self.truth_is = self._drawn.truth_is

    def identity(self) -> dict[str, Any]:
        """That of all tasks."""
        return {key: value for task in self._tasks for key, value in task.identity().items()}

    def footage(self, video: Any) -> Iterator[Sample[Any]]:
        """The first task's."""
        return self._tasks[0].footage(video)

    def truth(self, sample: Sample[Any]) -> Tensor:
        """As the task does that is drawn."""
        return self._drawn.truth(sample)

    def objects(self, target: Any) -> Tensor | None:
        """The first task's."""
        return self._tasks[0].objects(target)

    def judge(self, video: Any, shape: Size) -> Judge:
        """All of them look."""
        judges = {task.name: task.judge(video, shape) for task in self._tasks}
        return _Judges(judges, judges[self._drawn.name])

    def quality(self, found: Arrays) -> Scores:
        """The measures of all."""
        scores: Scores = {}
        for task in self._tasks:
            head = f"{task.name}."
            own = {key[len(head) :]: one for key, one in found.items() if key.startswith(head)}
            scores |= task.quality(own)
        return scores


@dataclass
class _Judges:
    """The judges of one video, by task; what they find bears their names."""

    judges: Mapping[str, Judge]
    drawn: Judge

    def see(self, number: int, tokens: Tensor, sample: Sample[Any]) -> None:
        """Show it to each."""
        for judge in self.judges.values():
            judge.see(number, tokens, sample)

    def picture(self, tokens: Tensor, sample: Sample[Any]) -> Tensor:
        """As the judge does whose task is drawn."""
        return self.drawn.picture(tokens, sample)

    def found(self) -> dict[str, np.ndarray]:
        """What each has found; "scored" is what the most exacting one has scored."""
        each = {name: judge.found() for name, judge in self.judges.items()}
        named = {f"{name}.{key}": one for name, own in each.items() for key, one in own.items()}
        return named | {"scored": max(own["scored"] for own in each.values())}
