"""The plot of a run: what every frame cost, and how wrong it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eventful.cli.panels import COLOURS
from eventful.cli.session import Row


def plot(clips: Mapping[str, Sequence[Row]], target: float | None, path: Path) -> None:
    """Draw cost and error over the frames, a column for each clip.

    Args:
        clips: The frames of each clip, by its title.
        target: The error that was to be held, if any.
        path: The picture to write.
    """
    figure = Figure(figsize=(1.5 + 6.5 * len(clips), 6.5), layout="constrained")
    axes = figure.subplots(2, len(clips), sharex="col", sharey="row", squeeze=False)
    for column, (title, rows) in enumerate(clips.items()):
        _costs(axes[0, column], rows)
        _errors(axes[1, column], rows, target)
        axes[0, column].set_title(title)
        axes[1, column].set_xlabel("frame")
    axes[0, 0].set_ylabel("operations, % of a dense frame")
    axes[1, 0].set_ylabel("relative error")
    axes[1, 0].set_ylim(bottom=0)
    for row in axes:
        _legend(row)
    figure.savefig(path, dpi=120)


def _legend(axes: Sequence[Axes]) -> None:
    """Name once what any of the axes shows, to the right of the last."""
    named: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    axes[-1].legend(named.values(), named.keys(), frameon=False, **place)


def _costs(axis: Axes, rows: Sequence[Row]) -> None:
    for kind, colour in COLOURS.items():
        chosen = [row for row in rows if row.kind == kind]
        if chosen:
            axis.bar(
                [row.frame for row in chosen],
                [max(0.7, 100 * row.share) for row in chosen],  # to be seen at all
                width=0.9,
                color=[channel / 255 for channel in colour],
                label=kind,
            )
    axis.set_ylim(0, 105)


def _errors(axis: Axes, rows: Sequence[Row], target: float | None) -> None:
    def points(name: str) -> tuple[list[int], list[Any]]:
        known = [(row.frame, value) for row in rows if (value := getattr(row, name)) is not None]
        return [frame for frame, _ in known], [value for _, value in known]

    if target is not None:
        axis.axhline(target, ls="--", color="grey", label=f"target (mean): {target:g}")
    axis.plot(*points("estimated_error"), color="black", lw=1, label="estimated")
    axis.plot(*points("measured_error"), "o", color="tab:purple", label="measured")
    axis.plot(
        *points("replaced_error"),
        "x",
        color="tab:red",
        label="measured: had this\nframe not been dense",
    )
