"""`eventful paper`: the paper's tables, counted and run again."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from eventful.paper import ENTRIES, FURTHER, Recount, equal_budget, recount, summary

_NOTES = (
    "Tables 1, B, C, E: ViTDet-B on ImageNet VID, 10⁹ operations a frame, 0.38 % of them first "
    "frames, mAP50. D: ViViT-B on EPIC-Kitchens, A: on Kinetics, 10¹² operations a video, top-1.",
    "spatiotemporal: the count depends on where updated tokens lie. Found on the demo clip, with "
    "changes of pixels for the gates' errors; the range is the least and the most that it can be.",
    "threshold: how many tokens pass depends on the video and on VID's weights, which are not "
    "here, so nothing is computed; the range says at which r `full` costs as much.",
    "incremental: has the outputs, and so the accuracy, of token-wise. Counted as if every window "
    "held an updated token and the guard sent no row back.",
)


def ops() -> dict[str, Any]:
    """Count every entry of the tables; see `eventful paper ops --help`.

    Returns:
        "entries", "bounds" of the entries that depend on data, and "summary".
    """
    found = recount()
    return {
        "entries": [one.as_dict() for one in found],
        "bounds": [
            {"table": one.entry.table, "r": one.entry.r, "low": low, "high": high}
            for one in found
            if one.bounds is not None
            for low, high in [one.bounds]
        ],
        "summary": summary(found),
    }


def ops_table(report: dict[str, Any]) -> Any:
    """The report for people."""
    table = Table(title="Operations in the paper's tables", box=box.SIMPLE_HEAD, padding=0)
    for column in ("table", "variant"):
        table.add_column(column)
    for column in ("size", "r", "paper", "here", "off", "accuracy", "range"):
        table.add_column(column, justify="right")
    bounds = {(one["table"], one["r"]): one for one in report["bounds"]}
    lines = zip((*ENTRIES, *FURTHER), report["entries"], strict=True)
    for _, group in groupby(lines, key=lambda pair: (pair[0].table, pair[0].size)):
        table.add_section()
        for entry, line in group:
            table.add_row(*_cells(Recount(entry, line["computed"]), bounds))
    return Group(table, *_NOTES, _sentence(report["summary"]))


def _cells(one: Recount, bounds: dict[tuple[str, int], dict[str, float]]) -> list[str]:
    entry, deviation = one.entry, one.deviation
    range_ = "" if entry.threshold is None else f"as r = {equal_budget(entry):.0f}"
    if entry.variant == "spatiotemporal" and entry.r is not None:
        ends = bounds[entry.table, entry.r]
        range_ = f"{ends['low']:.1f}-{ends['high']:.1f}"
    digits = 2 if entry.unit == 1e9 else 3
    return [
        entry.table,
        entry.label,
        str(entry.size),
        "" if entry.r is None else str(entry.r),
        "" if entry.operations is None else str(entry.operations),
        "" if one.computed is None else f"{one.computed:.{digits}f}",
        "" if deviation is None else f"{deviation:+.2%}",
        f"{entry.accuracy:.2f} %",
        range_,
    ]


def _sentence(found: dict[str, Any]) -> str:
    return (
        f"{found['entries']} entries; {found['compared']} of the paper's do not depend on data, "
        f"{found['agree']} of these agree within 0.3 %; the largest deviation is "
        f"{found['largest_deviation']:.3%} ({found['where']})"
    )
