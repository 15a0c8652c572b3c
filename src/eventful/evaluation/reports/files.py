"""An evaluation for machines (JSON), for spreadsheets (CSV), and as a picture."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from eventful.evaluation.evaluate import Evaluation
from eventful.evaluation.reports.beside_paper import heading, plot
from eventful.evaluation.reports.curves import curves
from eventful.evaluation.scores import SettingReport
from eventful.evaluation.task import Task
from eventful.paper.tables import ENTRIES
from eventful.provenance import commit, machine, version, write_json

_TIMES = ("milliseconds", "later")
_LIBRARIES = ("torchmetrics", "pycocotools", "torchvision", "timm")


def report(
    task: Task[Any], evaluation: Evaluation, about: Mapping[str, Any], times: bool = True
) -> dict[str, Any]:
    """Put an evaluation into what JSON can hold.

    Args:
        task: Its task.
        evaluation: What `evaluate` found.
        about: What else to say: "title", the data set's; "weights" with the name of their "file",
            None for random ones.
        times: Say how long frames took; leave it out where the machine was busy.

    Returns:
        "task", "measures" (their names; scores are in percent), "per" (what operations are stated
        for), "settings", "paper" (its rows for this model and size), "problems", provenance, and
        what the task adds.

    Example: see `evaluate`.
    """
    settings = evaluation.settings if times else [_timeless(one) for one in evaluation.settings]
    return {
        "task": task.name,
        **about,
        "data": task.identity(),
        "measures": list(task.measures),
        "per": task.per,
        "settings": [setting_entry(one) for one in settings],
        "paper": paper_points(task),
        "problems": [
            {"kind": one.kind, "path": str(one.path), "reason": one.reason}
            for one in evaluation.problems
        ],
        "machine": machine() | {"device": next(task.model.parameters()).device.type},
        "versions": {name: version(name) for name in _LIBRARIES},
        "commit": commit(),
        **task.further(settings),
    }


def _timeless(one: SettingReport) -> SettingReport:
    """The same without times."""
    videos = [video | dict.fromkeys(_TIMES) for video in one.videos]
    return replace(one, videos=videos, milliseconds=None)


def setting_entry(one: SettingReport) -> dict[str, Any]:
    """One setting of the report; `operations` are a frame's or a video's, see "per"."""
    return {
        "setting": one.setting.name,
        "label": one.setting.variant,
        **one.setting.as_dict(),
        "videos": len(one.videos),
        "steps": one.total("steps"),
        "scored": one.total("scored"),
        "scores": one.scores,
        "operations": one.operations,
        "dense_operations": one.dense_operations,
        "ratio": one.ratio,
        "first_share": one.first_share,
        "milliseconds": one.milliseconds,
    }


def paper_points(task: Task[Any]) -> list[dict[str, Any]]:
    """The rows of the paper with a task's model and size; operations as counts, not in 10^9."""
    points: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in ENTRIES:
        if (entry.model, entry.size) != task.paper or entry.operations is None:
            continue
        point = {
            "table": entry.table,
            "variant": entry.variant,
            "label": entry.variant if entry.tuned_r is None else entry.label,
            "r": entry.r,
            "threshold": entry.threshold,
            "operations": entry.operations * entry.unit,
            "accuracy": entry.accuracy,
        }
        points.setdefault((entry.label, entry.r), point)  # dense rows stand in several tables
    return list(points.values())


def write_report(
    content: dict[str, Any],
    evaluation: Evaluation,
    folder: str | os.PathLike[str],
    times: bool = True,
) -> dict[str, Any]:
    """Write <task>.json, .csv, .png and .svg.

    Returns:
        The content with the names of the files.

    Example: see `evaluate`.
    """
    folder, task = Path(folder), content["task"]
    files = [folder / f"{task}.{kind}" for kind in ("json", "csv", "png", "svg")]
    content = content | {"files": [str(path) for path in files]}
    _write_csv(evaluation, files[1], times)
    if "rows" in content:
        curves(content["dense"], content["rows"], heading(content), files[2:])
    else:
        plot(content, files[2:])
    write_json(content, files[0])
    return content


def _write_csv(evaluation: Evaluation, path: Path, times: bool) -> None:
    """One line a setting and video."""
    temporary = path.with_suffix(".csv.part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer: Any = None
        for one in evaluation.settings:
            head = {"setting": one.setting.name, **one.setting.as_dict()}
            head |= {"lookahead": one.setting.lookahead}
            head.pop("options")
            for video in one.videos:
                row = head | video | ({} if times else dict.fromkeys(_TIMES))
                if writer is None:
                    writer = csv.DictWriter(file, list(row))
                    writer.writeheader()
                writer.writerow(row)
    os.replace(temporary, path)
