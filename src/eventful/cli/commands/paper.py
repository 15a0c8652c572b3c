"""`eventful paper`: the paper's tables, counted (`ops`) and run on real data (`table`)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from eventful.cli.devices import device_of
from eventful.cli.options import CONVERTED, Device, FirstVideos, Fresh, Json, Strict
from eventful.cli.output import errors, show
from eventful.evaluation import Choice, Setting, SettingReport, Task, evaluate, task_kind
from eventful.finetuning import load_finetuned
from eventful.models.weights import load
from eventful.paper import (
    ENTRIES,
    FURTHER,
    Entry,
    Recount,
    Row,
    equal_budget,
    recount,
    rows,
    summary,
)
from eventful.paper.tables import EPIC, KINETICS, VITDET

_TASKS = {VITDET: "vid", EPIC: "epic", KINETICS: "kinetics"}

_NOTES = (
    "Tables 1, B, C, E: ViTDet-B on ImageNet VID, 10⁹ operations a frame, 0.38 % of them first "
    "frames, mAP50. D: ViViT-B on EPIC-Kitchens, A: on Kinetics, 10¹² operations a video, top-1.",
    "spatiotemporal: the count depends on where updated tokens lie. Found on the demo clip, with "
    "changes of pixels for the gates' errors; the range is the least and the most that it can be.",
    "threshold: how many tokens pass depends on the video and on VID's weights, which are not "
    "here, so nothing is computed; the range says at which r `full` costs as much.",
    "incremental: has the outputs, and so the accuracy, of token-wise. Counted as if every window "
    "held an updated token and the guard sent no row back.",
)

group = typer.Typer(no_args_is_help=True, help="The paper's tables, counted and run again.")


def ops() -> dict[str, Any]:
    """Count every entry of the tables; see `eventful paper ops --help`.

    Returns:
        "entries", "bounds" of the entries that depend on data, and "summary".
    """
    found = recount()
    return {
        "entries": [one.as_dict() for one in found],
        "bounds": [
            {"table": one.entry.table, "r": one.entry.r, "low": low, "high": high}
            for one in found
            if one.bounds is not None
            for low, high in [one.bounds]
        ],
        "summary": summary(found),
    }


def ops_table(report: dict[str, Any]) -> Any:
    """The report for people."""
    table = Table(title="Operations in the paper's tables", box=box.SIMPLE_HEAD, padding=0)
    for column in ("table", "variant"):
        table.add_column(column)
    for column in ("size", "r", "paper", "here", "off", "accuracy", "range"):
        table.add_column(column, justify="right")
    bounds = {(one["table"], one["r"]): one for one in report["bounds"]}
    lines = zip((*ENTRIES, *FURTHER), report["entries"], strict=True)
    for _, group in groupby(lines, key=lambda pair: (pair[0].table, pair[0].size)):
        table.add_section()
        for entry, line in group:
            table.add_row(*_cells(Recount(entry, line["computed"]), bounds))
    return Group(table, *_NOTES, _sentence(report["summary"]))


def _cells(one: Recount, bounds: dict[tuple[str, int], dict[str, float]]) -> list[str]:
    entry, deviation = one.entry, one.deviation
    range_ = "" if entry.threshold is None else f"as r = {equal_budget(entry):.0f}"
    if entry.variant == "spatiotemporal" and entry.r is not None:
        ends = bounds[entry.table, entry.r]
        range_ = f"{ends['low']:.1f}-{ends['high']:.1f}"
    digits = 2 if entry.unit == 1e9 else 3
    return [
        entry.table,
        entry.label,
        str(entry.size),
        "" if entry.r is None else str(entry.r),
        "" if entry.operations is None else str(entry.operations),
        "" if one.computed is None else f"{one.computed:.{digits}f}",
        "" if deviation is None else f"{deviation:+.2%}",
        f"{entry.accuracy:.2f} %",
        range_,
    ]


def _sentence(found: dict[str, Any]) -> str:
    return (
        f"{found['entries']} entries; {found['compared']} of the paper's do not depend on data, "
        f"{found['agree']} of these agree within 0.3 %; the largest deviation is "
        f"{found['largest_deviation']:.3%} ({found['where']})"
    )


@dataclass(frozen=True)
class TableSettings:
    """The options of `eventful paper table`.

    Attributes:
        table: "1", "A", "B", "C", "D" or "E".
        root: Folder of the table's data set.
        weights: File that `eventful weights` wrote.
        tuned: Folder with a folder `<r>` for each r that a temporal model was tuned at, as
            `eventful finetune train --out` writes it (tables A and D).
        out: Folder for results; a run that was ended goes on there.
        videos: Take the first so many.
        frames: Frames of a video at most (ImageNet VID).
        device: Such as "cpu" or "cuda"; empty takes the GPU, if there is one.
        strict: Raise at the first file that cannot be used.
        fresh: Forget what the folder holds.
    """

    table: str
    root: Path
    weights: Path | None = None
    tuned: Path | None = None
    out: Path = Path("eventful-paper")
    videos: int | None = None
    frames: int | None = None
    device: str = ""
    strict: bool = False
    fresh: bool = False


class _NoDataError(Exception):
    """Why rows cannot be run."""


def table(settings: TableSettings, console: Console) -> dict[str, Any]:
    """Run every row of a table; see `eventful paper table --help`.

    Returns:
        "rows", each with the paper's figures, what was "measured" (None if it was skipped) and why
        it was "skipped"; "problems", the number of files that could not be used.

    Raises:
        FileNotFoundError: The weights are not there; or with `strict`, the data are not.
        ValueError: There is no such table, there are data but no weights, or something does not
            fit.
    """
    result: dict[str, Any] = {"table": settings.table, "rows": [], "problems": 0}
    for chosen in _groups(rows(settings.table)):
        try:
            found, problems = _run(settings, chosen, console)
        except _NoDataError as reason:
            found, problems = [_skipped(row, str(reason)) for row in chosen], 0
            console.print(escape(f"skipped {len(chosen)} rows: {reason}"), soft_wrap=True)
        result["rows"] += found
        result["problems"] += problems
    return result


def _groups(table: list[Row]) -> list[list[Row]]:
    """Rows that share a size of the data and a set of weights."""
    found: dict[tuple[int, int | None], list[Row]] = {}
    for row in table:
        found.setdefault((row.entry.size, row.entry.tuned_r), []).append(row)
    return list(found.values())


def _run(
    settings: TableSettings, chosen: list[Row], console: Console
) -> tuple[list[dict[str, Any]], int]:
    entry = chosen[0].entry
    task = _task(settings, entry)
    named = {Setting.of(row).name: row for row in chosen}
    tuned = "" if entry.tuned_r is None else f"-tuned-{entry.tuned_r}"
    folder = settings.out / f"{entry.table}-{entry.size}{tuned}"
    with console.status("") as status:
        evaluation = evaluate(
            task,
            [Setting.of(row) for row in chosen],
            folder,
            videos=settings.videos,
            fresh=settings.fresh,
            progress=lambda at: status.update(
                escape(f"{at.setting}: {at.videos} of {at.total} videos, {at.video} {at.step}")
            ),
        )
    found = [_measured(named[one.setting.name], one, task) for one in evaluation.settings]
    return found, len(evaluation.problems)


def _task(settings: TableSettings, entry: Entry) -> Task[Any]:
    """Open the data first: without them weights are not asked for."""
    kind = task_kind(_TASKS[entry.model])
    vid = entry.model == VITDET
    size, frames = (entry.size, settings.frames) if vid else (None, None)
    choice = Choice(settings.root, size=size, frames=frames, strict=settings.strict)
    try:
        task = kind.make(kind.model(), choice)
    except FileNotFoundError as error:
        if settings.strict:
            raise
        raise _NoDataError(str(error)) from error
    tuned = None if entry.tuned_r is None else _tuned(settings.tuned, entry.tuned_r)
    if settings.weights is None:
        raise ValueError(
            f"table {entry.table} needs --weights FILE: what eventful weights {kind.weights} writes"
        )
    load(task.model, settings.weights)
    if tuned is not None:
        load_finetuned(task.model, tuned)  # type: ignore[arg-type]
    task.model.to(device_of(settings.device))
    return task


def _tuned(folder: Path | None, r: int) -> Path:
    """The temporal model tuned at r, as its last epoch left it."""
    if folder is None:
        raise _NoDataError(
            f"the temporal model tuned at r = {r} is needed; --tuned DIR names the folder with {r}/"
        )
    found = sorted((folder / str(r)).glob("epoch-*.safetensors"))
    if not found:
        raise _NoDataError(
            f"there is no {folder / str(r)}/epoch-*.safetensors; eventful finetune train --out "
            f"{folder / str(r)} writes it"
        )
    return found[-1]


def _row(row: Row) -> dict[str, Any]:
    entry = row.entry
    return {
        "model": entry.model,
        "size": entry.size,
        "variant": entry.label,
        "r": entry.r,
        "paper": {"operations": entry.operations, "accuracy": entry.accuracy},
        "measured": None,
        "skipped": None,
    }


def _skipped(row: Row, reason: str) -> dict[str, Any]:
    return _row(row) | {"skipped": reason}


def _measured(row: Row, one: SettingReport, task: Task[Any]) -> dict[str, Any]:
    operations = None if one.operations is None else one.operations / row.entry.unit
    return _row(row) | {
        "measured": {
            "operations": operations,
            "accuracy": one.scores[task.measures[0]],
            "first_share": one.first_share,
            "videos": len(one.videos),
            "milliseconds": one.milliseconds,
        }
    }


def table_table(result: dict[str, Any]) -> Any:
    """A table that was run, beside the paper's figures, for people."""
    view = Table(title=f"Table {result['table']}", box=box.SIMPLE_HEAD, padding=0)
    for column in ("size", "variant"):
        view.add_column(column)
    for column in ("r", "operations", "paper", "accuracy", "paper", "videos"):
        view.add_column(column, justify="right")
    for row in result["rows"]:
        measured = row["measured"] or dict.fromkeys(("operations", "accuracy", "videos"))
        view.add_row(
            str(row["size"]),
            row["variant"],
            _text(row["r"], "d"),
            _text(measured["operations"], ".3f"),
            _text(row["paper"]["operations"], "g"),
            _text(measured["accuracy"], ".2f"),
            _text(row["paper"]["accuracy"], ".2f"),
            "skipped" if row["skipped"] else _text(measured["videos"], "d"),
        )
    reasons = dict.fromkeys(row["skipped"] for row in result["rows"] if row["skipped"])
    lines = [escape(f"skipped: {reason}") for reason in reasons]
    lines += [f"{result['problems']} files could not be used"] if result["problems"] else []
    return Group(view, *lines)


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


@group.command("ops")
def ops_command(json_output: Json = False) -> None:
    """Count every entry of the paper's tables, beside the paper's own figure.

    Nothing heavy is run: models are built without weights. What depends on which tokens change is
    found on the demo clip, and says so.
    """
    with errors():
        report = ops()
    show(report, json_output, ops_table)


@group.command("table")
def table_command(
    name: Annotated[str, typer.Argument(help="1, A, B, C, D or E.", metavar="TABLE")],
    root: Annotated[Path, typer.Option(help="Folder of the table's data set.")],
    weights: Annotated[Path | None, CONVERTED] = None,
    tuned: Annotated[
        Path | None,
        typer.Option(help="Folder with DIR/<r> as `eventful finetune train` writes it (A, D)."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("eventful-paper"),
    videos: FirstVideos = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of a video at most (ImageNet VID).")
    ] = None,
    device: Device = "",
    strict: Strict = False,
    fresh: Fresh = False,
    json_output: Json = False,
) -> None:
    """Run every row of a table of the paper on real data, beside the paper's figures.

    Rows without data, or without the temporal model tuned for them, are skipped and say why. A run
    that was ended goes on where it was. The exit code is 1 if every row was skipped.
    """
    with errors():
        result = table(
            TableSettings(
                table=name,
                root=root,
                weights=weights,
                tuned=tuned,
                out=out,
                videos=videos,
                frames=frames,
                device=device,
                strict=strict,
                fresh=fresh,
            ),
            Console(stderr=True),
        )
    show(result, json_output, table_table)
    if all(row["measured"] is None for row in result["rows"]):
        raise typer.Exit(1)
