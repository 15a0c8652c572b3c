"""What was found on annotated video, brought together: pure functions on reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from quality_clock import clock

from eventful.evaluation.reports.curves import FAMILIES
from eventful.evaluation.reports.phases import pooled


class Measures(NamedTuple):
    """The measures of a task, and the one that it is judged by first."""

    all: tuple[str, ...]
    main: str


TASKS = {
    "davis-saliency": Measures(("auc", "f_beta", "mae"), "auc"),
    "davis-propagation": Measures(("j_mean", "j_recall", "j_decay", "f_mean"), "j_mean"),
    "cdnet-saliency": Measures(("auc", "f_beta", "mae"), "auc"),
    "cdnet-vehicles": Measures(("map50",), "map50"),
    "vtest": Measures(("auc", "f1", "auc_dense", "f1_dense"), "f1_dense"),
    "davis-segmentation": Measures(("j_mean", "j_recall", "f_mean"), "j_mean"),
    "campus-people": Measures(("map50",), "map50"),
}
HEADS = ("davis-segmentation", "campus-people")  # trained elsewhere than where they are scored
JOINT = {
    "davis": ("davis-saliency", "davis-propagation"),
    "highway": ("cdnet-vehicles", "cdnet-saliency"),
}
LIMITS = (0.005, 0.02)
FEWER = 4  # times fewer operations at which quality is asked for
OURS, HELD = "auto:0.2", "skip:5"
DETAILED = (OURS, HELD, "carry:5")  # whose videos are kept
ERRORS = tuple(
    f"relative_error{part}{kind}" for part in ("", "_objects") for kind in ("", "_rms", "_max")
)
_LESS = ("mae",)  # better
_NO_QUALITY = ("j_decay",)  # a change of J over time, which is small where J is small throughout
_DIGITS = 5


def summary(
    reports: Iterable[Mapping[str, Any]], before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Tasks with their dense model, rows, and least operations within each limit; what was asked.

    Args:
        reports: What `eventful evaluate` or `quality.py run` has written, each task once.
        before: An earlier summary, whose settings are kept where they have not been run again.

    Raises:
        ValueError: A task comes twice, or a report is of another kind.
    """
    tasks: dict[str, Any] = {}
    for report in reports:
        for name, task in _tasks(report):
            if name in tasks:
                raise ValueError(f"two reports hold the task {name}; collect one of them")
            tasks[name] = task
    for name, task in (before or {"tasks": {}})["tasks"].items():
        _keep(tasks, name, task)
    ordered = {name: tasks[name] for name in TASKS if name in tasks}
    return {"tasks": ordered, "asked": asked(ordered)}


def _keep(tasks: dict[str, Any], name: str, before: Mapping[str, Any]) -> None:
    """Keep the settings of a task that have not been run again, and where they come from."""
    task = tasks.setdefault(name, {**before, "rows": []})
    known = {(row["variant"], row["policy"]) for row in task["rows"]}
    kept = [row for row in before["rows"] if (row["variant"], row["policy"]) not in known]
    share = clock(run_of(name)).share
    task["rows"] = [
        *task["rows"],
        *({**row, "time": row.get("time") or share(row)} for row in kept),
    ]
    if known and kept:
        settings = [f"{row['variant']}, {row['policy']}" for row in kept]
        task["kept"] = {"settings": settings, **before["provenance"]}
    task["least"] = least(task)


def run_of(task: str) -> str:
    """The run that a task judges."""
    return next((run for run, names in JOINT.items() if task in names), task)


def _tasks(report: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tasks that a report holds; runs that were judged by two tasks hold both."""
    names = JOINT.get(report["task"], (report["task"],))
    if names[0] not in TASKS or report.get("dense") is None:
        raise ValueError(f"expected a report on one of {', '.join(TASKS)}, got {report['task']}")
    share = clock(run_of(names[0])).share
    timed = pooled([{**row, "time": share(row)} for row in report["rows"]])
    for name in names:
        measures, dense = TASKS[name], report["dense"]
        task = {
            "main": measures.main,
            "data": {key: report["data"][key] for key in ("size", "frames")},
            "dense": {
                "quality": _quality(dense, measures),
                "operations": dense["operations"],
                "videos": [_video(one, measures) for one in dense["videos"]],
            },
            "rows": [_row(one, measures) for one in timed],
            "provenance": {key: report[key] for key in ("machine", "versions", "commit")},
        }
        yield name, task | {"least": least(task)}


def _row(row: Mapping[str, Any], measures: Measures) -> dict[str, Any]:
    kept = {key: row[key] for key in ("policy", "variant", "phases")}
    kept |= {name: _rounded(row[name]) for name in ("operations_ratio", "time")}
    kept |= {"quality": _quality(row, measures), **_errors(row)}
    if "range" in row:
        kept["range"] = {name: [*map(_rounded, row["range"][name])] for name in measures.all}
    if row["policy"] in DETAILED:
        kept["videos"] = [_video(one, measures) | _errors(one) for one in row["videos"]]
    return kept


def _video(video: Mapping[str, Any], measures: Measures) -> dict[str, Any]:
    return {
        "video": video["video"],
        "frames": video["frames"],
        "quality": _quality(video, measures),
    }


def _quality(entry: Mapping[str, Any], measures: Measures) -> dict[str, float | None]:
    return {name: _rounded(entry["quality"][name]) for name in measures.all}


def _errors(entry: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: _rounded(entry[name]) for name in ERRORS}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def within(row: Mapping[str, Any], dense: Mapping[str, Any], name: str, limit: float) -> bool:
    """Whether a measure of a row is at most a share worse than the dense model's."""
    value, level = row["quality"][name], dense["quality"][name]
    if value is None or level is None:
        return False
    worse = value - level if name in _LESS else level - value
    return worse <= limit * abs(level) + 1e-9


def least(task: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each variant, the setting of least operations that keeps to each limit.

    Nothing is interpolated: it is one of the measured settings, or None.

    Returns:
        By variant, then by limit in percent ("0.5"): "main" (its main measure within the limit)
        and "all" (every measure).
    """
    names = [name for name in task["dense"]["quality"] if name not in _NO_QUALITY]
    judged = {"main": [task["main"]], "all": names}
    return {
        variant: {
            f"{100 * limit:g}": {
                key: _cheapest(
                    row
                    for row in rows
                    if all(within(row, task["dense"], name, limit) for name in judged[key])
                )
                for key in judged
            }
            for limit in LIMITS
        }
        for variant, rows in by_variant(task["rows"]).items()
    }


def by_variant(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by their variant, in the order of the curves."""
    order = list(FAMILIES)
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda one: _place(order, one["variant"])):
        found.setdefault(row["variant"], []).append(row)
    return found


def _place(order: Sequence[str], variant: str) -> int:
    return order.index(variant) if variant in order else len(order)


def _cheapest(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    known = [one for one in rows if one["operations_ratio"] is not None]
    if not known:
        return None
    best = max(known, key=lambda one: one["operations_ratio"])
    return {key: best[key] for key in ("policy", "operations_ratio")}


def at_fewer(task: Mapping[str, Any], variant: str) -> Mapping[str, Any] | None:
    """The row of a variant of best main measure among those at 4 times fewer operations or less."""
    return _best(task, variant, lambda row: round(row["operations_ratio"] or 0, 2) >= FEWER)


def at_less_time(task: Mapping[str, Any], variant: str, times: float) -> Mapping[str, Any] | None:
    """The row of a variant of best main measure among those that take so many times less time."""
    return _best(task, variant, lambda row: row["time"] is not None and times * row["time"] <= 1)


def _best(task: Mapping[str, Any], variant: str, cheap: Callable[[Any], bool]) -> Any:
    rows = [row for row in task["rows"] if row["variant"] == variant and cheap(row)]
    known = [row for row in rows if row["quality"][task["main"]] is not None]
    return max(known, key=lambda one: one["quality"][task["main"]], default=None)


def loss(task: Mapping[str, Any], row: Mapping[str, Any] | None) -> float | None:
    """How much worse than dense a row's main measure is, as a share; below 0 where it is better."""
    level = task["dense"]["quality"][task["main"]]
    return None if row is None or not level else 1 - row["quality"][task["main"]] / level


def asked(tasks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures that were asked for: "found" and "most"; "met" is None where not measured."""
    davis, static = _of(tasks, ("davis-saliency", "davis-propagation")), _static(tasks)
    kinds = (("relative_error", "error"), ("relative_error_objects", "error on objects"))
    found = [_ratio(davis, *kinds[0], "DAVIS", 0.9)]
    found += [_ratio(static, *kinds[0], "static clips", 0.65)]
    found += [_ratio(static, *kinds[1], "static clips", 0.5)]
    for name, times, most in (("cdnet-vehicles", 5, 0.005), ("davis-propagation", 4, 0.02)):
        task = tasks.get(name)
        row = None if task is None else at_less_time(task, "auto", times)
        what = f"{name}: relative loss of {TASKS[name].main} at {times}x less time, auto"
        value = None if task is None else loss(task, row)
        entry = _judged(what, value, most)
        found.append(entry | {"policy": None if row is None else row["policy"]})
    for name, most in zip(HEADS, (0.02, 0.01), strict=True):
        task = tasks.get(name)
        row = None if task is None else at_fewer(task, "auto")
        what = f"{name}: relative loss of {TASKS[name].main} at {FEWER}x fewer operations, auto"
        entry = _judged(what, None if task is None else loss(task, row), most)
        found.append(entry | {"policy": None if row is None else row["policy"]})
    return found


def _of(tasks: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """The first of these tasks that there is."""
    return [tasks[name] for name in names if name in tasks][:1]


def _static(tasks: Mapping[str, Any]) -> list[Any]:
    """One task on each static clip; none unless there are both."""
    found = _of(tasks, ("cdnet-vehicles", "cdnet-saliency")) + _of(tasks, ("vtest",))
    return found if len(found) == 2 else []


def _ratio(
    tasks: Sequence[Any], column: str, label: str, where: str, most: float
) -> dict[str, Any]:
    """The ratio of the mean errors of two policies over some clips, and of other means of them."""
    pairs = [tuple(row_of(task, policy) for policy in (OURS, HELD)) for task in tasks]
    what = f"{where}: {label}, {OURS} / {HELD}"
    if not pairs or any(row is None or row[column] is None for pair in pairs for row in pair):
        return _judged(what, None, most)
    ours, held = zip(*pairs, strict=True)
    entry = _judged(what, _mean(ours, column) / _mean(held, column), most)
    entry["rms"] = _rms(ours, f"{column}_rms") / _rms(held, f"{column}_rms")
    entry["worst"] = max(row[f"{column}_max"] for row in ours) / max(
        row[f"{column}_max"] for row in held
    )
    entry["clips"] = _clips(ours, held, column)
    entry["operations_ratio"] = [[row["operations_ratio"] for row in one] for one in (ours, held)]
    return entry


def _clips(ours: Sequence[Any], held: Sequence[Any], column: str) -> dict[str, float | None]:
    """The ratio of each clip."""
    pairs = [pair for one, two in zip(ours, held, strict=True) for pair in _videos(one, two)]
    return {
        one["video"]: one[column] / two[column] if one[column] and two[column] else None
        for one, two in pairs
    }


def _videos(ours: Mapping[str, Any], held: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    return list(zip(ours["videos"], held["videos"], strict=True))


def _mean(rows: Sequence[Any], column: str) -> float:
    return sum(row[column] for row in rows) / len(rows)


def _rms(rows: Sequence[Any], column: str) -> float:
    return math.sqrt(sum(row[column] ** 2 for row in rows) / len(rows))


def _judged(what: str, value: float | None, most: float) -> dict[str, Any]:
    met = None if value is None else value <= most + 1e-9
    return {"what": what, "found": value, "most": most, "met": met}


def row_of(task: Mapping[str, Any], policy: str) -> Any:
    """The row of a policy that has none but its own variant."""
    return next((row for row in task["rows"] if row["policy"] == policy), None)
