"""How commands print: tables for people, JSON for machines, one line for a user's mistake."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eventful.cli.libraries import missing


def show(result: dict[str, Any], as_json: bool, table: Any) -> None:
    """Print a result as JSON, or as what `table` makes of it."""
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        Console().print(table(result))


def progress_bar(console: Console) -> Progress:
    """How far a long job is; nothing where nobody looks at a terminal."""
    return Progress(
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.description}", markup=False),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def errors() -> Iterator[None]:
    """Turn a user's mistake into one line; anything else is ours and keeps its traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        text = missing(error) if isinstance(error, ImportError) else str(error)
        sys.stderr.write(f"error: {text}\n")
        raise typer.Exit(2) from error


def check_folder(path: Path) -> None:
    """See that files can be written to a folder that is there or is still to be made.

    Raises:
        OSError: They cannot; the message says why.
    """
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise type(error)(
            f"--out needs a folder that can be written to; {there} is none ({error.strerror}), "
            f"name another"
        ) from error


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a name to write to; the file gets its own name once it is done, if there is one.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with written_whole(Path(folder, "a.txt")) as part:
        ...         _ = part.write_text("all of it")
        ...     os.listdir(folder)
        ['a.txt']
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        if part.exists():
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
