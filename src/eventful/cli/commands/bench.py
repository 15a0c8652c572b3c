"""`eventful bench`: choose cases, measure them, and show what was found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console, Group
from rich.table import Table

from eventful.bench import SUITES, Case, Results, Setup, cases, run, select
from eventful.bench.plots import plot
from eventful.cli.devices import device_of
from eventful.cli.options import Device, Fresh, Json
from eventful.cli.output import errors, show
from eventful.runtimes import installed

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Settings:
    """The options of the command."""

    suite: str
    patterns: tuple[str, ...]
    quick: bool
    repeats: int | None
    out: Path
    compile: bool
    runtimes: bool
    dtype: str
    device: str
    fresh: bool
    resume: bool


def chosen(settings: Settings) -> list[Case]:
    """The cases that the options name.

    Raises:
        ValueError: There is no such suite, or no such case.
    """
    return select(cases(settings.suite, settings.quick), settings.patterns)


def bench(settings: Settings, console: Console) -> dict[str, Any]:
    """Measure; see `eventful bench --help`.

    Returns:
        For each suite its cases of this run and the files written, and whether all cases are good.
    """
    setup, among = _setup(settings), chosen(settings)
    suites: dict[str, list[Case]] = {}
    for case in among:
        suites.setdefault(case.name.partition("/")[0], []).append(case)
    held = {suite: _results(settings, setup, suite) for suite in suites}
    result: dict[str, Any] = {"ok": True, "suites": {}}
    for suite, wanted in suites.items():
        results = held[suite]
        todo = [case for case in wanted if not (settings.resume and results.holds(case))]
        with console.status(f"{suite}: {len(todo)} cases") as status:

            def report(name: str, entry: dict[str, Any], status: Any = status) -> None:
                console.print(_line(name, entry), highlight=False)
                status.update(f"after {name}")

            result["ok"] = run(todo, results, setup, report) and result["ok"]
        result["suites"][suite] = _written(results, wanted)
    return result


def _setup(settings: Settings) -> Setup:
    if settings.dtype not in DTYPES:
        raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}, got {settings.dtype!r}")
    repeats = settings.repeats or (3 if settings.quick else 20)
    return Setup(
        device_of(settings.device),
        getattr(torch, settings.dtype),
        repeats,
        settings.compile,
        installed() if settings.runtimes else (),
    )


def _results(settings: Settings, setup: Setup, suite: str) -> Results:
    return Results(settings.out / f"{suite}.json", setup, settings.fresh)


def _written(results: Results, wanted: list[Case]) -> dict[str, Any]:
    """Draw a suite, and pass on what this run is about."""
    entries = results.content["cases"]
    pictures = plot(results.content, results.path.parent)
    head = {key: value for key, value in results.content.items() if key != "cases"}
    files = [str(results.path), *map(str, pictures)]
    return head | {"cases": {case.name: entries[case.name] for case in wanted}, "files": files}


def _line(name: str, entry: dict[str, Any]) -> str:
    line = f"{name}: {entry['status']}" + (f", {entry['reason']}" if entry["reason"] else "")
    left_out = (entry.get("left_out") or {}).items()
    return "\n".join([line, *(f"  {who}: left out, {shorten(why, 200)}" for who, why in left_out)])


def table(result: dict[str, Any]) -> Any:
    """All that was measured, for people."""
    parts: list[Any] = []
    for suite, content in result["suites"].items():
        for name, case in content["cases"].items():
            if case["status"] == "ok":
                parts.append((_memory if suite == "memory" else _times)(name, case))
            else:
                parts.append(_line(name, case))
        parts += content["files"]
    return Group(*parts)


def _times(name: str, case: dict[str, Any]) -> Table:
    share = case["figures"].get("share_outside")
    outside = "" if share is None else f"; {share:.0%} of an update outside products and attention"
    columns = ("ms", "faster", "fewer\nops", "of\nideal", "attn.\nerror", "output\nerror")
    result = _table(name, columns, f"held against {_against(case)}{outside}")
    for row in case["rows"]:
        result.add_row(
            row["contender"].replace("eventful first", "first"),
            f"{row['milliseconds']['median']:.2f}",
            f"{row['speedup'][row['against']]:.2f}x",
            f"{row['operation_ratio']:.2f}x",
            f"{row['efficiency']:.0%}",
            _small(row["attention_error"]),
            _small(row["output_error"]),
        )
    return result


def _against(case: dict[str, Any]) -> str:
    return " and ".join(dict.fromkeys(row["against"] for row in case["rows"]))


def _memory(name: str, case: dict[str, Any]) -> Table:
    columns = ("peak MB", "state MB", "state\n/ N D", "attn.\nerror")
    result = _table(name, columns, "in processes of their own; state in values, mean over blocks")
    for row in case["rows"]:
        figures = row["figures"]
        state, values = figures.get("state_bytes"), figures.get("state_values_per_block")
        result.add_row(
            row["contender"],
            f"{figures['peak_bytes'] / 1e6:.0f}" if figures["peak_bytes"] else "out of memory",
            "-" if state is None else f"{state / 1e6:.1f}",
            "-" if values is None else f"{values:.2f}",
            _small(row["attention_error"]),
        )
    return result


def _table(title: str, columns: tuple[str, ...], caption: str) -> Table:
    result = Table(title=title, title_justify="left", caption=caption, box=box.SIMPLE_HEAD)
    result.add_column("contender", no_wrap=True)
    for column in columns:
        result.add_column(column, justify="right", no_wrap=True)
    return result


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}"


def command(
    suite: Annotated[str, typer.Argument(help=f"One of {', '.join(SUITES)}, or all.")],
    case: Annotated[
        list[str] | None,
        typer.Option(help="Only cases of this name; * stands for anything. Repeatable."),
    ] = None,
    list_cases: Annotated[bool, typer.Option("--list", help="List the cases and stop.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, seconds each.")] = False,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Timed rounds [20; 3 with --quick].")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("eventful-bench"),
    compile_blocks: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Also measure compiled contenders.")
    ] = True,
    runtimes: Annotated[
        bool,
        typer.Option(
            "--runtimes/--no-runtimes",
            help="Also measure the dense model in OpenVINO and ONNX Runtime, where installed.",
        ),
    ] = True,
    dtype: Annotated[str, typer.Option(help=f"One of {', '.join(DTYPES)}.")] = "float32",
    device: Device = "",
    fresh: Fresh = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out cases that --out holds already.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Time dense and eventful contenders side by side in one process.

    Every case tests its contenders before it times them; one that fails has no speed, and the exit
    code is 1. Writes <suite>.json, .png and .svg; cases measured again replace their older entry.
    """
    with errors():
        settings = Settings(
            suite=suite,
            patterns=tuple(case or ()),
            quick=quick,
            repeats=repeats,
            out=out,
            compile=compile_blocks,
            runtimes=runtimes,
            dtype=dtype,
            device=device,
            fresh=fresh,
            resume=resume,
        )
        if list_cases:
            names = [case.name for case in chosen(settings)]
            show({"cases": names}, json_output, lambda result: "\n".join(result["cases"]))
            return
        result = bench(settings, Console(stderr=True))
    show(result, json_output, table)
    if not result["ok"]:
        raise typer.Exit(1)
