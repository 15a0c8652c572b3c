"""Write the tables of docs/speed.md from benchmarks/results/bench.

    python benchmarks/tables.py [--check]

replaces what stands between `<!-- table: NAME -->` and `<!-- end -->` there by a table made
from the results of `eventful bench`; with --check it changes nothing and fails where they differ.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filling import Lines, filled

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "bench"
FILES = (ROOT / "docs" / "speed.md",)


def cases(suite: str) -> dict[str, Any]:
    """The cases of a suite that were measured, by name, numbers in it ascending."""
    found = json.loads((RESULTS / f"{suite}.json").read_text())["cases"]

    def numbers(name: str) -> list[str | int]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    return {
        name: found[name] for name in sorted(found, key=numbers) if found[name]["status"] == "ok"
    }


def row_of(case: dict[str, Any], contender: str) -> dict[str, Any] | None:
    """The row of a contender."""
    return next((row for row in case["rows"] if row["contender"] == contender), None)


def against_best(row: dict[str, Any] | None) -> str:
    """A speed-up over the fastest dense form."""
    return "-" if row is None else f"{row['speedup'][row['against']]:.2f}x"


def error(row: dict[str, Any] | None) -> str:
    """A relative error."""
    return "-" if row is None or row["attention_error"] is None else f"{row['attention_error']:.0e}"


def attention() -> Lines:
    """Attention alone."""
    lines = [
        [
            "attention",
            "operations",
            "eager",
            "compiled",
            "linears only",
            "`cached`",
            "rows sent back, mean (max)",
            "error",
        ]
    ]
    for name, case in cases("attention").items():
        eager, fast = row_of(case, "incremental"), row_of(case, "incremental compiled")
        assert eager is not None
        sent = eager["figures"]
        mean, largest = sent.get("guard_rows_mean", 0), sent.get("guard_rows_max", 0)
        lines.append(
            [
                name.removeprefix("attention/"),
                f"{eager['operation_ratio']:.2f}x",
                against_best(eager),
                against_best(fast),
                against_best(row_of(case, "linears only")),
                against_best(row_of(case, "cached")),
                f"{mean:.0f} ({largest:.0f})",
                error(eager),
            ]
        )
    return lines


def backbone() -> Lines:
    """Whole backbones."""
    lines = [
        [
            "backbone",
            "operations",
            "eager",
            "compiled",
            "linears only",
            "fastest dense",
            "outside products",
            "attention error",
        ]
    ]
    for name, case in cases("backbone").items():
        fast = row_of(case, "eventful compiled")
        assert fast is not None
        share = case["figures"].get("share_outside")
        lines.append(
            [
                name.removeprefix("backbone/"),
                f"{fast['operation_ratio']:.2f}x",
                against_best(row_of(case, "eventful eager")),
                against_best(fast),
                against_best(row_of(case, "linears only compiled")),
                case["fastest_dense"],
                "-" if share is None else f"{100 * share:.0f} %",
                error(fast),
            ]
        )
    return lines


def others(suite: str) -> Lines:
    """Blocks, first frames, or several streams: every contender against the fastest dense one."""
    lines = [["case", "contender", "time, dense / this", "attention error"]]
    for name, case in cases(suite).items():
        for row in case["rows"]:
            contender = row["contender"]
            if not contender.startswith("dense"):
                lines.append([name.partition("/")[2], contender, against_best(row), error(row)])
    return lines


def memory() -> Lines:
    """Peak memory of a process, and state."""
    lines = [["case", "contender", "peak", "state", "state values a block, in N D"]]
    for name, case in cases("memory").items():
        for row in case["rows"]:
            figures = row["figures"]
            peak, state = figures["peak_bytes"], figures.get("state_bytes")
            values = figures.get("state_values_per_block")
            lines.append(
                [
                    name.partition("/")[2],
                    row["contender"],
                    f"{peak / 1e9:.2f} GB" if peak else "out of memory",
                    "-" if not state else f"{state / 1e9:.2f} GB",
                    "-" if not values else f"{values:.2f}",
                ]
            )
    return lines


TABLES = {
    "attention": attention,
    "backbone": backbone,
    "block": lambda: others("block"),
    "first-frame": lambda: others("first-frame"),
    "streams": lambda: others("streams"),
    "memory": memory,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill the tables in, or check them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args(arguments).check
    tables = {name: table() for name, table in TABLES.items()}
    for path in FILES:
        text = path.read_text()
        new = filled(text, "table", tables)
        if not check:
            path.write_text(new)
        elif new != text:
            sys.exit(f"{path.name} differs from the results; run benchmarks/tables.py")


if __name__ == "__main__":
    main()
