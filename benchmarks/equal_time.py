"""`Auto` beside frame skipping and carrying at equal time, and the error that it holds.

    EVENTFUL_DATA=... python benchmarks/equal_time.py WORK [--sizes 518 392 224] [--clips ...]
    EVENTFUL_DATA=... python benchmarks/equal_time.py WORK --decoder ...
    python benchmarks/equal_time.py WORK --draw

WORK keeps the dense tokens and what is done, so that the same command goes on where it was ended.
Writes benchmarks/results/equal_time.json and the tables of docs/results.md and README.md.

For each clip and size (long side in pixels), the demo's ViT-S/14:

- `skip:K` and `carry:K`, K = 2 to 10, phases averaged: error from one dense pass, time from the
  costs of a dense, a carried and a held frame, which are measured once for each shape of frame, two
  threads, medians. Their lower convex hull is what there is to beat: over time, which is what any
  mix of them reaches, and over the logarithm of time, which lies below that where errors saturate.
- `time:F` at the times of the hull at K = 3, 5 and 8, and its error over the hull's at the time it
  took: over all patches, over the tenth of the patches whose dense tokens changed most over five
  frames, and the geometric mean of both.
- `error:0.15`: mean error of the frames after the 25th, and of all; operations and time.

Errors are relative ones of the final-normed patch tokens, dense frames with 0.

With --decoder the costs are those of the whole model: its saliency decoder runs on all frames but
those that are held, and takes a good part of a dense frame's time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import filling
import torch
from torch import Tensor

import eventful
from eventful.models import demo_clip, saliency_vit
from eventful.motion import Flow, Picture, View, carry
from eventful.policies import Auto
from eventful.provenance import commit, machine, write_json
from eventful.stream.costs import Costs
from eventful.video import Reader

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "equal_time.json"
PAGES = ROOT / "docs" / "results.md", ROOT / "README.md"
DAVIS = "davis2016/JPEGImages/480p"
CLIPS = ("highway", "vtest", "campus", "demo")  # and those of DAVIS
GROUPS = {  # of the README's table; DAVIS is all that is in no other
    "still camera (highway, vtest, TUD-Campus)": ("highway", "vtest", "campus"),
    "DAVIS, mostly moving cameras": (),
    "demo clip, cuts and fast cameras": ("demo",),
}
STARTS = {"highway": 470}  # of longer clips
MOST = 120  # frames of a clip
EVERY = range(2, 11)  # K
AT = 3, 5, 8  # K, at whose times `Auto` runs
ERROR = 0.15
SETTLED = 25  # frames, before which an error is not yet held


CostsOf = Callable[[Any, Tensor], Costs]


class Errors(NamedTuple):
    """Relative errors over all patches and over those that move."""

    all: float
    moving: float


def frames_of(clip: str, root: Path, size: int, most: int = MOST) -> Tensor:
    """The frames of a clip, (frames, 3, height, width) in [0, 1]."""
    paths = {
        "highway": root / "cdnet2014/highway/input",
        "vtest": root / "vtest/vtest.avi",
        "campus": root / "mot/TUD-Campus.mp4",
    }
    path = demo_clip() if clip == "demo" else paths.get(clip, root / DAVIS / clip)
    start = STARTS.get(clip, 0)
    frames = Reader(path, size=size, keep_aspect=True)
    found = [frame.image for frame in itertools.islice(frames, start, start + most)]
    return torch.cat(found or [frame.image for frame in itertools.islice(frames, most)])


def moving(tokens: Tensor, frame: int) -> Tensor:
    """The tenth of the patches whose tokens changed most over five frames."""
    change = (tokens[frame] - tokens[max(0, frame - 5)]).square().sum(-1).flatten()
    return change.topk(max(1, len(change) // 10)).indices


def errors(found: Tensor, tokens: Tensor, frame: int) -> Errors:
    """Relative errors of tokens (grid height, grid width, dim) on a frame."""
    off = (found - tokens[frame]).square().sum(-1).flatten()
    size = tokens[frame].square().sum(-1).flatten()
    some = moving(tokens, frame)
    return Errors(
        (off.sum() / size.sum()).sqrt().item(), (off[some].sum() / size[some].sum()).sqrt().item()
    )


def mean(found: Sequence[Errors]) -> Errors:
    """Means of both."""
    return Errors(fmean(e.all for e in found), fmean(e.moving for e in found))


def dense(model: Any, frames: Tensor, path: Path) -> Tensor:
    """Final-normed patch tokens (frames, grid height, grid width, dim), kept in a file."""
    if not path.exists():
        mean, std = eventful.stream.inputs.normalization(model)
        with torch.inference_mode():
            found = [model.forward_features((x[None] - mean) / std)[0, 1:] for x in frames]
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch.stack(found).unflatten(1, model.patch_embed.grid_size).half(), path)
    return torch.load(path).float()


def by_age(frames: Tensor, tokens: Tensor) -> dict[str, list[Errors]]:
    """Mean errors of what is held and of what is carried, for each age from 1 on."""
    grid, flow, most = (tokens.shape[1], tokens.shape[2]), Flow(), max(EVERY) - 1
    found: dict[str, list[list[Errors]]] = {k: [[] for _ in range(most)] for k in ("skip", "carry")}
    pictures = Picture.each(flow.smaller(frames))
    for start in range(len(frames) - 1):
        view = View.of(flow, grid, pictures[start])
        for age in range(1, min(most, len(frames) - 1 - start) + 1):
            look = view.look(pictures[start + age])
            view.saw(pictures[start + age], look)
            moved = carry(tokens[start : start + 1], look.motion)[0]
            found["skip"][age - 1].append(errors(tokens[start], tokens, start + age))
            found["carry"][age - 1].append(errors(moved, tokens, start + age))
    return {name: [mean(some) for some in ages if some] for name, ages in found.items()}


def points(ages: dict[str, list[Errors]], costs: Costs) -> list[tuple[float, Errors, str]]:
    """Time (over a dense frame's) and errors of `skip:K` and `carry:K`."""
    found = []
    for name, each in (("skip", costs.held), ("carry", costs.carried)):
        for every in EVERY:
            some = [Errors(0.0, 0.0), *ages[name][: every - 1]]
            if len(some) == every:
                time = (1 + (every - 1) * each / costs.dense) / every
                found.append((time, mean(some), f"{name}:{every}"))
    return found


def hull(
    found: Sequence[tuple[float, float]], scale: Callable[[float], float] = math.log
) -> Callable[[float], float]:
    """The lower convex hull of errors over scaled time; beyond its ends, as its last pieces go."""
    corners: list[tuple[float, float]] = []
    for x, y in sorted((scale(time), error) for time, error in found):
        while len(corners) > 1 and _turns_up(*corners[-2:], (x, y)):
            corners.pop()
        corners.append((x, y))

    def at(time: float) -> float:
        x = scale(time)
        pairs = list(itertools.pairwise(corners))
        (x0, y0), (x1, y1) = next((p for p in pairs if x <= p[1][0]), pairs[-1])
        return max(1e-9, y0 + (y1 - y0) * (x - x0) / (x1 - x0))

    return at


def _turns_up(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


def run(model: Any, frames: Tensor, tokens: Tensor, policy: Auto, costs: Costs) -> dict[str, Any]:
    """Run a policy over a clip."""
    stream = eventful.Stream(
        model, policy=policy, method="forward_features", normalize=True, costs=costs, check=False
    )
    found, time, seconds = [], 0.0, []
    for number, frame in enumerate(frames):
        output = stream(frame[None])[0, 1:].view_as(tokens[0])
        (row,) = stream.stats.rows
        kinds = {"dense": costs.dense, "held": costs.held, "carried": costs.carried}
        time += kinds[row.kind] if row.kind in kinds else costs.of(row.tokens - 1)
        seconds.append(stream.stats.seconds)
        exact = row.kind == "dense"
        found.append(Errors(0.0, 0.0) if exact else errors(output, tokens, number))
    settled = found[SETTLED:]
    return {
        "time": time / len(frames) / costs.dense,
        "operations": 1 / stream.stats.ratio,
        "error": mean(found)._asdict(),
        "settled": mean(settled).all if settled else None,
        "worst": max(e.all for e in found),
        "estimate": stream.stats.estimate,
        "kinds": dict(stream.stats.kinds),
    }


def measure(
    clip: str, size: int, folder: Path, root: Path, costs_of: CostsOf, decoder: bool
) -> dict[str, Any]:
    """Everything about a clip at a size."""
    frames = frames_of(clip, root, size)
    whole = saliency_vit(tuple(frames.shape[2:]))
    model = whole.backbone
    tokens = dense(model, frames, folder / "dense" / f"{clip}-{size}.pt")
    eventful.convert(model)
    costs = costs_of(whole if decoder else model, frames)
    found = points(by_age(frames, tokens), costs)
    curves = [[(t, getattr(e, kind)) for t, e, _ in found] for kind in Errors._fields]
    best = {"over": [*map(hull, curves)], "over_mix": [hull(curve, float) for curve in curves]}
    rows = []
    for every in AT:
        (share,) = (t for t, _, name in found if name == f"carry:{every}")
        auto = run(model, frames, tokens, Auto(time=share), costs)
        auto["asked"] = share
        for name, hulls in best.items():
            least = [at(auto["time"]) for at in hulls]
            over = [error / e for error, e in zip(auto["error"].values(), least, strict=True)]
            auto[name] = [*over, math.sqrt(over[0] * over[1])]
        rows.append(auto)
    return {
        "clip": clip,
        "size": size,
        "frames": len(frames),
        "costs": costs.to_dict(),
        "plain": {name: [t, *e] for t, e, name in found},
        "time": rows,
        **{name: math.exp(fmean(math.log(row[name][2]) for row in rows)) for name in best},
        "held": run(model, frames, tokens, Auto(max_error=ERROR), costs),
    }


def costs_in(folder: Path) -> CostsOf:
    """Gives the costs of a model on a shape of frame: measured once, kept in a file."""

    def costs_of(model: Any, frames: Tensor) -> Costs:
        method = "forward_features" if hasattr(model, "forward_features") else "forward"
        path = folder / "costs-{}-{}x{}.json".format(method, *frames.shape[2:])
        if not path.exists():
            stream = eventful.Stream(model, method=method, normalize=True)
            stream(frames[:1])
            assert stream.costs is not None
            write_json(stream.costs.to_dict(), path)
        return Costs(**json.loads(path.read_text()))

    return costs_of


def tables(result: dict[str, Any]) -> dict[str, filling.Lines]:
    """The tables of the page."""
    rows = result["rows"]
    decoder = [["clip", "size", "carried frame", "at equal time"]]
    for row in result["decoder"]:
        carried = row["costs"]["carried"] / row["costs"]["dense"]
        decoder.append([row["clip"], f"{row['size']} px", f"{carried:.2f}", _over(row)])
    sizes = sorted({row["size"] for row in rows}, reverse=True)
    by = {(row["clip"], row["size"]): row for row in rows}
    over = [["clip", *(f"{size} px" for size in sizes)]]
    held = [["clip", *(f"{size} px: error, operations, time" for size in sizes)]]
    for clip in dict.fromkeys(row["clip"] for row in rows):
        found = [by.get((clip, size)) for size in sizes]
        over.append([clip, *("" if row is None else _over(row) for row in found)])
        held.append([clip, *("" if row is None else _kept(row["held"]) for row in found)])
    means = [
        {k: fmean(row[k] for row in rows if row["size"] == size) for k in ("over_mix", "over")}
        for size in sizes
    ]
    over.append(["mean", *map(_over, means)])
    return {"over": over, "held": held, "summary": summary(rows, sizes), "decoder": decoder}


def summary(rows: Sequence[dict[str, Any]], sizes: Sequence[int]) -> filling.Lines:
    """The README's table: means over groups of clips."""
    lines = [["long side", "clips", "error", "operations", "time", "at equal time"]]
    for size, (group, clips) in itertools.product(sizes, GROUPS.items()):
        found = [row for row in rows if row["size"] == size and _is_of(row["clip"], clips)]
        if found:
            held = [row["held"] for row in found]
            error = fmean(map(_error, held))
            costs = [fmean(row[name] for row in held) for name in ("operations", "time")]
            over = fmean(row["over_mix"] for row in found)
            figures = [f"{error:.3f}", *(f"{cost:.2f}" for cost in costs), f"{over:.2f}"]
            lines.append([f"{size} px", group, *figures])
    return lines


def _is_of(clip: str, clips: Sequence[str]) -> bool:
    return clip in clips if clips else clip not in CLIPS


def _error(row: dict[str, Any]) -> float:
    return row["error"]["all"] if row["settled"] is None else row["settled"]


def _over(row: dict[str, Any]) -> str:
    return f"{row['over_mix']:.2f} ({row['over']:.2f})"


def _kept(row: dict[str, Any]) -> str:
    return f"{_error(row):.3f}, {row['operations']:.2f}, {row['time']:.2f}"


def main(given: Sequence[str] | None = None) -> None:
    """Do as asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[518, 392, 224])
    parser.add_argument("--clips", nargs="+", help="[all]")
    parser.add_argument("--decoder", action="store_true", help="the whole model's costs")
    parser.add_argument("--out", type=Path, help="another file, for a trial; fills no table")
    parser.add_argument("--draw", action="store_true", help="write what is done, run nothing")
    arguments = parser.parse_args(given)
    work = arguments.work
    done = {name: work / name for name in ("rows", "decoder")}
    if not arguments.draw:
        if "EVENTFUL_DATA" not in os.environ:
            sys.exit("EVENTFUL_DATA is not set: the folder of davis2016/, cdnet2014/, vtest/, mot/")
        root = Path(os.environ["EVENTFUL_DATA"])
        clips = arguments.clips or [*sorted(p.name for p in (root / DAVIS).iterdir()), *CLIPS]
        for size, clip in itertools.product(arguments.sizes, clips):
            path = done["decoder" if arguments.decoder else "rows"] / f"{clip}-{size}.json"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                found = measure(clip, size, work, root, costs_in(work), arguments.decoder)
                write_json(found, path)
            row = json.loads(path.read_text())
            print(f"{size} {clip}: {row['over']:.3f}, {row['held']['settled']}", flush=True)
    rows = {
        name: [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        for name, folder in done.items()
    }
    result = {"machine": machine(), "commit": commit(), **rows}
    write_json(result, arguments.out or RESULT)
    if arguments.out is None:
        for page in PAGES:
            filling.fill(page, "equal-time", tables(result))


if __name__ == "__main__":
    main()
