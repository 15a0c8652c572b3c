"""Rounding and approximation of the attention forms: the figures of docs/method.md, section 4.

    EVENTFUL_DATA=... python benchmarks/numerics.py [--frames 200] [--size 336] [--out FILE]

writes benchmarks/results/numerics.json:

- `chain`: one key holds 0.945 of a row's mass and is taken away on every frame, float32; error of
  that row without a guard, with a test of each update alone, and with the guard on the peak;
- `real`: the demo's backbone over frames of `vtest`, an eighth of the patches on each, with the
  same three guards and no rotation; worst block's relative error of the kept output, largest over
  the frames, and the share of rows recomputed because of the guard;
- `cached`: the paper's full form against full attention over the same buffers, on a small random
  model over 8 frames.

There are tokens enough for attention to be brought up to date; with few it is computed in full.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import timm
import torch

import eventful
from eventful.attention import AttentionState, Dense, Incremental
from eventful.models import saliency_vit
from eventful.ops import Index
from eventful.provenance import commit, machine, write_json
from eventful.video import Reader

RESULT = Path(__file__).parent / "results" / "numerics.json"
LEFT = 0.055  # share of its mass that the chain's row keeps on each frame


class Guard(NamedTuple):
    """A guard on the mass of rows; without a memory it tests each update alone."""

    share: float
    remembers: bool = True

    def prepare(self, state: AttentionState) -> None:
        """Forget the peak before an update, where it is not to be remembered."""
        if not self.remembers:
            state.tensors["peak"] = state.tensors["lse"].clone()


GUARDS = {"none": Guard(1e-30), "each update": Guard(0.05, remembers=False), "peak": Guard(0.05)}


def chain(guard: Guard, frames: int = 8, keys: int = 256, dim: int = 4) -> list[float]:
    """Error of the first row after each frame; key t + 1 weighs LEFT ** t and leaves on frame t."""
    torch.manual_seed(0)
    form = Incremental(1, 1.0, guard=guard.share, max_age=None)
    q = torch.zeros(1, keys, dim)
    q[0, 0, 0] = 1.0
    k = torch.zeros(1, keys, dim)
    k[0, 0, 0], k[0, 1:, 0] = -200.0, math.log(LEFT) * torch.arange(keys - 1)
    qkv = torch.cat([q, k, torch.randn(1, keys, dim)], dim=2)
    _, state = form.start(qkv)
    errors = []
    for frame in range(frames):
        leaving = Index.from_mask(torch.arange(keys)[None] == frame + 1)
        old = leaving.gather(qkv).clone()
        qkv[0, frame + 1, dim] = -200.0
        guard.prepare(state)
        output = form.update(state, qkv, old, leaving)
        full, _ = Dense(1, 1.0).start(qkv.double())
        errors.append(((output[0, 0] - full[0, 0]).norm() / full[0, 0].norm()).item())
    return errors


def real(guard: Guard, frames: int, size: int) -> dict[str, float]:
    """Run real weights on real video with one of the guards."""
    path = Path(os.environ["EVENTFUL_DATA"]) / "vtest" / "vtest.avi"
    model = saliency_vit(size).backbone
    eventful.convert(model, eventful.TopFraction(0.125), guard=guard.share, max_age=None)
    stream = eventful.Stream(model, normalize=True, scene_cuts=None, method="forward_features")
    blocks, worst, sent_back, rows = stream._bound.blocks.values(), 0.0, 0, 0
    for number, frame in enumerate(itertools.islice(Reader(path, size), frames)):
        for block in blocks if number else ():
            guard.prepare(block.binding.state.attention)
        stream(frame.image)
        for block in blocks:
            state = block.binding.state
            full, _ = Dense(block.heads, block.scale).start(state.buffers["qkv"].tokens)
            kept = state.attention.tensors["output"].flatten(2)
            error = ((kept - full).norm() / full.norm()).item()
            worst = max(worst, math.inf if math.isnan(error) else error)
            sent_back += state.attention.recomputed[0] - state.gates["qkv"].index.counts[0]
            rows += full.shape[1]
    return {"worst_relative_error": worst, "share_sent_back": sent_back / rows}


def cached(frames: int = 8) -> list[float]:
    """Relative difference of the paper's full form from full attention, worst block by frame."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0)
    for weight in model.blocks.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=2.0 / weight.shape[1] ** 0.5)
    eventful.convert(model, eventful.TopR(4), attention="cached")
    stream = eventful.Stream(model, scene_cuts=None)
    still, worst = torch.randn(1, 3, 64, 64), []
    for _ in range(frames):
        stream(still + 0.5 * torch.randn(1, 3, 64, 64))
        errors = []
        for block in stream._bound.blocks.values():
            state = block.binding.state
            full, _ = Dense(block.heads, block.scale).start(state.buffers["qkv"].tokens)
            kept = state.attention.tensors["output"].transpose(1, 2).flatten(2)
            errors.append(((kept - full).norm() / full.norm()).item())
        worst.append(max(errors))
    return worst


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=200, help="of vtest")
    parser.add_argument("--size", type=int, default=336, help="side of these frames, in pixels")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    result = {
        "frames": options.frames,
        "size": options.size,
        "chain": {name: chain(guard) for name, guard in GUARDS.items()},
        "cached": cached(),
        "real": {n: real(guard, options.frames, options.size) for n, guard in GUARDS.items()},
        "commit": commit(),
        "machine": machine(),
    }
    write_json(result, options.out)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
