"""Quality and error against the operations saved, a line for each kind of setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eventful.evaluation.reports.phases import pooled


class Family(NamedTuple):
    """Settings that differ in their budget alone.

    Attributes:
        label: What a legend calls them.
        colour: Of their line.
        marker: Of their points, in matplotlib's letters.
    """

    label: str
    colour: str
    marker: str


FAMILIES: Mapping[str, Family] = {
    "auto": Family("auto", "#d62728", "*"),
    "auto, lookahead": Family("auto, lookahead", "#8b0000", "*"),
    "error": Family("auto, an error held", "#e377c2", "*"),
    "time": Family("auto, by time", "#ff9896", "*"),
    "incremental": Family("top r (the paper's gating)", "#1f77b4", "o"),
    "paper": Family("top r (the paper's gating)", "#1f77b4", "o"),
    "hold": Family("hold", "#17becf", "v"),
    "input": Family("input", "#8c564b", "P"),
    "input-relative": Family("input, relative error", "#9467bd", "D"),
    "token-wise": Family("token-wise only", "#aec7e8", "s"),
    "stgt": Family("STGT's gate", "#7f7f7f", "x"),
    "skip": Family("every k-th frame, held", "#2ca02c", "<"),
    "carry": Family("every k-th frame, carried", "#bcbd22", ">"),
    "carry, lookahead": Family("every k-th frame, carried from both sides", "#808000", ">"),
    "lowres": Family("low resolution", "#ff7f0e", "^"),
}
_MEASURES = {
    "auc": "AUC",
    "f_beta": "maximal F-beta",
    "mae": "mean absolute error (less is better)",
    "j_mean": "J, mean",
    "j_recall": "J, recall",
    "j_decay": "J, decay (less is better)",
    "f_mean": "F, mean",
    "map50": "mAP at overlap 0.5",
    "f1": "F1",
    "auc_dense": "AUC, agreement with dense",
    "f1_dense": "F1, agreement with dense",
    "relative_error": "relative error of the tokens",
    "relative_error_objects": "the same on objects",
}
_ERRORS = ("relative_error", "relative_error_objects")
_TICKS = (1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50)
_COLUMNS = 3


def curves(
    dense: Mapping[str, Any] | None,
    rows: Sequence[Mapping[str, Any]],
    title: str,
    paths: Sequence[Path],
    measures: Sequence[str] | None = None,
) -> None:
    """Draw each measure and both relative errors over the operations, dense over used.

    Args:
        dense: The dense model with its "quality", drawn as a line across; None without one.
        rows: The settings, as in `quality_report`.
        title: Above the picture.
        paths: Files to write, .png or .svg.
        measures: Those to draw; by default all that the rows have.

    Example:
        >>> import tempfile
        >>> rows = [
        ...     {"variant": "skip", "policy": "skip:5", "operations_ratio": 5.0,
        ...      "quality": {"auc": 0.9}, "relative_error": 0.2, "relative_error_objects": None}]
        >>> path = Path(tempfile.mkdtemp(), "curves.svg")
        >>> curves({"quality": {"auc": 0.95}}, rows, "a task", [path])
        >>> "every k-th frame, held" in path.read_text()
        True
    """
    from matplotlib import rc_context  # noqa: PLC0415 - optional library
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional library

    with rc_context({"svg.hashsalt": "eventful", "svg.fonttype": "none"}):
        names = [*(_names(dense, rows) if measures is None else measures), *_ERRORS]
        columns = min(_COLUMNS, len(names))
        height = math.ceil(len(names) / columns)
        figure = Figure(figsize=(4.2 * columns, 3.1 * height + 1.1), layout="constrained")
        panels = list(figure.subplots(height, columns, squeeze=False).flatten())
        shown = pooled(rows)
        for axes, name in zip(panels, names, strict=False):
            _panel(axes, name, dense, shown)
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        figure.suptitle(title, fontsize=11)
        _legend(figure, panels)
        for path in paths:  # without the date, a file changes only where figures do
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, dpi=140, metadata=metadata)


def lines(rows: Sequence[Mapping[str, Any]], name: str) -> dict[Family, list[tuple[float, float]]]:
    """The points (operations ratio, value) of each family, from the most operations down.

    Args:
        rows: As for `curves`.
        name: A key of their "quality", or one of their relative errors.

    Example:
        >>> rows = [
        ...     {"variant": "skip", "operations_ratio": ratio, "quality": {"auc": value}}
        ...     for ratio, value in ((5, 1), (2, 2))]
        >>> [(family.label, points) for family, points in lines(rows, "auc").items()]
        [('every k-th frame, held', [(2, 2), (5, 1)])]
    """
    found: dict[Family, list[tuple[float, float]]] = {}
    for row in rows:
        value = row[name] if name in _ERRORS else row["quality"].get(name)
        if row["operations_ratio"] is not None and value is not None:
            found.setdefault(family(row), []).append((row["operations_ratio"], value))
    return {key: sorted(found[key]) for key in sorted(found, key=_rank)}


def family(row: Mapping[str, Any]) -> Family:
    """The family of a row; what has no name here is called by its variant.

    Example:
        >>> family({"variant": "stgt", "policy": "top:5"}).label
        "STGT's gate"
    """
    name = row["variant"]
    return FAMILIES.get(name, Family(name, "black", "."))


def _rank(one: Family) -> int:
    known = list(FAMILIES.values())
    return known.index(one) if one in known else len(known)


def _names(dense: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The measures of a report in their order."""
    entries = [*([] if dense is None else [dense]), *rows]
    return list(dict.fromkeys(name for one in entries for name in one["quality"]))


def _panel(
    axes: Any, name: str, dense: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]
) -> None:
    for one, points in lines(rows, name).items():
        look = {"color": one.colour, "marker": one.marker, "ms": 8 if one.marker == "*" else 4}
        axes.plot(*zip(*points, strict=True), lw=1.2, label=one.label, **look)
    level = None if dense is None else dense["quality"].get(name)
    if level is not None:
        axes.axhline(level, color="black", lw=0.9, ls="--", label="dense")
    if name in _ERRORS:
        axes.set_ylim(bottom=0)
    axes.set_xscale("log")
    axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS], fontsize=8)
    axes.set_xticks([], minor=True)
    _limit(axes, rows)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title(_MEASURES.get(name, name), fontsize=9)
    axes.set_xlabel("operations, dense / used", fontsize=8)
    axes.grid(alpha=0.25)


def _limit(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """The same span of operations in every panel."""
    ratios = [row["operations_ratio"] for row in rows if row["operations_ratio"] is not None]
    if ratios:
        axes.set_xlim(0.95 * min(1, *ratios), 1.1 * max(2, *ratios))


def _legend(figure: Any, panels: Sequence[Any]) -> None:
    """One for all panels, below them."""
    found = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        look = {"loc": "outside lower center", "ncols": 4, "fontsize": 8, "frameon": False}
        figure.legend(list(found.values()), list(found), **look)
