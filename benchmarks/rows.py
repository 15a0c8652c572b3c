"""Eight videos as rows of one stream beside eight streams in turn: the same output, and the time.

    EVENTFUL_DATA=... python benchmarks/rows.py [--size 392] [--frames 24] [--out FILE]

Writes benchmarks/results/rows.json. Eight sequences of DAVIS, each with a schedule of its own under
`auto:0.2`, the demo's ViT-S/14. Both ways run every frame, one after the other in turns; the ratio
of times is the median over frames, first frames left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import eventful
from eventful.models import saliency_vit
from eventful.provenance import commit, machine, write_json
from eventful.video import Reader

RESULT = Path(__file__).parent / "results" / "rows.json"
DAVIS = "davis2016/JPEGImages/480p"
ROWS = 8
POLICY = eventful.Auto(share=0.2)


def clips(root: Path, size: int, frames: int) -> list[Tensor]:
    """For each frame, (rows, 3, height, width) of all videos."""
    found = []
    for path in sorted((root / DAVIS).iterdir())[:ROWS]:
        reader = Reader(path, size=size, keep_aspect=True)
        found.append([frame.image for frame in islice(reader, frames)])
    return [torch.cat(rows) for rows in zip(*found, strict=False)]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What was made, and the seconds that it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def main(given: Sequence[str] | None = None) -> None:
    """Do as asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=392)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args(given)
    if "EVENTFUL_DATA" not in os.environ:
        sys.exit("EVENTFUL_DATA is not set: the folder of davis2016/")
    frames = clips(Path(os.environ["EVENTFUL_DATA"]), arguments.size, arguments.frames)
    model = saliency_vit(tuple(frames[0].shape[2:])).backbone
    eventful.convert(model, POLICY)

    def stream() -> eventful.Stream:
        return eventful.Stream(model, method="forward_features", normalize=True)

    together, alone = stream(), [stream() for _ in frames[0]]
    ratios, off = [], 0.0
    for frame in frames:
        one, took = timed(lambda f=frame: together(f))
        rows = enumerate(frame.split(1))
        each, in_turn = timed(lambda r=rows: torch.cat([alone[i](f) for i, f in r]))
        off = max(off, ((one - each).norm() / each.norm()).item())
        ratios.append(took / in_turn)
    result = {
        "machine": machine(),
        "commit": commit(),
        "size": arguments.size,
        "frames": len(frames),
        "rows": len(alone),
        "policy": str(POLICY),
        "time_over_in_turn": median(ratios[1:]),
        "largest_relative_difference": off,
        "kinds": dict(together.stats.kinds),
    }
    write_json(result, arguments.out)


if __name__ == "__main__":
    main()
