"""Tables in Markdown, put between marks of a page, so that a page holds what a result holds."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

Lines = list[list[str]]


def markdown(lines: Lines) -> str:
    """A table; the first line is its head.

    Example:
        >>> markdown([["a", "b"], ["1", "2"]]).splitlines()
        ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])


def filled(text: str, kind: str, tables: Mapping[str, Lines]) -> str:
    """A text with what stands between `<!-- KIND: NAME -->` and `<!-- end -->` made anew."""

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{markdown(tables[match[2]])}\n<!-- end -->"

    return re.sub(rf"(<!-- {kind}: ([a-z-]+) -->)\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def fill(page: Path, kind: str, tables: Mapping[str, Lines]) -> None:
    """Write a page's tables of a kind anew."""
    page.write_text(filled(page.read_text(), kind, tables))


def parser(text: str | None) -> argparse.ArgumentParser:
    """A parser that shows a script's docstring as it stands, with the option `--draw`."""
    form = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(description=text, formatter_class=form)
    made.add_argument("--draw", action="store_true", help="only draw and fill the tables again")
    return made
