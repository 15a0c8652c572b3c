"""`eventful paper table`: the rows of one of the paper's tables, run on real data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from eventful.evaluation import Choice, Setting, SettingReport, Task, evaluate, task_kind
from eventful.finetuning import load_finetuned
from eventful.models.weights import load
from eventful.paper import Entry, Row, rows
from eventful.paper.tables import EPIC, KINETICS, VITDET

_TASKS = {VITDET: "vid", EPIC: "epic", KINETICS: "kinetics"}


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
    task.model.to(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
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
