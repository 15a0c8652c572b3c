"""How commands print: tables for people, JSON for machines, one line for a user's mistake."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from eventful.cli.libraries import missing


def show(result: dict[str, Any], as_json: bool, table: Any) -> None:
    """Print a result as JSON, or as what `table` makes of it."""
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        Console().print(table(result))


@contextmanager
def errors() -> Iterator[None]:
    """Turn a user's mistake into one line; anything else is ours and keeps its traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        text = missing(error) if isinstance(error, ImportError) else str(error)
        sys.stderr.write(f"error: {text}\n")
        raise typer.Exit(2) from error
