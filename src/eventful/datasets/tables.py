"""Annotation tables: CSV files, read whole or refused with the reason."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path


def read_table(path: Path, columns: Sequence[str], page: str) -> list[dict[str, str]]:
    """The rows of a CSV file with a head line; fields that a row lacks are empty.

    Args:
        path: The file.
        columns: Columns that it must have.
        page: Where it can be had.

    Raises:
        ValueError: If it is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV file: {error}. Get it from {page}") from error
    if missing:
        raise ValueError(
            f"expected a table with the columns {', '.join(columns)}; {path} lacks "
            f"{', '.join(missing)}. Get it from {page}"
        )
    return rows


def class_number(text: str, name: str, count: int) -> int:
    """The class that `text` states.

    Raises:
        ValueError: If it is no number from 0 to `count` - 1.
    """
    if not text.strip().isdecimal() or int(text) >= count:
        raise ValueError(f"its {name} {text!r} is no number from 0 to {count - 1}")
    return int(text)


def seconds(text: str) -> Fraction:
    """The time that a text like 00:01:02.34 states, in seconds.

    Raises:
        ValueError: If it states none.

    Example:
        >>> seconds("00:01:02.5")
        Fraction(125, 2)
    """
    try:
        hours, minutes, rest = text.strip().split(":")
        time = 3600 * int(hours) + 60 * int(minutes) + Fraction(rest)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{text!r} is no time like 00:01:02.34") from error
    if time < 0:
        raise ValueError(f"{text!r} lies before the start")
    return time
