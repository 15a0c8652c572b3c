"""A suite as a picture: what was gained in time against what was saved in operations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

_MARKS = "osD^vPX*"


def plot(content: dict[str, Any], out: Path) -> list[Path]:
    """Draw a suite's results as OUT/<suite>.png and .svg.

    Args:
        content: A suite's file.
        out: Folder to write to.

    Returns:
        The files; none if there is nothing to draw.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional library

    cases = {name: case for name, case in content["cases"].items() if case["status"] == "ok"}
    if not cases:
        return []
    timed = content["suite"] != "memory"
    figure = Figure(figsize=(9, 6.5) if timed else (9, 1.5 + len(cases)), layout="constrained")
    (_draw_times if timed else _draw_memory)(figure.subplots(), cases)
    figure.suptitle(
        f"{content['suite']}: {content['machine']['processor']}, {content['threads']} threads, "
        f"{content['device']}, {content['dtype']}",
        fontsize=10,
    )
    paths = [out / f"{content['suite']}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=140)
    return paths


def _draw_times(axes: Any, cases: dict[str, Any]) -> None:
    """Scatter speed-up over operations ratio, a mark for each contender, beside the ideal line."""
    points: dict[str, list[tuple[float, float]]] = {}
    for case in cases.values():
        for row in case["rows"]:
            if not row["contender"].startswith("dense"):
                point = row["operation_ratio"], row["speedup"][row["against"]]
                points.setdefault(row["contender"], []).append(point)
    for mark, (contender, found) in zip(_MARKS, points.items(), strict=False):
        axes.plot(*zip(*found, strict=True), mark, ms=5, alpha=0.75, label=contender)
    ends = _range(ratio for found in points.values() for ratio, _ in found)
    axes.plot(ends, ends, "-", color="black", lw=1, label="ideal: time follows operations")
    axes.axhline(1, color="grey", lw=0.8, ls="--", label="as fast as dense")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set_xlabel("dense operations / operations used")
    axes.set_ylabel("dense time / time (median of rounds)")
    axes.grid(which="both", alpha=0.25)
    axes.legend(fontsize=8, loc="best")


def _range(ratios: Iterable[float]) -> tuple[float, float]:
    """Ends of the ideal line: from 1 to the largest ratio, with some room."""
    values = [1.0, *ratios]
    return min(values) / 1.1, max(values) * 1.1


def _draw_memory(axes: Any, cases: dict[str, Any]) -> None:
    """Bars of peak memory, the contenders of a case together."""
    contenders = [row["contender"] for row in next(iter(cases.values()))["rows"]]
    height = 0.8 / len(contenders)
    for i, contender in enumerate(contenders):
        found = [case["rows"][i]["figures"]["peak_bytes"] for case in cases.values()]
        peaks = [(peak or 0) / 2**30 for peak in found]  # no bar where memory ran out
        places = [place + i * height for place in range(len(cases))]
        axes.barh(places, peaks, height, label=contender)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(cases))], list(cases))
    axes.invert_yaxis()
    axes.set_xlabel("peak memory of the process (GiB)")
    axes.grid(axis="x", alpha=0.25)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
