"""Tables made from benchmarks/results/quality.json, and the files that hold them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import filling
from filling import Lines
from quality_summary import (
    DETAILED,
    ERRORS,
    HEADS,
    LIMITS,
    TASKS,
    at_fewer,
    at_less_time,
    by_variant,
    loss,
    row_of,
)

from eventful.evaluation.reports.curves import FAMILIES

_NAMES = {
    "auc": "AUC",
    "f_beta": "F-beta",
    "mae": "MAE",
    "j_mean": "J",
    "map50": "mAP50",
    "f1_dense": "F1 with dense",
}
TIMES = (3, 4, 5)  # times less time at which quality is asked for
_CLIPS = {  # whose errors stand in a table: the tasks that hold them, the first that there is
    "DAVIS": ("davis-saliency", "davis-propagation"),
    "highway": ("cdnet-vehicles", "cdnet-saliency"),
    "vtest": ("vtest",),
}


def limits(found: Mapping[str, Any], judged: str = "main") -> Lines:
    """Times fewer operations that each kind of setting reaches within the limits, by task."""
    tasks = found["tasks"]
    head = ["setting", *(_column(name, judged) for name in tasks)]
    lines = [head]
    for variant in _variants(tasks):
        cells = [_reached(task["least"].get(variant), judged) for task in tasks.values()]
        lines.append([_label(variant), *cells])
    return lines


def _variants(tasks: Mapping[str, Any]) -> list[str]:
    rows = [row for task in tasks.values() for row in task["rows"]]
    return list(by_variant(rows))


def _label(variant: str) -> str:
    known = FAMILIES.get(variant)
    return variant if known is None else known.label


def _column(task: str, judged: str) -> str:
    return f"{task}, {_NAMES[TASKS[task].main]}" if judged == "main" else task


def _reached(least: Mapping[str, Any] | None, judged: str) -> str:
    if least is None:
        return "not run"
    choices = [least[f"{100 * limit:g}"][judged] for limit in LIMITS]
    return " / ".join("-" if one is None else f"{one['operations_ratio']:.1f}x" for one in choices)


def settings(found: Mapping[str, Any]) -> Lines:
    """Which settings these are, on all tasks."""
    lines = [
        ["task", "setting", "within 0.5 %", "within 2 %", "all within 0.5 %", "all within 2 %"]
    ]
    for name, task in found["tasks"].items():
        for variant, least in task["least"].items():
            choices = [
                least[f"{100 * limit:g}"][key] for key in ("main", "all") for limit in LIMITS
            ]
            lines.append([name, _label(variant), *map(_choice, choices)])
    return lines


def _choice(one: Mapping[str, Any] | None) -> str:
    return "none measured" if one is None else f"`{one['policy']}`, {one['operations_ratio']:.2f}x"


def fewer(found: Mapping[str, Any]) -> Lines:
    """The best main measure of each kind of setting at 4 times fewer operations or less."""
    tasks = found["tasks"]
    lines = [["setting", *(_column(name, "main") for name in tasks)]]
    levels = [_share(task["dense"]["quality"][task["main"]]) for task in tasks.values()]
    lines.append(["dense", *levels])
    for variant in _variants(tasks):
        cells = [_loss(task, at_fewer(task, variant)) for task in tasks.values()]
        lines.append([_label(variant), *cells])
    return lines


def time(found: Mapping[str, Any]) -> Lines:
    """The best main measure of each kind of setting where it is so many times faster."""
    tasks = found["tasks"]
    lines = [["at least", "setting", *(_column(name, "main") for name in tasks)]]
    for times, variant in itertools.product(TIMES, _variants(tasks)):
        rows = [at_less_time(task, variant, times) for task in tasks.values()]
        if any(rows):
            cells = [_timed(*both) for both in zip(tasks.values(), rows, strict=True)]
            lines.append([f"{times}x faster", _label(variant), *cells])
    return lines


def _timed(task: Mapping[str, Any], row: Mapping[str, Any] | None) -> str:
    return "-" if row is None else f"{_loss(task, row)}, {1 / row['time']:.1f}x"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _loss(task: Mapping[str, Any], row: Mapping[str, Any] | None) -> str:
    lost = loss(task, row)
    if row is None or lost is None:
        return "-"
    return f"{row['quality'][task['main']]:.4f} ({-100 * lost:+.1f} %)"


def errors(found: Mapping[str, Any]) -> Lines:
    """Relative errors of the tokens at a fifth of the operations."""
    columns = ["error", "rms", "worst", "on objects", "rms", "worst"]
    lines = [["clips", "setting", "operations", *columns]]
    for clips, names in _CLIPS.items():
        task = next((found["tasks"][name] for name in names if name in found["tasks"]), None)
        rows = [] if task is None else [row_of(task, policy) for policy in DETAILED]
        for row in rows:
            if row is not None:
                lines.append([clips, f"`{row['policy']}`", *_error_cells(row)])
    return lines


def _error_cells(row: Mapping[str, Any]) -> list[str]:
    values = ["-" if row[name] is None else f"{row[name]:.3f}" for name in ERRORS]
    return [f"{row['operations_ratio']:.2f}x", *values]


def heads(found: Mapping[str, Any]) -> Lines:
    """Trained heads where they have not been: every setting, from the fewest operations saved."""
    lines = [["task", "setting", "operations", "main measure", "error", "worst"]]
    for name in HEADS:
        task = found["tasks"].get(name)
        if task is None:
            continue
        label = f"{name}, {_NAMES[task['main']]}"
        level = _share(task["dense"]["quality"][task["main"]])
        lines.append([label, "dense", "1x", level, "-", "-"])
        for row in sorted(task["rows"], key=lambda one: one["operations_ratio"]):
            error, _, worst = _error_cells(row)[1:4]
            cells = [f"{row['operations_ratio']:.2f}x", _loss(task, row), error, worst]
            lines.append([label, f"`{row['policy']}`", *cells])
    return lines


def asked(found: Mapping[str, Any]) -> Lines:
    """What was asked for, and what was found."""
    lines = [["figure", "asked, at most", "found", "rms", "worst frame", "clips"]]
    for one in found["asked"]:
        clips = one.get("clips", {})
        each = ", ".join(f"{name} {_figure(value)}" for name, value in clips.items())
        more = [_figure(one.get(key)) for key in ("rms", "worst")]
        value = _figure(one["found"]) + {True: "", False: " (missed)", None: ""}[one["met"]]
        lines.append([one["what"], f"{one['most']:g}", value, *more, each or "-"])
    return lines


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


TABLES: Mapping[str, Callable[[Mapping[str, Any]], Lines]] = {
    "limits": limits,
    "limits-all": lambda found: limits(found, "all"),
    "settings": settings,
    "fewer": fewer,
    "time": time,
    "errors": errors,
    "heads": heads,
    "asked": asked,
}


def filled(text: str, found: Mapping[str, Any]) -> str:
    """A text with what stands between `<!-- quality: NAME -->` and `<!-- end -->` made anew."""
    return filling.filled(text, "quality", {name: table(found) for name, table in TABLES.items()})
