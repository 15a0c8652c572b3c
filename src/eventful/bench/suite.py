"""Runs the cases of a suite and keeps their results in one JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from eventful.bench.case import Case, Setup, UnavailableError
from eventful.provenance import commit, machine, version, write_json


class Results:
    """The results of a suite, OUT/<suite>.json: one entry a case, replaced when it runs again.

    Args:
        path: The file.
        setup: What it holds was measured so.
        fresh: Forget what the file holds.

    Raises:
        ValueError: The file is damaged, or holds results of another setup or machine.
    """

    def __init__(self, path: Path, setup: Setup, fresh: bool = False) -> None:
        self.path = path
        self.content = _header(path.stem, setup) | {"cases": {}}
        if path.exists() and not fresh:
            self.content["cases"] = _read(path, self.content)["cases"]

    def holds(self, case: Case) -> bool:
        """Whether the case has been measured and was not refused."""
        return self.content["cases"].get(case.name, {}).get("status") == "ok"

    def put(self, name: str, entry: dict[str, Any]) -> None:
        """Replace a case's entry, and the file with it."""
        self.content["cases"][name] = entry
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.content, self.path)


def run(
    cases: Iterable[Case],
    results: Results,
    setup: Setup,
    report: Callable[[str, dict[str, Any]], None] = lambda name, entry: None,
) -> bool:
    """Measure cases one after the other; each is written as soon as it is done.

    Args:
        cases: What to measure.
        results: Where to.
        setup: How.
        report: Called with each case's name and entry.

    Returns:
        Whether none of them failed.
    """
    good = True
    for case in cases:
        entry = measure(case, setup)
        results.put(case.name, entry)
        report(case.name, entry)
        good = good and entry["status"] != "failed"
    return good


def measure(case: Case, setup: Setup) -> dict[str, Any]:
    """Measure one case; whatever goes wrong in it becomes its result, without a speed.

    Returns:
        "status" is "ok", "skipped" or "failed", with a "reason" unless it is "ok".
    """
    entry: dict[str, Any] = {
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "repeats": setup.repeats,
        "compile": setup.compile,
        "load_before": os.getloadavg()[0],  # processes that wanted to run in the last minute
    }
    try:
        found = asdict(case.measure(setup))
    except UnavailableError as error:
        return entry | {"status": "skipped", "reason": str(error)}
    except Exception as error:  # the other cases of a suite of hours are still worth measuring
        return entry | {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    finally:
        torch.compiler.reset()  # compiled code and what it holds, for the next case's sake
    for row in found["rows"]:
        row["milliseconds"] = row["milliseconds"] and row["milliseconds"]._asdict()
    return entry | {"status": "ok", "reason": None} | found


def _header(suite: str, setup: Setup) -> dict[str, Any]:
    device = setup.device
    return {
        "suite": suite,
        "machine": machine(),
        "timm": version("timm"),
        "commit": commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "dtype": str(setup.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


_MUST_AGREE = ("machine", "timm", "device", "dtype", "threads")


def _read(path: Path, now: dict[str, Any]) -> dict[str, Any]:
    """Read an older file whose results may stand beside new ones."""
    mend = "use another --out, or --fresh to start over"
    try:
        content = json.loads(path.read_text())
        differing = [key for key in _MUST_AGREE if content[key] != now[key]]
        cases = content["cases"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no file of results ({error!r}); {mend}") from error
    if differing and cases:
        what = "; ".join(f"{key} {content[key]} there, {now[key]} here" for key in differing)
        raise ValueError(f"{path} holds results that do not go with new ones: {what}; {mend}")
    return content
