"""Redundancy and cost against frame rate, resolution, camera motion and compression.

    EVENTFUL_DATA=... python benchmarks/study.py [--cells N] [--out FILE]
    python benchmarks/study.py --draw

runs the demo's backbone over 13 clips (11 DAVIS sequences, CDnet's highway, vtest) and writes
benchmarks/results/study.json, docs/images/study.svg and the tables of docs/study.md. A cell is one
clip under one condition; it is written when it is done, and a call that was ended goes on with the
next. It runs over the FRAMES middle frames of the clip, scene cuts off, and has

- `changed`: share of the patches whose embedding moved by more than CHANGED of its norm, from one
  frame to the next;
- `held`: relative error of the final patch tokens if the output of the frame before is held;
- for `input` and, but for the largest size, `paper`, at each of FRACTIONS of the patches, the
  `cost`, as a share of the dense model's operations, and the relative `error` of the final patch
  tokens;
- `from_delivered`, where the frames are compressed: relative error of the dense model's final patch
  tokens against those on the frames as they were delivered.

All but the last are means over the frames behind the first. Compressed frames are encoded at their
own size with x264, a key frame every GOP frames, half-way in the window. `speed` is how fast the
image as a whole moves, in per cent of the long side a frame.
"""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

import av
import filling
import numpy as np
import study_report
import torch
from av.video.reformatter import VideoReformatter
from study_report import RESULT, SIZES, STEPS, Cell, cells
from torch import Tensor

import eventful
from eventful.block.gate import Measure
from eventful.block.options import Gating
from eventful.evaluation.measures.errors import relative_error
from eventful.models import saliency_vit
from eventful.motion import Flow, on_grid
from eventful.provenance import commit, machine, write_json
from eventful.video import Reader
from eventful.video.geometry import UPRIGHT, fitted, to_pixels

PATCH = 14
FRAMES = 12
GOP = 12
CHANGED = 0.2
FRACTIONS = (0.1, 0.2, 0.4, 0.7)
GATINGS: dict[Gating, Measure] = {"input": "relative", "paper": "error"}
DAVIS = "davis2016/JPEGImages/480p"
PATHS = {"highway": "cdnet2014/highway/input", "vtest": "vtest/vtest.avi"}


@lru_cache(maxsize=1)
def native(clip: str) -> list[np.ndarray]:
    """The middle frames of a clip at their own size, as many as the longest step needs."""
    path = Path(os.environ["EVENTFUL_DATA"]) / PATHS.get(clip, f"{DAVIS}/{clip}")
    with Reader(path) as reader:
        total = reader.frames or len(list(reader))
        begin = max(0, (total - FRAMES * STEPS[-1]) // 2)
        part = itertools.islice(reader, begin, begin + FRAMES * STEPS[-1])
        return [frame.pixels for frame in part]


def middle(frames: list[np.ndarray], step: int) -> list[np.ndarray]:
    """Every step-th frame of the middle, FRAMES of them where there are as many."""
    begin = max(0, (len(frames) - FRAMES * step) // 2)
    return frames[begin::step][:FRAMES]


def compressed(frames: list[np.ndarray], crf: int) -> list[np.ndarray]:
    """Encode frames with x264 and decode them again."""
    file = io.BytesIO()
    height, width = frames[0].shape[:2]
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(crf), "g": str(GOP), "keyint_min": str(GOP), "threads": "1"}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def images(cell: Cell) -> Tensor:
    """The frames of a cell, (frames, 3, height, width) in [0, 1]."""
    frames = native(cell.clip)
    if cell.crf is not None:
        # The window holds one key frame, half-way.
        begin = (len(frames) - FRAMES) // 2
        frames = compressed(frames[begin - GOP // 2 : begin + FRAMES], cell.crf)[GOP // 2 :]
    chosen = middle(frames, cell.step)
    height, width = chosen[0].shape[:2]
    width, height = fitted(width, height, cell.size, keep_aspect=True, patch=PATCH)
    reformatter = VideoReformatter()
    small = [
        to_pixels(av.VideoFrame.from_ndarray(p, "rgb24"), reformatter, UPRIGHT, width, height)
        for p in chosen
    ]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255


@cache
def backbone(size: tuple[int, int]) -> Any:
    """The demo's backbone for a size of frames."""
    return saliency_vit(size).backbone


@torch.inference_mode()
def measure(cell: Cell) -> dict[str, Any]:
    """Measure a cell."""
    normed, embedded, dense = looked_at(cell)
    change = (embedded[1:] - embedded[:-1]).norm(dim=2) / embedded[:-1].norm(dim=2)
    found: dict[str, Any] = {
        "frames": len(normed),
        "changed": (change > CHANGED).float().mean().item(),
        "held": fmean(relative_error(b, a) for a, b in itertools.pairwise(dense)),
    }
    if cell.crf is not None:
        delivered = looked_at(cell._replace(crf=None))[2]
        found["from_delivered"] = relative_error(dense, delivered)
    for gating in GATINGS if cell.size < SIZES[-1] else ("input",):
        costs, errors = zip(*(gated(normed, dense, gating, f) for f in FRACTIONS), strict=True)
        found[gating] = {"cost": costs, "error": errors}
    return rounded(found)


def looked_at(cell: Cell) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised frames of a cell, their embeddings, and their patch tokens."""
    frames = images(cell)
    model = backbone((frames.shape[2], frames.shape[3]))
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    normed = (frames - mean) / std
    embedded = torch.cat([model.patch_embed(frame[None]) for frame in normed])
    dense = torch.cat([model.forward_features(frame[None]) for frame in normed])
    return normed, embedded, dense[:, model.num_prefix_tokens :]


def gated(frames: Tensor, dense: Tensor, gating: Gating, fraction: float) -> tuple[float, float]:
    """Run a gating at a fraction of the patches: its cost and its error."""
    model = backbone((frames.shape[2], frames.shape[3]))
    eventful.convert(model, eventful.TopFraction(fraction), gating=gating, measure=GATINGS[gating])
    stream = eventful.Stream(model, scene_cuts=None, method="forward_features")
    errors, costs = [], []
    for frame, wanted in zip(frames, dense, strict=True):
        tokens = stream(frame[None])[0, model.num_prefix_tokens :]
        errors.append(relative_error(tokens, wanted))
        costs.append(stream.stats.operations.total / stream.stats.dense_operations.total)
    eventful.restore(model)
    return fmean(costs[1:]), fmean(errors[1:])


def speed(clip: str) -> float:
    """How fast the image as a whole moves: per cent of the long side a frame.

    The median over the patches, so that what moves on its own does not count, and the mean over
    the pairs of frames that follow each other.
    """
    frames = images(Cell(clip, size=SIZES[-1]))
    grid = frames.shape[2] // PATCH, frames.shape[3] // PATCH
    flow = Flow()
    grey = flow.grey(flow.smaller(frames)).split(1)
    motions = (on_grid(flow.between(a, b), grid) for a, b in itertools.pairwise(grey))
    pairs = (motion.norm(dim=-1).median() for motion in motions)
    return rounded(100 * fmean(pair.item() for pair in pairs) / max(grid))


def rounded(value: Any) -> Any:
    """A figure, or all those of a list or by name, to five digits behind the point."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return round(value, 5) if isinstance(value, int | float) else [rounded(one) for one in value]


def about(known: dict[str, Any]) -> dict[str, Any]:
    """What the figures were measured on."""
    commits = {*known.get("commits", []), str(commit())}
    return {
        "fractions": FRACTIONS,
        "changed": CHANGED,
        "gop": GOP,
        "commits": sorted(commits),
        "machine": machine(),
    }


def run(most: int | None, result: Path) -> int:
    """Measure the cells that are not in the result yet, so many at most; return how many remain."""
    content = json.loads(result.read_text()) if result.exists() else {"speed": {}, "cells": {}}
    left = [cell for cell in cells() if str(cell) not in content["cells"]]
    chosen = left[:most]
    for cell in chosen:
        content["cells"][str(cell)] = measure(cell)
        if cell.clip not in content["speed"]:
            content["speed"][cell.clip] = speed(cell.clip)
        content |= about(content)
        write_json(content, result)
    return len(left) - len(chosen)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, draw, and fill the tables in."""
    parser = filling.parser(__doc__)
    parser.add_argument("--cells", type=int, help="measure so many more cells at most")
    parser.add_argument("--out", type=Path, help="another file, for a trial; draws nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not options.draw and (left := run(options.cells, options.out or RESULT)):
        print(f"{left} cells are left to measure; the figure and the tables wait for them")
        return
    if options.out is None:
        study_report.write(json.loads(RESULT.read_text()))


if __name__ == "__main__":
    main()
