"""Works out from results what one setting gave."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import Any

from eventful.evaluation.runners.frames import Step
from eventful.evaluation.scores import Arrays, SettingReport
from eventful.evaluation.settings import Setting
from eventful.evaluation.store import Result
from eventful.evaluation.task import Task


def summarize(task: Task[Any], setting: Setting, results: Iterable[Result]) -> SettingReport:
    """Score a setting and work out what it took, one video at a time."""
    videos: list[dict[str, Any]] = []
    times: list[float] = []

    def seen() -> Iterator[Arrays]:
        for result in results:
            videos.append(_row(task, result))
            times.extend(_times(result))
            yield result.found

    scores = task.score(seen())
    return SettingReport(setting, scores, videos, task.per, _median(times))


def _row(task: Task[Any], result: Result) -> dict[str, Any]:
    steps = result.steps
    later = [step.milliseconds for step in steps[1:]]
    return {
        "video": result.video,
        "steps": len(steps),
        "first": sum(step.first for step in steps),
        "operations": sum(step.operations for step in steps) + result.after,
        "dense_operations": sum(step.dense_operations for step in steps) + result.after,
        "kinds": kinds(steps),
        "milliseconds": _median(_times(result)),
        "later": statistics.fmean(later) if later else None,
        **task.describe(result.found),
    }


def kinds(steps: Iterable[Step]) -> dict[str, list[float]]:
    """By what was done: the number of such frames, and their operations over the dense model's.

    Example:
        >>> steps = [Step(8, 8, 1.0, True, "dense"), *[Step(2, 8, 1.0, False, "partial")] * 2]
        >>> kinds(steps)
        {'dense': [1, 1.0], 'partial': [2, 0.5]}
    """
    found: dict[str, list[float]] = {}
    for step in steps:
        known = found.setdefault(step.action, [0, 0.0])
        known[0] += 1
        known[1] += step.operations / step.dense_operations
    return found


def _times(result: Result) -> list[float]:
    """Of the frames that were computed from what is remembered."""
    return [step.milliseconds for step in result.steps if not step.first]


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
