"""What the runs of live_rtsp.py come to, and their tables in docs/live.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Any

import numpy as np
from filling import Lines

Found = Mapping[str, Any]
RATES = 5, 10, 25  # frames a second of cameras in the table of sizes


def mean_of(rows: Sequence[Any]) -> Any:
    """The mean of results of the same form, number by number; None where one of them is."""
    first = rows[0]
    if isinstance(first, dict):
        names = [name for name in first if all(name in row for row in rows)]
        return {name: mean_of([row[name] for row in rows]) for name in names}
    if isinstance(first, bool | str):
        return first
    if isinstance(first, list):
        return [mean_of(each) for each in zip(*rows, strict=False)]
    return None if any(row is None for row in rows) else fmean(rows)


def by_policy(runs: Sequence[Found]) -> dict[str, Any]:
    """Means over turns."""
    names = dict.fromkeys(run["policy"] for run in runs)
    return {name: mean_of([run for run in runs if run["policy"] == name]) for name in names}


def rate_at(rows: Sequence[Found], level: float, name: str) -> tuple[float, bool] | None:
    """The most results a second of a line of settings on which an error is at most so large.

    Args:
        rows: In the order of their settings, the cheapest last; straight lines are drawn between.
        level: The error.
        name: Which one.

    Returns:
        The rate, and whether the cheapest setting has it, so that a still cheaper one might have a
        larger; None if the error is larger everywhere.
    """
    reached = [row["results_per_second"] for row in rows if row[name] <= level]
    for one, two in pairwise(rows):
        if (one[name] <= level) != (two[name] <= level):
            part = (level - one[name]) / (two[name] - one[name])
            rates = one["results_per_second"], two["results_per_second"]
            reached.append(rates[0] + part * (rates[1] - rates[0]))
    if not reached:
        return None
    return max(reached), max(reached) == rows[-1]["results_per_second"]


def stale(curve: Sequence[float], results: float, cameras: int, rate: float) -> float:
    """Error of what cameras show that are dense in turn, so many results a second in all.

    A camera's newest frame is taken, is up to a frame's time old then, is shown when it has been
    computed, and stays until the next of that camera has been.

    Args:
        curve: Error of dense tokens that are 0, 1, 2, ... frames old.
        results: Of all cameras, a second.
        cameras: How many.
        rate: Frames a second of each.
    """
    grid = (np.arange(50) + 0.5) / 50
    seconds = (grid[:, None] / rate) + 1 / results + grid[None] * cameras / results
    return float(np.interp(np.floor(seconds * rate), np.arange(len(curve)), curve).mean())


def dense_rate(curve: Sequence[float], error: float, cameras: int, rate: float) -> float | None:
    """Results a second from which on dense in turn shows no larger an error.

    Clips come back to where they were, so that very old frames may be right again: these rates are
    not meant. None if four results a frame are too few.
    """
    found = None
    for results in np.geomspace(4 * cameras * rate, 0.5, 400):
        if stale(curve, results, cameras, rate) > error:
            break
        found = float(results)
    return found


def evenly(rows: Sequence[Found], busy: float, name: str) -> float:
    """The least error of even settings at a share of the time that is busy, at most.

    Between settings it is interpolated over the logarithm of that share.
    """
    best: list[tuple[float, float]] = []
    for row in sorted(rows, key=lambda row: row["busy"]):
        best.append((row["busy"], min([row[name], *(error for _, error in best[-1:])])))
    x, y = zip(*best, strict=True)
    return float(np.interp(np.log(busy), np.log(x), y))


def summary(found: Found) -> dict[str, Any]:
    """What all runs that there are come to."""
    result: dict[str, Any] = {}
    rows = by_policy(found.get("policies", []))
    if "skip:1" in rows and "staleness" in found:
        result["policies"] = _compared(rows, found)
    if found.get("faults"):
        turns = found["faults"]
        result["faults"] = {
            name: {
                "latency_ms": median(turn[name]["latency_ms"]["median"] for turn in turns),
                "p95_ms": median(turn[name]["latency_ms"]["p95"] for turn in turns),
                "results_per_second": median(turn[name]["results_per_second"] for turn in turns),
                "equal": min(turn[name]["equal"] for turn in turns),
                "compared": sum(turn[name]["compared"] for turn in turns),
            }
            for name in ("undisturbed", "killed", "slowed", "resized")
        }
    if found.get("reconnect"):
        each = found["reconnect"]
        result["reconnect"] = {
            "times": len(each),
            "first": max(one["first"] for one in each),
            "last": max(one["last"] for one in each),
            "median_last": median(one["last"] for one in each),
            "dense": sorted({one[key] for one in each for key in ("least_dense", "dense")}),
            "scene_cuts": [one["scene_cuts"] for one in each if "scene_cuts" in one],
        }
    if found.get("sizing"):
        result["sizing"] = [_sized(row, found["cores"]) for row in found["sizing"]]
    return result


def _compared(rows: Mapping[str, Any], found: Found) -> dict[str, Any]:
    """Policies beside dense in turn, and beside cameras that skip or carry evenly."""
    dense, settings = rows["skip:1"], found["settings"]
    even = [row for name, row in rows.items() if name.startswith(("skip", "carry"))]
    shared = sorted((r for n, r in rows.items() if n.startswith("time")), key=_share, reverse=True)
    curves = dict(zip(("error", "moving"), zip(*found["staleness"], strict=True), strict=True))
    place = settings["cameras"], settings["rate"]
    compared = {}
    for name, row in rows.items():
        one: dict[str, Any] = {
            "rate_over_dense": row["results_per_second"] / dense["results_per_second"]
        }
        for key, curve in curves.items():
            needed = dense_rate(curve, row[key], *place)
            one[f"{key}_dense_rate"] = needed
            one[f"{key}_machine"] = needed and needed / dense["results_per_second"]
            if row in shared:
                one[f"{key}_over_even"] = _over(row[key], evenly(even, row["busy"], key))
        compared[name] = one
    at_equal = {}
    for key in curves:
        reached = rate_at(shared, dense[key], key) if shared else None
        rate, most = reached or (None, None)
        ratio = rate and rate / dense["results_per_second"]
        at_equal[key] = {"results_per_second": rate, "over_dense": ratio, "at_the_cheapest": most}
    return {"rows": rows, "compared": compared, "at_equal_error": at_equal}


def _over(value: float, other: float) -> float | None:
    return value / other if other else None


def _share(row: Found) -> float:
    return float(row["policy"].partition(":")[2])


def _sized(row: Found, cores: int) -> dict[str, Any]:
    """Cameras a core, from the time of a result and the processor's time of reading a frame."""
    milliseconds = row["busy_ms"] + row["reading_ms"] / cores
    cameras = {str(rate): 1e3 / (rate * milliseconds * cores) for rate in RATES}
    names = "size", "runtime", "policy", "busy_ms", "reading_ms"
    error = {"error": row["error"]} if "error" in row else {}
    return {name: row[name] for name in names} | {"cameras_per_core": cameras} | error


def tables(found: Found) -> dict[str, Lines]:
    """The tables of docs/live.md."""
    parts = found["summary"]
    made = {"policies": _policies, "faults": _faults, "sizing": _sizing}
    return {name: make(parts[name]) for name, make in made.items() if name in parts}


def _policies(part: Found) -> Lines:
    head = ["policy", "results/s", "against dense", "latency, p95", "error", "on what moves"]
    lines = [[*head, "dense in turn needs", "p95 / median of a round"]]
    for name, row in part["rows"].items():
        one, latency = part["compared"][name], row["latency_ms"]
        lines.append(
            [
                f"`{name}`",
                f"{row['results_per_second']:.0f}",
                f"{one['rate_over_dense']:.1f}x",
                f"{latency['median']:.0f}, {latency['p95']:.0f} ms",
                f"{row['error']:.3f}",
                f"{row['moving']:.3f}",
                "-" if one["error_machine"] is None else f"{one['error_machine']:.1f}x the speed",
                "-" if row["round_flat"] is None else f"{row['round_flat']:.2f}",
            ]
        )
    return lines


def _faults(part: Found) -> Lines:
    lines = [["one camera", "latency of the others", "p95", "their results/s", "equal results"]]
    for name, row in part.items():
        latency = [f"{row[key]:.0f} ms" for key in ("latency_ms", "p95_ms")]
        rate, equal = f"{row['results_per_second']:.1f}", f"{100 * row['equal']:.1f} %"
        lines.append([name, *latency, rate, "-" if name == "undisturbed" else equal])
    return lines


def _sizing(part: Sequence[Found]) -> Lines:
    lines = [["size", "runtime", "policy", "ms a result", "ms to read"]]
    lines[0] += [f"cameras a core at {rate}/s" for rate in RATES]
    for row in part:
        times = [f"{row[key]:.1f}" for key in ("busy_ms", "reading_ms")]
        cameras = [f"{count:.1f}" for count in row["cameras_per_core"].values()]
        lines.append([str(row["size"]), row["runtime"], f"`{row['policy']}`", *times, *cameras])
    return lines
