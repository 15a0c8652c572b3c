"""Rows of `skip` or `carry` that differ in their phase, taken together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def pooled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one policy with different phases as one: means; the worst of the worst.

    Operations are averaged, not their ratios. "range" has the least and the most of each quality.

    Example:
        >>> rows = [
        ...     {"variant": "skip", "policy": f"skip:2{phase}", "operations_ratio": ratio,
        ...      "relative_error": error, "relative_error_rms": error, "relative_error_max": error}
        ...     for phase, ratio, error in (("", 2.0, 3.0), ("+1", 4.0, 4.0))]
        >>> (one,) = pooled(rows)
        >>> one["policy"], round(one["operations_ratio"], 3), one["relative_error"]
        ('skip:2', 2.667, 3.5)
        >>> round(one["relative_error_rms"], 4), one["relative_error_max"], one["phases"]
        (3.5355, 4.0, 2)
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["variant"], _without_phase(row)), []).append(row)
    return [_merged(ones) | {"policy": text} for (_, text), ones in groups.items()]


def _without_phase(row: Mapping[str, Any]) -> str:
    phased = row["variant"].partition(",")[0] in ("skip", "carry")
    return row["policy"].partition("+")[0] if phased else row["policy"]


def _merged(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = rows[0]
    if len(rows) == 1:
        return {**first, "phases": 1}
    found = {key: _mean_of(key, [row[key] for row in rows]) for key in first}
    return found | {"phases": len(rows), "range": _range(rows)}


def _range(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The least and the most of each quality that all rows have."""
    each = {name: [row["quality"][name] for row in rows] for name in rows[0].get("quality", ())}
    return {name: [min(ones), max(ones)] for name, ones in each.items() if None not in ones}


def _mean_of(key: str, values: Sequence[Any]) -> Any:
    """What stands for several values of a column."""
    first = values[0]
    if isinstance(first, Mapping):
        shared = [name for name in first if all(name in one for one in values)]
        return {name: _mean_of(name, [one[name] for one in values]) for name in shared}
    if isinstance(first, list):
        return [_mean_of(key, ones) for ones in zip(*values, strict=True)]
    known = [one for one in values if one is not None]
    if isinstance(first, str) or not known:
        return first
    return _mean(key, known)


def _mean(key: str, values: Sequence[float]) -> float:
    if key == "operations_ratio":
        return len(values) / sum(1 / one for one in values)
    if key.endswith("_max"):
        return max(values)
    if key.endswith("_rms"):
        return math.sqrt(sum(one**2 for one in values) / len(values))
    return sum(values) / len(values)
