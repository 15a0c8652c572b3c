"""How long plans and policies take against the dense model, frame by frame in turn.

    EVENTFUL_DATA=... python benchmarks/quality_times.py [--frames 31] [--rounds 3]
    python benchmarks/quality_times.py --draw

runs the demo's ViT-S/14 at 518 pixels on the long side over an excerpt of three clips. Each setting
is run beside the dense model: on every frame both are timed, one right behind the other, and which
comes first changes from frame to frame. Every round runs the excerpt anew. A frame's time is its
median over the rounds, for the whole call: the frame's normalisation, motion and choices included.

Results stand in benchmarks/results/quality_times.json, for each clip and setting:

- `time_ratio`: the dense model's time over the setting's, on all frames but the first; `rounds` are
  the same ratios of single rounds;
- `operations_ratio_later`: the operations of the same frames; `operations_ratio` counts the first
  frame, too;
- `dense_ms`, `ms`: the mean times of these frames; `actions`: how many of them were computed in
  which way ("dense" in full), and the median time of such a frame; `first_ms`: of the first frame;
- `relative_error`, `relative_error_max`: of the same frames in the same run, mean and worst.

The table of docs/quality.md is made from them; `--draw` does this alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from filling import Lines, fill, parser
from torch import Tensor

from eventful.evaluation import Setting, combined
from eventful.evaluation.measures.errors import relative_error
from eventful.evaluation.runners.frames import FrameRunner, Step
from eventful.evaluation.runners.tokens import patch_runner
from eventful.models.saliency import saliency_vit
from eventful.provenance import commit, machine, write_json
from eventful.video import Reader

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "quality_times.json"
PAGE = ROOT / "docs" / "quality.md"
SIZE = 518
CLIPS = {  # where they lie, and the first frame, counted from 0
    "DAVIS parkour": ("davis2016/JPEGImages/480p/parkour", 0),
    "highway": ("cdnet2014/highway/input", 1269),
    "vtest": ("vtest/vtest.avi", 50),
}


def settings() -> list[Setting]:
    """What is timed."""
    plans = ["skip:5", "carry:5", "lowres:0.25", "auto:0.2"]
    gated = combined(["incremental"], ["fraction:0.25", "fraction:0.125"])
    return combined([], plans) + gated + combined(["input", "hold"], ["fraction:0.125"])


def frames_of(clip: str, count: int, size: int) -> list[Tensor]:
    """The frames (1, 3, height, width) of an excerpt."""
    if "EVENTFUL_DATA" not in os.environ:
        sys.exit("EVENTFUL_DATA is not set: the folder of davis2016/, cdnet2014/ and vtest/")
    place, first = CLIPS[clip]
    path = Path(os.environ["EVENTFUL_DATA"], place)
    with Reader(path, size, keep_aspect=True) as reader:
        return [frame.image for frame in islice(reader, first, first + count)]


def timed(runner: FrameRunner, frame: Tensor) -> tuple[Tensor, float]:
    """The tokens of a frame, and the milliseconds that they took."""
    begin = time.perf_counter()
    tokens = runner(frame)
    return tokens, (time.perf_counter() - begin) * 1e3


def measure(model: Any, setting: Setting, frames: Sequence[Tensor], rounds: int) -> dict[str, Any]:
    """Run a setting beside the dense model.

    Args:
        model: The backbone, dense, for the size of the frames.
        setting: Any but the dense one.
        frames: Each (1, 3, height, width) in [0, 1].
        rounds: How often.

    Returns:
        What the results hold of a setting on a clip.
    """
    pair = patch_runner(model, Setting("dense", None)), patch_runner(model, setting)
    spent = torch.zeros(rounds, 2, len(frames), dtype=torch.float64)
    errors: list[float] = []
    for turn in range(-1, rounds):  # the first one warms up
        for runner in pair:
            runner.start()
        for number, frame in enumerate(frames[:2] if turn < 0 else frames):
            tokens: dict[int, Tensor] = {}
            for which in ((0, 1), (1, 0))[number % 2]:
                tokens[which], milliseconds = timed(pair[which], frame)
                if turn >= 0:
                    spent[turn, which, number] = milliseconds
            if turn == 0 and number:
                errors.append(relative_error(tokens[1], tokens[0]))
    return {
        "setting": setting.name,
        **_times(spent, pair[1].steps),
        "relative_error": sum(errors) / len(errors),
        "relative_error_max": max(errors),
    }


def _times(spent: Tensor, steps: Sequence[Step]) -> dict[str, Any]:
    """What was spent, (rounds, dense and setting, frames), brought together."""
    middle = spent.quantile(0.5, dim=0)
    dense, ours = middle[:, 1:]
    each = spent[:, :, 1:].sum(dim=2)
    done: dict[str, list[float]] = {}
    for step, milliseconds in zip(steps[1:], ours.tolist(), strict=True):
        done.setdefault("dense" if step.first else step.action, []).append(milliseconds)
    return {
        "operations_ratio": _operations_ratio(steps),
        "operations_ratio_later": _operations_ratio(steps[1:]),
        "time_ratio": float(dense.sum() / ours.sum()),
        "rounds": (each[:, 0] / each[:, 1]).tolist(),
        "dense_ms": float(dense.mean()),
        "ms": float(ours.mean()),
        "first_ms": float(middle[1, 0]),
        "actions": {
            name: {"frames": len(times), "ms": median(times)} for name, times in done.items()
        },
    }


def _operations_ratio(steps: Sequence[Step]) -> float:
    used = sum(step.operations for step in steps)
    return sum(step.dense_operations for step in steps) / max(1, used)


def run(clips: Sequence[str], count: int, rounds: int, size: int) -> dict[str, Any]:
    """Measure every setting on every clip."""
    found: dict[str, Any] = {"frames": count, "rounds": rounds, "long_side": size, "clips": {}}
    for clip in clips:
        frames = frames_of(clip, count, size)
        height, width = frames[0].shape[-2:]
        model = saliency_vit((height, width)).backbone
        rows = found["clips"][clip] = []
        for setting in settings():
            rows.append(measure(model, setting, frames, rounds))
            keys = ("setting", "operations_ratio_later", "time_ratio", "relative_error")
            print(clip, json.dumps({key: rows[-1][key] for key in keys}), flush=True)
    return {"commit": commit(), "machine": machine(), **found}


def tables(found: Mapping[str, Any]) -> dict[str, Lines]:
    """The table of docs/quality.md."""
    columns = ["operations", "time", "dense frame", "its frame", "error", "worst"]
    lines = [["clip", "setting", *columns]]
    for clip, rows in found["clips"].items():
        lines += [[clip, *_cells(row)] for row in rows]
    return {"plans": lines}


def _cells(row: Mapping[str, Any]) -> list[str]:
    low, high = min(row["rounds"]), max(row["rounds"])
    between = f" ({low:.2f} to {high:.2f})" if len(row["rounds"]) > 1 else ""
    return [
        f"`{row['setting']}`",
        f"{row['operations_ratio_later']:.2f}x",
        f"{row['time_ratio']:.2f}x{between}",
        f"{row['dense_ms']:.0f} ms",
        f"{row['ms']:.0f} ms",
        f"{row['relative_error']:.3f}",
        f"{row['relative_error_max']:.3f}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and fill the table in."""
    options = parser(__doc__)
    options.add_argument("--clips", nargs="+", choices=list(CLIPS), default=list(CLIPS))
    options.add_argument("--frames", type=int, default=31)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--size", type=int, default=SIZE, help="long side in pixels")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--out", type=Path, help="another file, for a trial; fills no table")
    chosen = options.parse_args(arguments)
    if chosen.frames < 2 or chosen.rounds < 1:
        options.error("it takes 2 frames or more, the first one is left out, and a round or more")
    if not chosen.draw:
        torch.set_num_threads(chosen.threads)
        found = run(chosen.clips, chosen.frames, chosen.rounds, chosen.size)
        write_json(found, chosen.out or RESULTS)
    if chosen.out is None:
        fill(PAGE, "times", tables(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
