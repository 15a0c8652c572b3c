"""Rounding and approximation of the attention forms: the figures of docs/method.md, section 4.

    EVENTFUL_DATA=... python benchmarks/numerics.py

writes benchmarks/results/numerics.json:

- `chain`: one key holds 0.945 of a row's mass and is taken away on every frame, float32; error of
  that row without a guard, with a test of each update alone, and with the guard on the peak;
- `real`: the demo's backbone over 200 frames of `vtest` at 224 x 224 with the same three guards;
  worst block's relative error of the kept output, largest over the frames, and the share of rows
  recomputed because of the guard;
- `cached`: the paper's full form against full attention over the same buffers, on a small random
  model over 8 frames.
"""

import itertools
import json
import math
import os
from pathlib import Path

import timm
import torch
from torch import Tensor

import eventful
from eventful import attention
from eventful.attention import AttentionState, Dense, Incremental
from eventful.models import saliency_vit
from eventful.ops import Index
from eventful.provenance import machine
from eventful.video import Reader

LEFT = 0.055  # share of its mass that the chain's row keeps on each frame


class EachUpdate(Incremental):
    """Tests each update alone: the peak is forgotten between frames."""

    def update(self, state: AttentionState, qkv: Tensor, old: Tensor, index: Index) -> Tensor:
        """Forget the peak, then update."""
        state.tensors["peak"].copy_(state.tensors["lse"])
        return super().update(state, qkv, old, index)


GUARDS = {
    "none": lambda heads, scale, fixed=False: Incremental(heads, scale, guard=1e-30, max_age=None),
    "each update": lambda heads, scale, fixed=False: EachUpdate(
        heads, scale, guard=0.05, max_age=None
    ),
    "peak": lambda heads, scale, fixed=False: Incremental(heads, scale, guard=0.05, max_age=None),
}


def chain(guard: str, frames: int = 8, keys: int = 16, dim: int = 4) -> list[float]:
    """Error of the first row after each frame; key t + 1 weighs LEFT ** t and leaves on frame t."""
    torch.manual_seed(0)
    form = GUARDS[guard](1, 1.0)
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
        output = form.update(state, qkv, old, leaving)
        full, _ = Dense(1, 1.0).start(qkv.double())
        errors.append(((output[0, 0] - full[0, 0]).norm() / full[0, 0].norm()).item())
    return errors


def real(guard: str, frames: int = 200) -> dict[str, float]:
    """Run real weights on real video with one of the guards."""
    path = Path(os.environ["EVENTFUL_DATA"]) / "vtest" / "vtest.avi"
    model = saliency_vit(224).backbone
    eventful.convert(model, eventful.TopFraction(0.25))
    stream = eventful.Stream(model, normalize=True, scene_cuts=None, method="forward_features")
    before, attention.FORMS["incremental"] = attention.FORMS["incremental"], GUARDS[guard]
    worst, sent_back, rows = 0.0, 0, 0
    try:
        for frame in itertools.islice(Reader(path, 224), frames):
            stream(frame.image)
            for block in stream._bound.blocks.values():
                state = block.binding.state
                full, _ = Dense(block.heads, block.scale).start(state.buffers["qkv"].tokens)
                kept = state.attention.tensors["output"].flatten(2)
                error = ((kept - full).norm() / full.norm()).item()
                worst = max(worst, math.inf if math.isnan(error) else error)
                updated = state.gates["qkv"].index.counts[0]
                sent_back += state.attention.recomputed[0] - updated
                rows += full.shape[1]
    finally:
        attention.FORMS["incremental"] = before
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


def main() -> None:
    """Measure and write the result."""
    result = {
        "chain": {guard: chain(guard) for guard in GUARDS},
        "cached": cached(),
        "real": {guard: real(guard) for guard in GUARDS},
        "machine": machine(),
    }
    target = Path(__file__).parent / "results" / "numerics.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
