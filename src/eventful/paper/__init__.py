"""The tables of the paper, as data and as rows to run."""

from eventful.paper.clip import pooled_tokens
from eventful.paper.rows import Row, rows
from eventful.paper.tables import ENTRIES, FURTHER, TABLES, Entry, Variant, entries

__all__ = [
    "ENTRIES",
    "FURTHER",
    "TABLES",
    "Entry",
    "Row",
    "Variant",
    "entries",
    "pooled_tokens",
    "rows",
]
