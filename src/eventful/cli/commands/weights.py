"""`eventful weights`: convert a published checkpoint, and say what became of each name in it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from eventful.cli.options import Json
from eventful.cli.output import errors, show
from eventful.models.weights import KINDS, convert_checkpoint

_NAMED = 3  # names of those left out for one reason that the table shows


def convert(kind: str, source: Path, target: Path) -> dict[str, Any]:
    """Convert a checkpoint into a safetensors file.

    Args:
        kind: A key of `eventful.models.weights.KINDS`.
        source: The checkpoint.
        target: The file to write.

    Returns:
        What was written and what was left out, for JSON.

    Raises:
        FileNotFoundError: There is no such checkpoint, or no such folder to write to.
        ValueError: The checkpoint is damaged, holds code, or does not fit.

    Example:
        >>> convert("vivit", Path("model.pyth"), Path("model.safetensors"))
        Traceback (most recent call last):
            ...
        ValueError: expected a kind out of ..., got 'vivit'...
    """
    result = convert_checkpoint(kind, source, target)
    return {
        "kind": kind,
        "origin": KINDS[kind].source,
        "source": str(result.source),
        "source_sha256": result.source_sha256,
        "target": str(result.target),
        "bytes": result.target.stat().st_size,
        "parameters": result.parameters,
        "prefix": result.prefix,
        "used": result.used,
        "dropped": result.dropped,
    }


def table(result: dict[str, Any]) -> Table:
    """Show a conversion as a table; names left out are gathered by their reason.

    Example:
        >>> result = {
        ...     "kind": "vivit_b_epic", "target": "out.safetensors", "bytes": 10, "parameters": 2,
        ...     "source_sha256": "e3b0", "prefix": "", "used": {"a": "b"}, "dropped": {"c": "old"},
        ... }
        >>> table(result).row_count
        5
    """
    view = Table(title=escape(f"{result['target']} for {result['kind']}"), show_header=False)
    view.add_row("written", f"{result['parameters']:,} parameters, {result['bytes']:,} bytes")
    view.add_row("made from sha256", result["source_sha256"])
    view.add_row("names used", f"{len(result['used'])}")
    if result["prefix"]:
        view.add_row("prefix taken off", escape(result["prefix"]))
    view.add_row("names left out", f"{len(result['dropped'])}")
    reasons = defaultdict(list)
    for name, reason in result["dropped"].items():
        reasons[reason].append(name)
    for reason, names in reasons.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        view.add_row(f"  {reason}", escape(", ".join(names[:_NAMED])) + more)
    return view


def command(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    file: Annotated[Path, typer.Argument(help="The checkpoint as published.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    json_output: Json = False,
) -> None:
    """Convert a published checkpoint into safetensors; no code in it runs.

    Prints which names were used and which were left out, and why.
    """
    with errors():
        result = convert(kind, file, out)
    show(result, json_output, table)
