"""What is known to work with each family, from running the laws: the table of docs/models.md.

    python -m tests.families.matrix [--compile] [--only NAME ...]

runs the laws on every family whose library is installed, writes benchmarks/results/families.json
and puts the table into docs/models.md. Compiling takes half a minute a family; without --compile
that column keeps what it was.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import eventful
from tests.families import test_families as laws
from tests.families.cases import CASES
from tests.families.zoo import build, dense, inputs, stream_of, tensors, video
from tests.laws.frames import NoMotion, flow_is
from tests.zoo import relative

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "families.json"
PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- families -->\n", "<!-- end -->\n"
LIBRARIES = ("transformers", "torchvision", "open_clip")
PACKAGES = {"open_clip": "open_clip_torch"}
Answer = bool | None  # None where a question has no meaning


def yes(*checks: Callable[[], Any]) -> Answer:
    """Whether checks pass, those left out that have no meaning."""
    answers = []
    for check in checks:
        try:
            check()
            answers.append(True)
        except pytest.skip.Exception:
            continue
        except (AssertionError, ValueError, RuntimeError):
            answers.append(False)
    return all(answers) if answers else None


def keep_all_error(name: str) -> float:
    """The largest relative error of three frames of which all tokens are kept, in float32."""
    model = build(name)
    stream = stream_of(name, model, eventful.KeepAll())
    return max(
        laws.off(laws.run(stream, name, frame), dense(name, model, frame))
        for frame in video(name, 3)
    )


def taps(name: str) -> int | None:
    """How many blocks something else than the next block reads; None without frame policies."""
    stream = stream_of(name, build(name), eventful.Skip(2))
    try:
        stream(video(name, 1)[0], **inputs(name, 2))
    except ValueError:
        return None
    return len(stream.layout.taps)


def compiles(name: str) -> None:
    """Compiled blocks give what others give."""
    model, policy = build(name), eventful.TopR(4)
    plain, compiled = (stream_of(name, model, policy, compile=on) for on in (False, True))
    for frame in video(name, 3):
        ours, theirs = (tensors(s(frame, **inputs(name, 2))) for s in (compiled, plain))
        assert max(map(relative, ours, theirs)) < CASES[name].single


def row(name: str, compile: bool = False) -> dict[str, Any]:
    """All that is known of a family; the answer for `compile` only where it is asked for."""
    pictured = CASES[name].patch is not None
    moves = [
        lambda: laws.test_partial_frames_of_all_patches_and_dense_frames_are_dense(name),
        lambda: laws.test_all_kinds_of_frames_keep_a_still_video_still(name),
        lambda: laws.test_kinds_of_all_sorts_in_one_pass_are_those_alone(name),
        lambda: laws.test_auto_computes_less_and_counts_it(name),
    ]
    policies = ("top:4", "carry:3", "auto:0.5") if pictured else ("top:4",)
    snapshots = [lambda p=p: laws.test_a_snapshot_goes_on_with_the_same(name, p) for p in policies]
    model = build(name)
    with pytest.MonkeyPatch.context() as patch:
        flow_is(patch, NoMotion)
        found = {
            "library": CASES[name].library,
            "model": type(model).__name__,
            "keep-all": keep_all_error(name),
            "first frame": yes(
                lambda: laws.test_the_first_frame_after_a_reset_is_the_dense_model(name)
            ),
            "taps": taps(name),
            "Auto": yes(*moves) if pictured else None,
            "snapshot": yes(*snapshots),
            "batch": yes(
                lambda: laws.test_rows_do_not_see_each_other(name),
                *(moves[2:3] if pictured else ()),
            ),
            "bf16": yes(
                lambda: (
                    laws.test_keep_all_in_bfloat16_stays_as_close_as_rounding_takes_the_dense_model(
                        name
                    )
                )
            ),
        }
        if compile:
            torch._dynamo.reset()
            found["compile"] = yes(lambda: compiles(name))
    return found


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown."""
    columns = ("first frame", "Auto", "snapshot", "batch", "bf16", "compile")
    head = ["family", "model", "keep-all", "taps", *columns]
    lines = [head, ["---"] * len(head)]
    for name, found in rows.items():
        words = ["not asked" if c not in found else _word(found[c]) for c in columns]
        count = "-" if found["taps"] is None else str(found["taps"])
        lines.append([name, f"`{found['model']}`", _power(found["keep-all"]), count, *words])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _word(answer: Answer) -> str:
    return {True: "yes", False: "no", None: "-"}[answer]


def _power(error: float) -> str:
    """An error, rounded up to a power of ten, which is the same on all processors."""
    return "below 1e-6" if error < 1e-6 else f"below 1e{math.floor(math.log10(error)) + 1}"


def filled(page: str, rows: dict[str, dict[str, Any]]) -> str:
    """A page with the table put between its marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table(rows) + END + rest.split(END, 1)[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the laws and write the result and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    kept = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else {}
    rows = {}
    for name in CASES:
        if options.only and name not in options.only:
            found = {}
        else:
            found = row(name, options.compile)
            print(name, found, flush=True)
        rows[name] = {**kept.get(name, {}), **found}
    versions = {name: importlib.metadata.version(PACKAGES.get(name, name)) for name in LIBRARIES}
    content = {"versions": versions | {"torch": torch.__version__}, "rows": rows}
    RESULT.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(filled(PAGE.read_text(), rows))


if __name__ == "__main__":
    main()
