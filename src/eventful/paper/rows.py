"""How to run each row of the paper's tables: options of conversion, and policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from eventful.paper.tables import VITDET, Entry, Variant, entries
from eventful.policies import KeepAll, Policy, Threshold, TopR


@dataclass(frozen=True)
class Row:
    """A row of a table, ready to run.

    Attributes:
        entry: The row, with the paper's figures.
        policy: For `eventful.convert`; None where the model stays as it is.
        options: Further arguments of `eventful.convert`.

    Example:
        >>> row = rows("C")[1]
        >>> row.policy, row.options
        (TopR(r=2048), {'attention': 'cached', 'half_precision': True})
    """

    entry: Entry
    policy: Policy | None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def converts(self) -> bool:
        """Whether the row is of a converted model."""
        return self.policy is not None


# The paper computes the attention-value product of its own method in half precision.
_FULL: dict[str, Any] = {"attention": "cached", "half_precision": True}
_OPTIONS: dict[Variant, dict[str, Any]] = {
    "dense": {},
    "full": _FULL,
    "threshold": _FULL,
    "token-wise": {"attention": "dense"},
    "stgt": {"attention": "dense", "gate": "stgt"},
    "spatial": {"attention": "dense", "pooling": 2},
    "spatiotemporal": _FULL | {"pooling": 2},
    "incremental": {"attention": "incremental"},
}


def rows(table: str) -> list[Row]:
    """List what reproduces a table, row by row: the paper's own, then incremental attention.

    Args:
        table: "1", "A", "B", "C", "D" or "E".

    Raises:
        ValueError: There is no such table.

    Example:
        >>> [str(row.policy) for row in rows("B")]
        ['None', 'threshold:0.2', 'threshold:1.0', 'threshold:5.0']
    """
    return [Row(entry, _policy(entry), _options(entry)) for entry in entries(table)]


def _policy(entry: Entry) -> Policy | None:
    """The policy of a row; pooling alone takes a conversion that keeps every token."""
    if entry.threshold is not None:
        return Threshold(entry.threshold)
    if entry.r is not None:
        return TopR(entry.r)
    return KeepAll() if entry.variant == "spatial" else None


def _options(entry: Entry) -> dict[str, Any]:
    """The options of a row; ViViT's class token competes with the others in the paper."""
    options = dict(_OPTIONS[entry.variant])
    if entry.model != VITDET and entry.r is not None:
        options["prefix"] = "gated"
    return options
