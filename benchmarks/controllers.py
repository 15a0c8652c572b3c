"""What a stream holds that is told an error or a time, against the dense model on every frame.

    EVENTFUL_DATA=... python benchmarks/controllers.py error
    EVENTFUL_DATA=... python benchmarks/controllers.py counted   # times by a clock of operations
    EVENTFUL_DATA=... python benchmarks/controllers.py latency   # real times
    python benchmarks/controllers.py table                       # what docs/targets.md shows

runs the demo's backbone over two clips and writes benchmarks/results/controllers.json row by row,
in place of the rows of the same cases. The clips:

- `cuts`: the demo clip, 250 frames, hard cuts at 30, 76, 137, 187 and 242, moving cameras.
- `still to busy`: one frame of CDnet's highway 70 times, the 100 frames that follow it there, and
  behind a cut frames 76 to 136 of the demo clip, stretched to the same size.

Windows are any 50 frames in a row of those that are not flushes. A target is held where their mean
is within 10 % of it. A window is free if the budget could have gone further on every frame of it;
others may well lie below the target. Errors are relative, of all final-normed tokens.
"""

import argparse
import copy
import itertools
import json
import os
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filling import Lines, markdown
from torch import Tensor, nn
from torch.nn import functional as F

import eventful
import eventful.stream
from eventful.models import demo_clip, saliency_vit
from eventful.provenance import commit, machine, write_json
from eventful.video import Reader

RESULT = Path(__file__).parent / "results" / "controllers.json"
SIZES = {"cuts": (84, 196), "still to busy": (112, 154)}
WINDOW = 50
CASES = (  # gating, target, frames from check to check
    ("paper", 0.1, 10),
    ("hold", 0.1, 10),
    ("input", 0.1, 10),
    ("paper", 0.1, 5),
    ("paper", 0.05, 10),
    ("paper", 0.2, 10),
)
TIMES = (0.35, 0.6)  # of a dense frame


def frames(path: Path, size: tuple[int, int], start: int = 0, stop: int | None = None):
    """Frames of a video, stretched to a size."""
    with Reader(path, size[1], keep_aspect=True, patch=14) as reader:
        for frame in itertools.islice(reader, start, stop):
            yield F.interpolate(frame.image, size, mode="bilinear", antialias=True)


def highway(size: tuple[int, int], first: int, count: int) -> Iterator[Tensor]:
    """Frames of CDnet's highway, by number."""
    folder = Path(os.environ["EVENTFUL_DATA"]) / "cdnet2014" / "highway" / "input"
    for number in range(first, first + count):
        yield from frames(folder / f"in{number:06}.jpg", size)


@cache
def clip(name: str) -> list[Tensor]:
    """The frames of a clip, (1, 3, height, width) in [0, 1]."""
    size = SIZES[name]
    if name == "cuts":
        return list(frames(demo_clip(), size))
    still = list(highway(size, 700, 1))
    busy = highway(size, 701, 100)
    return [*still * 70, *busy, *frames(demo_clip(), size, 76, 137)]


@cache
def exact(name: str) -> list[Tensor]:
    """What the dense model gives for the frames of a clip."""
    _, dense = models(name, "paper")
    return [tokens(dense, frame) for frame in clip(name)]


def windows(values: list[float], target: float, bound: list[bool]) -> dict[str, Any]:
    """Judge the means over any 50 values in a row.

    Args:
        values: One a frame.
        target: What their means are divided by.
        bound: Whether the budget could not go further on the frame.
    """
    starts = range(max(1, len(values) - WINDOW + 1))
    means = [sum(part) / len(part) / target for part in (values[i : i + WINDOW] for i in starts)]
    free = [mean for i, mean in zip(starts, means, strict=True) if not any(bound[i : i + WINDOW])]
    return {
        "frames": len(values),
        "mean": sum(values) / len(values) / target,
        "largest_window": max(means),
        "smallest_window": min(means),
        "smallest_free_window": min(free, default=None),
        "windows": len(means),
        "windows_above": sum(mean > 1.1 for mean in means) / len(means),
        "free_windows_below": sum(mean < 0.9 for mean in free) / len(means),
    }


def models(name: str, gating: str) -> tuple[nn.Module, nn.Module]:
    """The backbone, converted, and one that stays dense."""
    backbone = saliency_vit(SIZES[name]).backbone
    dense = copy.deepcopy(backbone)
    return eventful.convert(backbone, eventful.TopFraction(0.25), gating=gating), dense


def stream_of(name: str, gating: str = "paper", **targets: Any) -> eventful.Stream:
    """A stream over a clip."""
    model, _ = models(name, gating)
    return eventful.Stream(model, normalize=True, method="forward_features", **targets)


def tokens(model: nn.Module, frame: Tensor) -> Tensor:
    """All final-normed tokens of the dense model."""
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        return model.forward_features((frame - mean) / std)


def flushed(stream: eventful.Stream) -> dict[str, list[int]]:
    """The frames that were flushed, by reason."""
    frames: dict[str, list[int]] = {}
    for flush in stream.stats.flushes:
        frames.setdefault(flush.reason, []).append(flush.frame)
    return frames


def is_flush(stream: eventful.Stream) -> bool:
    """Whether the last frame was one."""
    return stream.stats.flushes[-1].frame == stream.stats.frames - 1


def error_row(name: str, gating: str, target: float, every: int) -> dict[str, Any]:
    """Hold an error over a clip."""
    stream = stream_of(name, gating, max_error=target, check_every=every)
    errors, bound = [], []
    for frame, true in zip(clip(name), exact(name), strict=True):
        y = stream(frame)
        if not is_flush(stream):
            errors.append(((y - true).norm() / true.norm()).item())
            assert stream.stats.error is not None
            bound.append(stream.stats.error.limit == "least")
    held = stream.stats.error
    assert held is not None
    return {
        "clip": name,
        "gating": gating,
        "target": target,
        "check_every": every,
        **windows(errors, target, bound),
        "at_least_budget": sum(bound) / len(bound),
        "reported_mean": held.mean,
        "reported_estimate": held.estimate,
        "met": held.met,
        "share_checked": held.share,
        "operations_of_dense": 1 / stream.stats.ratio,
        "checks_operations_of_dense": held.operations / stream.stats.total_dense_operations,
        "flushes": flushed(stream),
    }


def time_row(
    stream: eventful.Stream, name: str, target: float, beside: eventful.Stream | None = None
) -> dict[str, Any]:
    """Hold a time, in milliseconds, over a clip; another stream may run frame by frame beside."""
    times, limits, alone = [], [], []
    for frame in clip(name):
        stream(frame)
        if beside is not None:
            beside(frame)
        if not is_flush(stream):
            held = stream.stats.latency
            assert held is not None
            times.append(held.last)
            limits.append(held.limit)
        if beside is not None and not is_flush(beside):
            alone.append(1e3 * beside.stats.seconds)
    own = windows(alone, sum(alone) / len(alone), [False] * len(alone)) if alone else {}
    return {
        "clip": name,
        "target_ms": target,
        **windows(times, target, [limit == "most" for limit in limits]),
        "at_least_budget": limits.count("least") / len(limits),
        "at_most_budget": limits.count("most") / len(limits),
        "flushes": flushed(stream),
        **{f"fixed_{key}": own[key] for key in own if key in ("largest_window", "smallest_window")},
    }


def counted_row(name: str, share: float, **targets: Any) -> dict[str, Any]:
    """Hold a time by a clock on which every billion multiply-accumulates takes a millisecond."""
    first = stream_of(name)
    first(clip(name)[0])
    target = share * first.stats.dense_operations.total / 1e9
    stream = stream_of(name, latency_ms=target, **targets)
    eventful.stream._clock = lambda: stream.stats.total_operations / 1e12
    try:
        row = time_row(stream, name, target)
    finally:
        eventful.stream._clock = time.perf_counter
    error = stream.stats.error
    return row | {"of_dense": share} | targets | {"error_mean": error.mean if error else None}


def latency_row(name: str, share: float) -> dict[str, Any]:
    """Hold a real time; a stream of a fixed budget beside it shows how times move by themselves."""
    _, model = models(name, "paper")
    frame, times = clip(name)[0], []
    for _ in range(12):
        start = time.perf_counter()
        tokens(model, frame)
        times.append(time.perf_counter() - start)
    dense = 1e3 * sorted(times)[len(times) // 2]
    stream = stream_of(name, latency_ms=share * dense)
    row = time_row(stream, name, share * dense, beside=stream_of(name))
    return row | {"of_dense": share, "dense_ms": dense}


def write(part: str, row: dict[str, Any]) -> None:
    """Write a row beside the others, in place of one of the same case."""
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    rows = [old for old in result.get(part, []) if case_of(old) != case_of(row)]
    result[part] = [*rows, row | {"commit": commit(), "machine": machine()}]
    write_json(result, RESULT)


def case_of(row: dict[str, Any]) -> list[Any]:
    """What tells a row from others."""
    names = ("clip", "gating", "target", "check_every", "of_dense", "max_error")
    return [row.get(name) for name in names]


def percent(value: float | None) -> str:
    """Write a share in whole percents."""
    return "-" if value is None else f"{100 * value:.0f} %"


def tables() -> list[Lines]:
    """The figures: a table of the errors held, and one of the times."""
    result = json.loads(RESULT.read_text())
    errors = ["mean", "largest window", "smallest free window", "windows above 110 %"]
    costs = ["checked frames", "operations of dense"]
    error = [["clip", "gating", "target", "a check every", *errors, *costs]]
    for row in result.get("error", []):
        figures = ("mean", "largest_window", "smallest_free_window", "windows_above")
        cells = [row["clip"], row["gating"], f"{row['target']:g}", str(row["check_every"])]
        cells += [percent(row[key]) for key in (*figures, "share_checked")]
        error.append([*cells, f"{row['operations_of_dense']:.2f}"])
    times = ["mean", "largest window", "smallest window", "at the least budget"]
    fixed = "windows of a fixed budget, over its mean"
    latency = [["clock", "clip", "target, of dense", *times, fixed]]
    for part in ("counted", "latency"):
        for row in result.get(part, []):
            both = f", with `max_error={row['max_error']}`" if "max_error" in row else ""
            own = [row[f"fixed_{k}_window"] for k in ("smallest", "largest") if "dense_ms" in row]
            cells = [part, row["clip"] + both, percent(row["of_dense"])]
            cells += [percent(row[k]) for k in ("mean", "largest_window", "smallest_window")]
            cells += [percent(row["at_least_budget"]), " to ".join(map(percent, own)) or "-"]
            latency.append(cells)
    return [error, latency]


def main() -> None:
    """Measure one part and write it beside the others, or print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("error", "counted", "latency", "table"))
    parser.add_argument("--clip", choices=sorted(SIZES), help="this one alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "table":
        print("\n\n".join(map(markdown, tables())))
        return
    names = [name for name in SIZES if options.clip in (None, name)]
    cases: list[tuple[Any, ...]]
    if options.part == "error":
        cases = [(error_row, {}, name, *case) for case in CASES for name in names]
    elif options.part == "counted":
        cases = [(counted_row, {}, name, share) for share in TIMES for name in names]
        cases += [(counted_row, {"max_error": 0.1}, name, 0.6) for name in names]
    else:
        cases = [(latency_row, {}, name, 0.6) for name in names]
    for measure, targets, *case in cases:
        row = measure(*case, **targets)
        print({key: value for key, value in row.items() if key != "flushes"}, flush=True)
        write(options.part, row)


if __name__ == "__main__":
    main()
