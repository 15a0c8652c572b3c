"""What it is worth that frames may wait for the dense frame after them.

    EVENTFUL_DATA=... python benchmarks/lookahead.py WORK [--sizes 392] [--clips ...]
    python benchmarks/lookahead.py WORK --draw

WORK keeps the dense tokens (where `benchmarks/equal_time.py` keeps them too) and what is done, so
that the same command goes on where it was ended. Writes benchmarks/results/lookahead.json and the
tables of docs/lookahead.md.

For each clip, the demo's ViT-S/14 under each of `POLICIES`, without and with lookahead: relative
error of the final-normed patch tokens, over all patches and over the tenth that changed most over
five frames (dense frames with 0), operations, and the error that the stream estimated. Then the
lookaheads of `WAITS` under one policy.

How sides are weighed, and what a recomputed patch is worth, was chosen on the clips of `CHOSEN_ON`;
means are given of these and of the others.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any

import filling
import torch
from equal_time import CLIPS, DAVIS, Errors, dense, errors, frames_of, mean
from torch import Tensor

import eventful
from eventful.models import saliency_vit
from eventful.provenance import commit, machine, write_json

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "lookahead.json"
PAGE = ROOT / "docs" / "lookahead.md"
POLICIES = "auto:0.2", "auto:0.125", "error:0.15", "carry:5", "carry:10"
LOOKAHEAD = 16
WAITS = 1, 2, 4, 8, 32
WAITING = "auto:0.2"
CHOSEN_ON = ("camel", "parkour", "highway", "vtest", "demo")
GROUPS: dict[str, Callable[[str], bool]] = {
    "chosen on": lambda clip: clip in CHOSEN_ON,
    "others": lambda clip: clip not in CHOSEN_ON,
    "DAVIS": lambda clip: clip not in CLIPS,
    "still cameras": lambda clip: clip in ("highway", "vtest", "campus"),
    "demo clip": lambda clip: clip == "demo",
}


def run(model: Any, frames: Tensor, tokens: Tensor, policy: str, lookahead: int) -> dict[str, Any]:
    """Run a policy over a clip."""
    stream = eventful.Stream(
        model,
        policy=eventful.parse(policy),
        method="forward_features",
        normalize=True,
        check=False,
    )
    found = []
    images = (frame[None] for frame in frames)
    for number, output in enumerate(stream.run(images, lookahead=lookahead)):
        exact = stream.stats.rows[0].kind == "dense"
        grid = output[0, 1:].view_as(tokens[0])
        found.append(Errors(0.0, 0.0) if exact else errors(grid, tokens, number))
    return {
        "policy": policy,
        "lookahead": lookahead,
        "error": mean(found)._asdict(),
        "estimate": stream.stats.estimate,
        "operations": 1 / stream.stats.ratio,
        "kinds": dict(stream.stats.kinds),
    }


def measure(clip: str, size: int, folder: Path, root: Path) -> dict[str, Any]:
    """Everything about a clip."""
    frames = frames_of(clip, root, size)
    model = saliency_vit(tuple(frames.shape[2:])).backbone
    tokens = dense(model, frames, folder / "dense" / f"{clip}-{size}.pt")
    eventful.convert(model)
    wanted = [(policy, wait) for policy in POLICIES for wait in (0, LOOKAHEAD)]
    wanted += [(WAITING, wait) for wait in WAITS]
    rows = [run(model, frames, tokens, *each) for each in wanted]
    return {"clip": clip, "size": size, "frames": len(frames), "runs": rows}


def of(row: dict[str, Any], policy: str, lookahead: int) -> dict[str, Any]:
    """A clip's run."""
    (found,) = (
        one for one in row["runs"] if (one["policy"], one["lookahead"]) == (policy, lookahead)
    )
    return found


def over(rows: Sequence[dict[str, Any]], policy: str, lookahead: int) -> str:
    """Error with lookahead over that without: of all patches, of those that move."""
    ratios = [
        [of(row, policy, lookahead)["error"][k] / of(row, policy, 0)["error"][k] for row in rows]
        for k in Errors._fields
    ]
    return " / ".join(f"{geometric_mean(each):.2f}" for each in ratios)


def tables(result: dict[str, Any]) -> dict[str, filling.Lines]:
    """The tables of the page."""
    rows = result["rows"]
    clips = [["clip", *(f"`{policy}`" for policy in POLICIES)]]
    groups = [["clips", *(f"`{policy}`" for policy in POLICIES)]]
    waits = [["clips", *map(str, (*sorted({*WAITS, LOOKAHEAD}),))]]
    held = [["clips", "causal: error, operations", "with lookahead: error, operations"]]
    for row in rows:
        own = [_both(row, policy) for policy in POLICIES]
        clips.append([row["clip"] + ("" if row["clip"] in CHOSEN_ON else " *"), *own])
    for name, is_of in GROUPS.items():
        some = [row for row in rows if is_of(row["clip"])]
        if some:
            groups.append([name, *(over(some, policy, LOOKAHEAD) for policy in POLICIES)])
            waits.append([name, *(over(some, WAITING, int(wait)) for wait in waits[0][1:])])
            held.append([name, *(_held(some, wait) for wait in (0, LOOKAHEAD))])
    return {"clips": clips, "groups": groups, "waits": waits, "held": held}


def _both(row: dict[str, Any], policy: str) -> str:
    before, after = (of(row, policy, wait)["error"]["all"] for wait in (0, LOOKAHEAD))
    return f"{before:.3f}, {after:.3f}"


def _held(rows: Sequence[dict[str, Any]], lookahead: int) -> str:
    found = [of(row, "error:0.15", lookahead) for row in rows]
    error, cost = fmean(f["error"]["all"] for f in found), fmean(f["operations"] for f in found)
    return f"{error:.3f}, {cost:.2f}"


def main(given: Sequence[str] | None = None) -> None:
    """Do as asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[392])
    parser.add_argument("--clips", nargs="+", help="[all]")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="another file, for a trial; fills no table")
    parser.add_argument("--draw", action="store_true", help="write what is done, run nothing")
    arguments = parser.parse_args(given)
    done = arguments.work / "lookahead"
    if not arguments.draw:
        torch.set_num_threads(arguments.threads)
        if "EVENTFUL_DATA" not in os.environ:
            sys.exit("EVENTFUL_DATA is not set: the folder of davis2016/, cdnet2014/, vtest/, mot/")
        root = Path(os.environ["EVENTFUL_DATA"])
        clips = arguments.clips or [*sorted(p.name for p in (root / DAVIS).iterdir()), *CLIPS]
        for size, clip in itertools.product(arguments.sizes, clips):
            path = done / f"{clip}-{size}.json"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(measure(clip, size, arguments.work, root), path)
            row = json.loads(path.read_text())
            print(f"{size} {clip}: {over([row], POLICIES[0], LOOKAHEAD)}", flush=True)
    rows = [json.loads(path.read_text()) for path in sorted(done.glob("*.json"))]
    result = {"machine": machine(), "commit": commit(), "rows": rows}
    write_json(result, arguments.out or RESULT)
    if arguments.out is None:
        filling.fill(PAGE, "lookahead", tables(result))


if __name__ == "__main__":
    main()
