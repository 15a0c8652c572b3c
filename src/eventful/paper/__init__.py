"""The tables of the paper, as data, counted anew, and as rows to run.

`entries` and `rows` give a table's rows and how to run them, `count` the operations of a row in
closed form, `recount` all of them beside the paper's.
"""

from eventful.paper.clip import pooled_tokens
from eventful.paper.counts import count, equal_budget, pooled_bounds
from eventful.paper.recount import Recount, recount, summary
from eventful.paper.rows import Row, rows
from eventful.paper.tables import ENTRIES, FURTHER, TABLES, Entry, Variant, entries

__all__ = [
    "ENTRIES",
    "FURTHER",
    "TABLES",
    "Entry",
    "Recount",
    "Row",
    "Variant",
    "count",
    "entries",
    "equal_budget",
    "pooled_bounds",
    "pooled_tokens",
    "recount",
    "rows",
    "summary",
]
