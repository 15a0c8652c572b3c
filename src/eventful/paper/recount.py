"""Every entry of the paper's tables beside this library's count of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from eventful.paper.clip import pooled_tokens
from eventful.paper.counts import count, pooled_bounds
from eventful.paper.tables import ENTRIES, FURTHER, Entry

AGREES = 0.003  # relative


@dataclass(frozen=True)
class Recount:
    """An entry and what is computed for it.

    Attributes:
        entry: The row of the paper.
        computed: Our count in the entry's unit; None where it cannot be known.
        bounds: The least and the most that it could be, where the count depends on which tokens
            change and not only on their number.
    """

    entry: Entry
    computed: float | None
    bounds: tuple[float, float] | None = None

    @property
    def deviation(self) -> float | None:
        """(computed - paper) / paper; None where one of the two is missing.

        Example:
            >>> from eventful.paper.tables import ENTRIES
            >>> round(Recount(ENTRIES[0], 467.4 * 1.01).deviation, 4)
            0.01
        """
        if self.computed is None or self.entry.operations is None:
            return None
        return self.computed / self.entry.operations - 1

    def as_dict(self) -> dict[str, Any]:
        """The entry as `eventful paper ops --json` has it."""
        entry = self.entry
        return {
            "table": entry.table,
            "model": entry.model,
            "size": entry.size,
            "variant": entry.label,
            "r": entry.r,
            "paper": entry.operations,
            "computed": self.computed,
            "data_dependent": entry.data_dependent,
        }


def recount(entries: Iterable[Entry] = (*ENTRIES, *FURTHER)) -> list[Recount]:
    """Count entries of the tables: by default all, and the further rows.

    Raises:
        ModuleNotFoundError: A package is missing that brings the models or the clip.

    Example:
        >>> from eventful.paper.tables import entries
        >>> [(one.entry.r, one.entry.operations, round(one.computed, 3))
        ...  for one in recount(entries("A"))]
        [(None, 3.36, 3.36), (96, 1.814, 1.814), (48, 1.016, 1.016), (24, 0.618, 0.618)]
    """
    return [_recount(entry) for entry in entries]


def _recount(entry: Entry) -> Recount:
    if entry.variant != "spatiotemporal":
        return Recount(entry, None if entry.variant == "threshold" else count(entry))
    assert entry.r is not None
    budgets = tuple(
        other.r for other in ENTRIES if other.table == entry.table and other.r is not None
    )
    low, high = (count(entry, pooled) for pooled in pooled_bounds(entry))
    pooled = round(pooled_tokens(entry.size, budgets)[entry.r])
    return Recount(entry, count(entry, pooled), (low, high))


def summary(recounts: Iterable[Recount]) -> dict[str, Any]:
    """Say how many entries agree, and how far off the worst is.

    Returns:
        "entries": all rows; "compared": those of which the paper's figure does not depend on data;
        "agree": how many of these are within 0.3 %; "largest_deviation": of these, relative; and
        "where" that is.

    Example:
        >>> from eventful.paper.tables import ENTRIES
        >>> summary([Recount(ENTRIES[0], 467.44)])["agree"]
        1
    """
    found = list(recounts)
    deviations = {
        recount.entry: abs(recount.deviation)
        for recount in found
        if recount.deviation is not None and not recount.entry.data_dependent
    }
    worst = max(deviations, key=lambda entry: deviations[entry])
    return {
        "entries": len(found),
        "compared": len(deviations),
        "agree": sum(deviation <= AGREES for deviation in deviations.values()),
        "largest_deviation": deviations[worst],
        "where": f"table {worst.table}, {worst.size}, {worst.label}, r = {worst.r}",
    }
