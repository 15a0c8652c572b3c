"""Quality, operations, time and error of settings beside the dense model's, for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

from eventful.evaluation.scores import SettingReport

_ERRORS = {"error": "relative_error", "error_objects": "relative_error_objects"}


def quality_report(settings: Sequence[SettingReport], measures: Sequence[str]) -> dict[str, Any]:
    """Put the settings of a task on patch tokens beside its dense model.

    Args:
        settings: With the dense model among them.
        measures: Names of the scores, which here are shares of 1 and not percent.

    Returns:
        "dense" with "quality", "operations" (multiply-accumulates a frame), "milliseconds" and
        "videos"; "rows", one a setting, with "policy", "variant", "lookahead", "quality",
        "operations_ratio" and "time_ratio" (dense over used: the first over all frames, the second
        over all but the first of a video), "milliseconds", "frames_per_second", "relative_error"
        and "relative_error_objects" (means over all frames; `_max` is the worst frame, `_rms` the
        root mean square), "kinds" (how many frames were dense, partial and so on, and their mean
        operations over a dense frame's), and "videos" with the same of each. None stands where
        there is no answer.

    Example: see `SaliencyTask`.
    """
    dense = next((one for one in settings if one.setting.policy is None), None)
    rows = [_row(one, dense, measures) for one in settings if one is not dense]
    return {"dense": None if dense is None else _dense(dense, measures), "rows": rows}


def _dense(one: SettingReport, measures: Sequence[str]) -> dict[str, Any]:
    videos = [
        {
            "video": video["video"],
            "frames": video["steps"],
            "scored": video["scored"],
            "quality": _shares(video, measures),
            "operations": _over(video["operations"], video["steps"]),
            "milliseconds": video["later"],
        }
        for video in one.videos
    ]
    return {
        "quality": _shares(one.scores, measures),
        "operations": one.operations,
        "milliseconds": one.later,
        "frames_per_second": _over(1000, one.later),
        "videos": videos,
    }


def _row(
    one: SettingReport, dense: SettingReport | None, measures: Sequence[str]
) -> dict[str, Any]:
    times = {} if dense is None else {video["video"]: video["later"] for video in dense.videos}
    videos = [_video(video, times.get(video["video"]), measures) for video in one.videos]
    return {
        "policy": one.setting.text or str(one.setting.policy),
        "variant": one.setting.variant,
        "lookahead": one.setting.lookahead,
        "options": dict(one.setting.options),
        "operations_ratio": one.ratio,
        "quality": _shares(one.scores, measures),
        **_pooled(one.videos),
        "kinds": _kinds(one.videos),
        "time_ratio": None if dense is None else _over(dense.later, one.later),
        "milliseconds": one.later,
        "frames_per_second": _over(1000, one.later),
        "videos": videos,
    }


def _video(
    video: Mapping[str, Any], dense_time: float | None, measures: Sequence[str]
) -> dict[str, Any]:
    return {
        "video": video["video"],
        "frames": video["steps"],
        "scored": video["scored"],
        "operations_ratio": _over(video["dense_operations"], video["operations"]),
        "quality": _shares(video, measures),
        **_pooled([video]),
        "time_ratio": _over(dense_time, video["later"]),
        "milliseconds": video["later"],
    }


def _kinds(videos: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """How many frames were dense, partial and so on, and their mean operations over dense."""
    found: dict[str, list[float]] = {}
    for video in videos:
        for kind, (frames, operations) in video["kinds"].items():
            known = found.setdefault(kind, [0, 0.0])
            known[0], known[1] = known[0] + frames, known[1] + operations
    return {kind: {"frames": n, "operations": used / n} for kind, (n, used) in found.items()}


def _pooled(videos: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The errors of all frames of some videos, from those of each video."""
    row: dict[str, float | None] = {}
    for column, name in _ERRORS.items():
        known = [one for one in videos if one[f"{column}_frames"]]
        weights = [one[f"{column}_frames"] for one in known]
        mean = _over(_dot(weights, [one[f"{column}_mean"] for one in known]), sum(weights))
        square = _over(_dot(weights, [one[f"{column}_rms"] ** 2 for one in known]), sum(weights))
        row[name] = mean
        row[f"{name}_max"] = max((one[f"{column}_max"] for one in known), default=None)
        row[f"{name}_rms"] = None if square is None else sqrt(square)
    return row


def _dot(weights: Sequence[float], values: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


def _shares(scores: Mapping[str, Any], measures: Sequence[str]) -> dict[str, float | None]:
    return {name: None if scores[name] is None else scores[name] / 100 for name in measures}


def _over(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
