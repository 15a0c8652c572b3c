"""A thousand frames without a flush: memory, and incremental against full attention.

    EVENTFUL_DATA=... python benchmarks/long_run.py [--frames 1000] [--size 518] [--out FILE]

loops `vtest.avi` through the demo's backbone with scene cuts off and writes
benchmarks/results/long_run.json: the bytes of state and of the process on every hundredth frame,
and at the end, for every block, the relative error of the attention output that was kept up to
date against full attention over the same buffered q, k, v in float64.
"""

import argparse
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

import eventful
from eventful.attention import Dense
from eventful.models import saliency_vit
from eventful.provenance import machine
from eventful.video import Reader

RESULT = Path(__file__).parent / "results" / "long_run.json"
PATCH = 14


def looped(path: Path, size: int) -> Iterator[Tensor]:
    """Frames of a video, over and over."""
    while True:
        with Reader(path, size, keep_aspect=True, patch=PATCH) as reader:
            yield from (frame.image for frame in reader)


def resident_bytes() -> int:
    """Memory of this process, from the kernel's own account."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def attention_errors(stream: eventful.Stream) -> dict[str, dict[str, float]]:
    """Compare each block's kept output with full attention over its buffers."""
    errors = {}
    for name, block in stream._bound.blocks.items():
        state = block.binding.state
        qkv = state.buffers["qkv"].tokens.double()
        full, _ = Dense(block.heads, block.scale).start(qkv)
        kept = state.attention.tensors["output"].flatten(2).double()
        rows = (kept - full).norm(dim=-1) / full.norm(dim=-1)
        errors[name] = {
            "relative": ((kept - full).norm() / full.norm()).item(),
            "worst_row": rows.max().item(),
        }
    return errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--size", type=int, default=518)
    parser.add_argument("--policy", default="fraction:0.125")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    path = Path(os.environ["EVENTFUL_DATA"]) / "vtest" / "vtest.avi"
    with Reader(path, options.size, keep_aspect=True, patch=PATCH) as reader:
        shape = reader.height, reader.width
    model = saliency_vit(shape).backbone
    eventful.convert(model, eventful.policies.parse(options.policy))
    stream = eventful.Stream(model, normalize=True, scene_cuts=None, method="forward_features")
    memory, recomputed = [], []
    for i, frame in enumerate(itertools.islice(looped(path, options.size), options.frames)):
        stream(frame)
        if i:
            states = [block.binding.state for block in stream._bound.blocks.values()]
            recomputed.append([sum(state.attention.recomputed) for state in states])
        if i in (1, 2) or (i + 1) % 100 == 0:
            held = sum(t.nbytes for s in states for t in s.tensors().values())
            memory.append({"frame": i, "state": held, "process": resident_bytes()})
            print(memory[-1])
    errors = attention_errors(stream)
    mean_rows = [sum(rows) / len(rows) for rows in zip(*recomputed, strict=True)]
    updated = stream.stats.updated["blocks.0.qkv"][0]
    result = {
        "frames": options.frames,
        "size": shape,
        "policy": options.policy,
        "flushes": len(stream.stats.flushes),
        "operations_ratio": stream.stats.ratio,
        "memory": memory,
        "largest_relative_error": max(e["relative"] for e in errors.values()),
        "largest_row_error": max(e["worst_row"] for e in errors.values()),
        "errors": errors,
        "rows_updated": updated,
        "rows_recomputed_mean": dict(zip(stream._bound.blocks, mean_rows, strict=True)),
        "machine": machine(),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print({key: result[key] for key in ("largest_relative_error", "largest_row_error")})


if __name__ == "__main__":
    main()
