"""Quality against cost on annotated video: runs the settings, and writes tables and figures.

    EVENTFUL_DATA=... python benchmarks/quality.py run OUT [--jobs 2] [--only davis ...]
    python benchmarks/quality.py collect OUT
    python benchmarks/quality.py tables [--check]
    EVENTFUL_DATA=... python benchmarks/quality.py sheets OUT [--policy auto:0.2] [--only ...]

`run` evaluates every setting of `SETTINGS` on the runs of `RUNS` and writes OUT/<run>/<run>.json;
the same command goes on where it was ended. Tasks on the same frames are judged in one run. Times
are not taken: `benchmarks/quality_times.py` takes them, on short excerpts.

`collect` brings what was found together in benchmarks/results/quality.json, draws
docs/images/quality-<task>.svg, and fills in the tables of docs/quality.md; with --keep, settings
that were not run again stay as they are there. `tables` does the last step alone, and with --check
fails where the tables differ from the results.

`sheets` draws docs/images/sheet-<task>.jpg, what one setting makes of some frames of each task,
beside the dense tokens that `run` has left in OUT; nothing of what was measured is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from quality_summary import HEADS, JOINT, TASKS, summary
from quality_tables import filled

from eventful.evaluation import Setting, combined, evaluate, report, sheet, write_report
from eventful.evaluation.reports.curves import curves
from eventful.evaluation.tasks.annotated import KINDS, saliency_models
from eventful.evaluation.tasks.joint import Joint
from eventful.evaluation.tasks.registry import dense_folder
from eventful.models.packaged import WEIGHTS
from eventful.models.saliency import saliency_vit
from eventful.provenance import write_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "quality.json"
FILES = (ROOT / "docs" / "quality.md",)
IMAGES = ROOT / "docs" / "images"

SETTINGS = {
    "incremental": (0.5, 0.25, 0.125, 0.0625),
    "input-relative": (0.5, 0.25, 0.125),
    "hold": (0.25,),
    "token-wise": (0.25,),
    "stgt": (0.25,),
}
PLANS = (
    *("skip:2", "skip:5", "skip:5+1", "skip:5+2", "skip:5+3", "skip:5+4", "skip:10"),
    *("carry:2", "carry:5", "carry:10"),
    *("lowres:0.5", "lowres:0.25", "lowres:0.125"),
    *("auto:0.5", "auto:0.25", "auto:0.24", "auto:0.2", "auto:0.18", "auto:0.125", "auto:0.0625"),
)
LATE = "auto:0.24", "auto:0.2", "auto:0.125", "auto:0.1", "carry:5"  # with lookahead too
LOOKAHEAD = 16
SHORT = {"campus-people": tuple(f"carry:5+{phase}" for phase in range(1, 5))}  # few frames
# For heads that are trained elsewhere; the last three for what four times fewer operations give.
HEAD_PLANS = (
    *("skip:4", "skip:8", "carry:4", "carry:8", "auto:0.25", "auto:0.125"),
    *("skip:5", "carry:5", "auto:0.24"),
)
# What is run, by the tasks that judge it: the first gives the frames.
RUNS = {**JOINT, "vtest": ("vtest",), **{name: (name,) for name in HEADS}}
FRAMES = {"highway": 200, "vtest": 200, "davis-segmentation": 50}  # of a video at most
TITLES = {
    "davis": "DAVIS, saliency and mask propagation",
    "highway": "CDnet highway, vehicles and saliency",
    "vtest": "vtest, probe for people",
    "davis-segmentation": "DAVIS, segmentation of unseen sequences",
    "campus-people": "TUD-Campus, people in an unseen scene",
}


def settings(run: str) -> list[Setting]:
    """All settings, the dense model first; on many videos one phase of a plan is enough."""
    found = combined(["dense"], ["all"])
    late = combined([], (*LATE, *SHORT.get(run, ())), LOOKAHEAD)
    late = [one for one in late if one.lookahead]
    if run in HEADS:
        return found + combined([], HEAD_PLANS) + late
    for variant, shares in SETTINGS.items():
        found += combined([variant], [f"fraction:{share}" for share in shares])
    plans = [text for text in PLANS if run != "davis" or "+" not in text]
    return found + combined([], plans) + late


@lru_cache
def task_of(
    run: str, folder: Path, frames: int | None = None, size: int | None = None, drawn: int = 0
) -> Any:
    """Build what is run; the data lie in EVENTFUL_DATA. `drawn` is the task that sheets show."""
    if "EVENTFUL_DATA" not in os.environ:
        sys.exit("EVENTFUL_DATA is not set: the folder of davis2016/, cdnet2014/, vtest/ and mot/")
    root, models = Path(os.environ["EVENTFUL_DATA"]), saliency_models(saliency_vit())
    names, place, frames = RUNS[run], dense_folder(folder), frames or FRAMES.get(run)
    data = KINDS[names[0]][1](root, False)  # of the first task: all look at the same frames
    tasks = [KINDS[name][0](models, data, place, size, frames) for name in names]
    return tasks[0] if len(tasks) == 1 else Joint(run, tasks, drawn)


def work(
    run: str, folder: Path, frames: int | None, size: int | None, number: int, threads: int
) -> str:
    """Run one setting, unless it is there already; the dense model is number 0."""
    torch.set_num_threads(threads)
    setting, start = settings(run)[number], time.perf_counter()
    evaluate(task_of(run, folder, frames, size), [setting], folder)
    return f"{run}: {setting.name}, {time.perf_counter() - start:.0f} s"


def run_all(arguments: argparse.Namespace) -> None:
    """Run every setting, several at a time, then write the reports."""
    runs = arguments.only or list(RUNS)
    threads = arguments.threads or max(1, (os.cpu_count() or 1) // arguments.jobs)
    trial = arguments.frames, arguments.size
    with ProcessPoolExecutor(arguments.jobs) as pool:

        def start(run: str, number: int) -> Any:
            return pool.submit(work, run, arguments.out / run, *trial, number, threads)

        for dense in [start(run, 0) for run in runs]:  # the others are compared with it
            print(dense.result(), flush=True)
        for one in [start(run, k) for run in runs for k in range(1, len(settings(run)))]:
            print(one.result(), flush=True)
    for run in runs:
        write(run, arguments.out / run, *trial)


def write(run: str, folder: Path, frames: int | None, size: int | None) -> None:
    """Write the report on what has been run."""
    task = task_of(run, folder, frames, size)
    found = evaluate(task, settings(run), folder)
    weights = {"file": Path(WEIGHTS.inside).name, "sha256": WEIGHTS.sha256}
    about = {"title": TITLES[run], "weights": weights}
    write_report(report(task, found, about, times=False), found, folder, times=False)


def draw(arguments: argparse.Namespace) -> None:
    """Draw a sheet for each task."""
    (setting,) = combined([arguments.variant], [arguments.policy])
    for run in arguments.only or list(RUNS):
        for number, name in enumerate(RUNS[run]):
            task = task_of(run, arguments.out / run, arguments.frames, arguments.size, number)
            sheet(task, setting, arguments.images / f"sheet-{name}.jpg", name)


def collect(arguments: argparse.Namespace) -> None:
    """Bring reports together, draw them, and fill the tables in."""
    paths = [path for folder in arguments.folders for path in report_files(folder)]
    if not paths:
        sys.exit(f"no report of {', '.join([*RUNS, *TASKS])} in {arguments.folders}")
    before = json.loads(RESULTS.read_text()) if arguments.keep else None
    found = summary((json.loads(path.read_text()) for path in paths), before)
    write_json(found, arguments.out or RESULTS)
    for name, task in found["tasks"].items():
        path = arguments.images / f"quality-{name}.svg"
        curves(task["dense"], task["rows"], name, [path], list(task["dense"]["quality"]))
    if arguments.out is None:
        fill(arguments)


def report_files(folder: Path) -> list[Path]:
    """The reports in a folder and in those right below it."""
    names = [f"{name}.json" for name in dict.fromkeys([*RUNS, *TASKS])]
    return [path for name in names for path in (*folder.glob(name), *folder.glob(f"*/{name}"))]


def fill(arguments: argparse.Namespace) -> None:
    """Fill the tables in, or check them."""
    found = json.loads(RESULTS.read_text())
    for path in FILES:
        text = path.read_text()
        new = filled(text, found)
        if not getattr(arguments, "check", False):
            path.write_text(new)
        elif new != text:
            sys.exit(f"{path.name} differs from the results; run benchmarks/quality.py tables")


def main(given: Sequence[str] | None = None) -> None:
    """Do as asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run")
    run.add_argument("out", type=Path)
    run.add_argument("--jobs", type=int, default=2, help="settings at a time")
    run.add_argument("--threads", type=int, help="of each [the cores shared out]")
    run.add_argument("--only", nargs="+", choices=list(RUNS))
    run.add_argument("--frames", type=int, help="of a video at most, for a trial")
    run.add_argument("--size", type=int, help="long side in pixels, for a trial")
    run.set_defaults(call=run_all)
    together = commands.add_parser("collect")
    together.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    together.add_argument("--keep", action="store_true", help="rows of settings not run again")
    together.add_argument("--out", type=Path, help="another file, for a trial; fills no table")
    together.add_argument("--images", type=Path, default=IMAGES, help="where to")
    together.set_defaults(call=collect)
    tables = commands.add_parser("tables")
    tables.add_argument("--check", action="store_true")
    tables.set_defaults(call=fill)
    sheets = commands.add_parser("sheets")
    sheets.add_argument("out", type=Path, help="where `run` wrote to")
    sheets.add_argument("--policy", default="auto:0.2", help="a plan or a policy [%(default)s]")
    sheets.add_argument("--variant", default="input-relative", help="of a policy [%(default)s]")
    sheets.add_argument("--only", nargs="+", choices=list(RUNS))
    sheets.add_argument("--frames", type=int, help="as in `run`")
    sheets.add_argument("--size", type=int, help="as in `run`")
    sheets.add_argument("--images", type=Path, default=IMAGES, help="where to")
    sheets.set_defaults(call=draw)
    arguments = parser.parse_args(given)
    arguments.call(arguments)


if __name__ == "__main__":
    main()
