"""The cells of the study, and what is made of them: the figure, and the tables of docs/study.md.

The cost at which the error is TARGET, and the error at a cost of COST, are linear between the
fractions that were measured; dense is the last point, at cost 1 and error 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan, nan
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import filling
import numpy as np

RESULT = Path(__file__).parent / "results" / "study.json"
PAGE = Path(__file__).parents[1] / "docs" / "study.md"
FIGURE = PAGE.parent / "images" / "study.svg"
STEPS = (1, 2, 4, 8)
SIZES = (224, 294, 392, 518)
CRFS = (None, 18, 28, 38, 45)
TARGET = 0.1
COST = 0.2
AXIS_CLIPS = ("breakdance", "cows", "parkour", "highway", "vtest")
OTHERS = (
    "blackswan",
    "bmx-trees",
    "camel",
    "car-shadow",
    "dance-twirl",
    "drift-straight",
    "horsejump-high",
    "soapbox",
)
Point = tuple[float, float]


class Cell(NamedTuple):
    """One clip under one condition."""

    clip: str
    step: int = 1
    size: int = SIZES[0]
    crf: int | None = None

    def __str__(self) -> str:
        crf = "as delivered" if self.crf is None else f"crf {self.crf}"
        return f"{self.clip}, every {self.step}, {self.size}, {crf}"


def axes() -> dict[str, dict[str, list[Cell]]]:
    """For each axis, the cells of each place on it, a cell for each clip."""
    return {
        "rate": {str(k): [Cell(clip, step=k) for clip in AXIS_CLIPS] for k in STEPS},
        "resolution": {str(s): [Cell(clip, size=s) for clip in AXIS_CLIPS] for s in SIZES},
        "compression": {
            "as delivered" if crf is None else str(crf): [Cell(c, crf=crf) for c in AXIS_CLIPS]
            for crf in CRFS
        },
        "motion": {clip: [Cell(clip)] for clip in (*AXIS_CLIPS, *OTHERS)},
    }


def cells() -> list[Cell]:
    """All cells, the dearest last."""
    every = [cell for places in axes().values() for row in places.values() for cell in row]
    return sorted(dict.fromkeys(every), key=lambda cell: (cell.size, cell.clip))


def cost_for(points: Sequence[Point], error: float) -> float:
    """The least cost from which on the error stays at or below a value, linear between points.

    Below the first point nothing is known, and its cost is returned.
    """
    above = (1.0, 0.0)
    for point in sorted(points, reverse=True):
        if point[1] > error:
            share = (error - above[1]) / (point[1] - above[1])
            return above[0] + share * (point[0] - above[0])
        above = point
    return above[0]


def error_at(points: Sequence[Point], cost: float) -> float:
    """The error at a cost, linear between points."""
    costs, errors = zip(*sorted(points), (1.0, 0.0), strict=True)
    return float(np.interp(cost, costs, errors))


class Quantity(NamedTuple):
    """A column of the tables, and a line of the figure."""

    head: str
    label: str
    colour: str
    style: str = "-"


QUANTITIES = {
    "changed": Quantity("changed", "patches that changed by over 20 %", "tab:blue"),
    "held": Quantity("held", "error if the last output is held one step", "tab:orange"),
    "input cost": Quantity(
        "cost for 0.1, input", "operations for an error of 0.1, input", "tab:green"
    ),
    "paper cost": Quantity("paper", "the same, paper", "tab:green", "--"),
    "input error": Quantity(
        "error at 0.2, input", "error at 0.2 of the operations, input", "tab:red"
    ),
    "paper error": Quantity("paper", "the same, paper", "tab:red", "--"),
}
COMPRESSED = "error of compression itself"


def figures(found: dict[str, Any]) -> dict[str, float]:
    """The quantities of a cell; those of a gating that it was not run with are left out."""
    values = {"changed": found["changed"], "held": found["held"]}
    for name in found.keys() & {"input", "paper"}:
        points = list(zip(found[name]["cost"], found[name]["error"], strict=True))
        values[f"{name} cost"] = cost_for(points, TARGET)
        values[f"{name} error"] = error_at(points, COST)
    return values


Places = dict[str, list[dict[str, float]]]


def summary(content: dict[str, Any]) -> dict[str, Places]:
    """For each axis and place, the quantities of every clip; clips in the order of their speed."""
    found = {
        axis: {
            place: [figures(content["cells"][str(cell)]) for cell in row]
            for place, row in places.items()
        }
        for axis, places in axes().items()
    }
    speed = content["speed"]
    found["motion"] = {clip: found["motion"][clip] for clip in sorted(speed, key=speed.__getitem__)}
    return found


def tables(content: dict[str, Any]) -> dict[str, filling.Lines]:
    """The tables of the page: for each axis, means over the clips, and the clips one by one."""
    found = summary(content)
    heads = {"rate": "every", "resolution": "long side", "compression": "CRF", "motion": "clip"}
    made = {axis: _table(head, found[axis]) for axis, head in heads.items()}
    made["motion"][0].insert(1, "motion, %")
    for line in made["motion"][1:]:
        line.insert(1, f"{content['speed'][line[0]]:.2f}")
    made["compression"][0].insert(1, COMPRESSED)
    for line, row in zip(made["compression"][1:], axes()["compression"].values(), strict=True):
        own = fmean(content["cells"][str(cell)].get("from_delivered", 0) for cell in row)
        line.insert(1, f"{own:.2f}")
    made |= {f"{axis}-clips": _clips(found[axis]) for axis in ("rate", "resolution", "compression")}
    return made


def _clips(places: Places) -> filling.Lines:
    """The cost for TARGET of one gate at the input, for each clip."""
    costs = {place: [f"{clip['input cost']:.2f}" for clip in row] for place, row in places.items()}
    by_clip = zip(AXIS_CLIPS, *costs.values(), strict=True)
    return [["clip", *costs], *map(list, by_clip)]


def mean(clips: list[dict[str, float]], name: str) -> float:
    """The mean of a quantity over clips; not a number where it was not measured."""
    return fmean(clip.get(name, nan) for clip in clips)


def _table(head: str, places: Places) -> filling.Lines:
    lines = [[head, *(quantity.head for quantity in QUANTITIES.values())]]
    for place, clips in places.items():
        means = (mean(clips, name) for name in QUANTITIES)
        lines.append([place, *("-" if isnan(one) else f"{one:.2f}" for one in means)])
    return lines


def draw(content: dict[str, Any], path: Path = FIGURE) -> None:
    """Draw the figure."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional library

    found = summary(content)
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    labels = {
        "rate": "frames processed: every k-th",
        "resolution": "long side of the frames (pixels)",
        "compression": "x264 quality (CRF; higher is coarser)",
    }
    *panels, last = figure.subplots(2, 2, sharey=True).flatten()
    for panel, (axis, label) in zip(panels, labels.items(), strict=True):
        _lines(panel, found[axis])
        panel.set_xlabel(f"{label}; small marks are single clips")
    _scatter(last, [content["speed"][clip] for clip in found["motion"]], found["motion"].values())
    last.set_xlabel("camera motion (% of the long side a frame); a column is a clip")
    for panel in (*panels, last):
        panel.set_ylabel("share, or relative error")
        panel.set_ylim(0, 1.03)
        panel.grid(alpha=0.25)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=9)
    figure.savefig(path, dpi=90)


def _lines(panel: Any, places: Places) -> None:
    """Draw the mean over the clips as a line, and every clip as a small mark."""
    for number, (name, look) in enumerate(QUANTITIES.items()):
        mark, fill = (".", look.colour) if look.style == "-" else ("x", "white")
        for x, clips in enumerate(places.values()):
            values = [clip.get(name, nan) for clip in clips]
            shifted = [x + 0.05 * (number - 2.5)] * len(values)
            panel.plot(shifted, values, mark, color=look.colour, ms=4, alpha=0.4)
        means = [mean(clips, name) for clips in places.values()]
        style = {"ls": look.style, "color": look.colour, "mfc": fill}
        panel.plot(range(len(means)), means, marker="o", ms=5, label=look.label, **style)
    panel.set_xticks(range(len(places)), list(places))


def _scatter(panel: Any, speeds: list[float], clips: Iterable[list[dict[str, float]]]) -> None:
    """Draw every clip where its motion is."""
    for name, look in QUANTITIES.items():
        fill = look.colour if look.style == "-" else "none"
        values = [clip[name] for (clip,) in clips]
        panel.plot(speeds, values, "o", color=look.colour, mfc=fill, ms=5, alpha=0.8)
    panel.set_xscale("log")


def write(content: dict[str, Any]) -> None:
    """Draw the figure and fill the tables in."""
    draw(content)
    filling.fill(PAGE, "study", tables(content))
