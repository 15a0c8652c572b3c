"""Accuracy against operations, the paper's points beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_UNITS = {"frame": 1e9, "video": 1e12}
_LABELS = {"frame": "operations a frame (10⁹)", "video": "operations a video (10¹²)"}


def plot(content: dict[str, Any], paths: Sequence[Path]) -> None:
    """Draw a report: ours filled, the paper's hollow, a colour for each line.

    Args:
        content: What `report` returned.
        paths: Files to write, .png or .svg.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional library

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    unit, measure = _UNITS[content["per"]], content["measures"][0]
    colours = _colours(content)
    for label, points in _lines(content["paper"], unit).items():
        _draw(axes, points, f"{label} (paper)", color=colours[label], ls="--", mfc="none")
    ours = [one | {"accuracy": one["scores"][measure]} for one in content["settings"]]
    for label, points in _lines(ours, unit).items():
        _draw(axes, points, label, color=colours[label], ls="-")
    axes.set_xlabel(f"{_LABELS[content['per']]}, first frames included")
    axes.set_ylabel(f"{measure} (%)")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    if axes.lines:
        axes.legend(fontsize=8, loc="lower right")
    figure.suptitle(heading(content), fontsize=10)
    for path in paths:
        figure.savefig(path, dpi=140)


def _colours(content: dict[str, Any]) -> dict[str, str]:
    """A colour for each line, the same for the paper's and ours."""
    labels = dict.fromkeys(one["label"] for one in [*content["paper"], *content["settings"]])
    return {label: f"C{number % 10}" for number, label in enumerate(labels)}


def _lines(entries: Sequence[dict[str, Any]], unit: float) -> dict[str, list[tuple[float, float]]]:
    """Points by line, in the order of their operations; those without a score are left out."""
    found: dict[str, list[tuple[float, float]]] = {}
    for one in entries:
        if one["operations"] is not None and one["accuracy"] is not None:
            point = (one["operations"] / unit, one["accuracy"])
            found.setdefault(one["label"], []).append(point)
    return {label: sorted(points) for label, points in found.items()}


def _draw(axes: Any, points: list[tuple[float, float]], label: str, **look: Any) -> None:
    axes.plot(*zip(*points, strict=True), marker="o", ms=5, lw=1, label=label, **look)


def heading(content: dict[str, Any]) -> str:
    """What stands above the picture of a report: the data, and how much of it was scored.

    Example:
        >>> report = {"title": "DAVIS", "settings": [], "per": "frame", "weights": {"file": "a.pt"}}
        >>> heading(report)
        'DAVIS: 0 frames scored'
    """
    counts = [one["scored"] for one in content["settings"]]
    what = f"{content['title']}: {max(counts, default=0)} {content['per']}s scored"
    random = content["weights"]["file"] is None
    return what + ("; RANDOM WEIGHTS, accuracy means nothing" if random else "")
