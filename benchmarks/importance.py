"""Tokens picked by error times how much the output depends on them: attention, or its rollout.

    EVENTFUL_DATA=... python benchmarks/importance.py [--gating ...] [--clips ...] [--out FILE]
    python benchmarks/importance.py --draw

runs the demo's backbone over 20 frames of seven clips at half its size, scene cuts off, and
writes benchmarks/results/importance.json and the tables of docs/study.md. A clip under a gating is
written when it is done, and a call that was ended goes on with the next. A quarter and an eighth of
the patches are updated, picked by

- `error`, `relative`: the error of a token, or that over the norm of what is remembered;
- `x received`: either times the attention that the token receives in the gate's own block, mean
  over heads and queries, from what the block remembers: q and k as they were last computed;
- `x rollout`: either times its part in the final patch tokens by attention rollout (Abnar and
  Zuidema, 2020) on the first frame, which is dense: w <- (w + w A) / 2 from the last block to the
  first, from an equal part of every final patch token. A gate at the projection or the MLP stands
  behind its block's attention, and has the part of the next block.

The ways to pick are batch rows of one stream, which are independent of each other. Given are the
relative error of the final patch tokens, mean over the frames behind the first, and that of the
decoder's saliency map on every fourth of them.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import filling
import torch
from torch import Tensor

import eventful
from eventful.block.bindings import binding
from eventful.block.options import Gating
from eventful.block.state import Stage
from eventful.models import saliency_vit
from eventful.ops import Index
from eventful.policies import Policy, TopR
from eventful.provenance import commit, machine, write_json
from eventful.video import Reader

RESULT = Path(__file__).parent / "results" / "importance.json"
PAGE = Path(__file__).parents[1] / "docs" / "study.md"
DAVIS = "davis2016/JPEGImages/480p"
CLIPS = {
    "highway": ("cdnet2014/highway/input", 600),
    "vtest": ("vtest/vtest.avi", 0),
    **{n: (f"{DAVIS}/{n}", 0) for n in ("breakdance", "camel", "car-shadow", "cows", "parkour")},
}
GATINGS: tuple[Gating, ...] = ("input", "paper")
FRAMES = 20
SIZE = 259
PARTS = (4, 8)
PLAIN = ("error", "relative")
KINDS = (*PLAIN, *(f"{plain} x {by}" for by in ("received", "rollout") for plain in PLAIN))
BETTER = 0.05


def passed_back(block: Any, c: Tensor, w: Tensor) -> Tensor:
    """Weigh tokens by queries w (batch, tokens): w A, with A a block's attention over normed c."""
    attn = block.attn
    q, k, _ = attn.qkv(c).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(2, 3)) * attn.scale
    return (w[:, None] @ scores.softmax(-1).mean(1))[:, 0]


def rollout(model: Any, frame: Tensor) -> list[Tensor]:
    """Parts (1, tokens) of all tokens in the final ones, before each block and behind the last."""
    seen: list[Tensor] = []
    norms = [block.norm1 for block in model.blocks]
    hooks = [norm.register_forward_hook(lambda _m, _x, c: seen.append(c)) for norm in norms]
    tokens = model.forward_features(frame)
    for hook in hooks:
        hook.remove()
    w = torch.ones(tokens.shape[:2])
    w[:, : model.num_prefix_tokens] = 0
    parts = [w / w.sum()]
    for block, c in zip(reversed(model.blocks), reversed(seen), strict=True):
        parts.append((parts[-1] + passed_back(block, c, parts[-1])) / 2)
    return parts[::-1]


@dataclass(frozen=True)
class Weighted(Policy):
    """Picks r tokens, those of each batch row in one of the ways of KINDS."""

    r: int
    block: Any
    stage: Stage
    rollout: Tensor  # (1, tokens)
    received: dict[str, Tensor]  # (kinds of PLAIN, tokens), by block

    def select(self, error: Tensor) -> Index:
        """Choose the r of the largest error, weighted by each row's own measure."""
        if len(error) == 1:  # a stream tries its policies on a row of zeros
            return TopR(self.r).select(error)
        gates = binding(self.block).state.gates
        size = gates[self.stage].reference.norm(dim=2)[:, -error.shape[1] :]
        if self.stage == "qkv":
            c = torch.cat([gates["qkv"].reference[i, None] for i in (2, 3)])
            self.received[self.block.name] = passed_back(self.block, c, torch.ones(c.shape[:2]))
        weight = torch.ones_like(error)
        weight[2:4] = self.received[self.block.name][:, -error.shape[1] :]
        weight[4:] = self.rollout[:, -error.shape[1] :]
        rank = error * weight
        rank[1::2] /= size[1::2]
        return TopR(self.r).select(rank)


@torch.inference_mode()
def measure(gating: Gating, clip: str, frames: int, size: int) -> dict[str, dict[str, float]]:
    """Errors of a clip, by what was measured and by how tokens are picked."""
    folder, begin = CLIPS[clip]
    with Reader(Path(os.environ["EVENTFUL_DATA"]) / folder, size, keep_aspect=True, patch=14) as r:
        images = [frame.image for frame in itertools.islice(r, begin, begin + frames)]
    height, width = images[0].shape[2:]
    whole, grid = saliency_vit((height, width)), (height // 14, width // 14)
    model: Any = whole.backbone
    prefix = model.num_prefix_tokens
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    normed = [(image - mean) / std for image in images]
    dense = [model.forward_features(frame)[:, prefix:] for frame in normed]
    maps = [whole.decoder(tokens, grid) for tokens in dense[4::4]]
    parts = rollout(model, normed[0])
    found = {}
    for part in PARTS:
        eventful.convert(model, TopR(1), gating=gating)
        stream = eventful.Stream(model, scene_cuts=None, method="forward_features")
        stream.policy = policies(stream, grid[0] * grid[1] // part, parts)
        outputs = [stream(f.expand(len(KINDS), -1, -1, -1))[:, prefix:] for f in normed]
        eventful.restore(model)
        saliency = [whole.decoder(tokens, grid) for tokens in outputs[4::4]]
        found[f"tokens, N/{part}"] = errors(outputs[1:], dense[1:])
        found[f"saliency, N/{part}"] = errors(saliency, maps)
    return found


def policies(stream: eventful.Stream, r: int, parts: list[Tensor]) -> dict[str, Policy]:
    """A policy for every gate."""
    received: dict[str, Tensor] = {}
    return {
        f"{name}.{stage}": Weighted(r, block, stage, parts[i + (stage != "qkv")], received)
        for i, (name, block) in enumerate(stream._bound.blocks.items())
        for stage in block.stages
    }


def errors(found: list[Tensor], wanted: list[Tensor]) -> dict[str, float]:
    """Relative errors, mean over the frames, of every batch row."""
    rows = [(a - b).flatten(1).norm(dim=1) / b.norm() for a, b in zip(found, wanted, strict=True)]
    means = torch.stack(rows).mean(dim=0).tolist()
    return {kind: round(value, 5) for kind, value in zip(KINDS, means, strict=True)}


def tables(content: dict[str, Any]) -> dict[str, filling.Lines]:
    """For each gating: means over the clips, and how many clips gain over both plain measures."""
    made = {}
    for gating in GATINGS:
        runs = [content["runs"][f"{gating}, {clip}"] for clip in CLIPS]
        made[gating] = [["error of", *KINDS]]
        for what in runs[0]:
            best = [min(run[what][plain] for plain in PLAIN) for run in runs]
            line = [f"{fmean(run[what][kind] for run in runs):.3f}" for kind in KINDS]
            for at, kind in enumerate(KINDS[len(PLAIN) :], start=len(PLAIN)):
                gains = [
                    run[what][kind] < (1 - BETTER) * b for run, b in zip(runs, best, strict=True)
                ]
                line[at] += f" ({sum(gains)})"
            made[gating].append([what, *line])
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and fill the tables in."""
    parser = filling.parser(__doc__)
    parser.add_argument("--gating", nargs="+", choices=GATINGS, default=GATINGS)
    parser.add_argument("--clips", nargs="+", choices=CLIPS, default=list(CLIPS), metavar="CLIP")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--size", type=int, default=SIZE, help="long side, in pixels [%(default)s]")
    parser.add_argument("--out", type=Path, help="another file, for a trial; fills no table")
    options = parser.parse_args(arguments)
    result = options.out or RESULT
    torch.set_num_threads(1)
    for gating, clip in itertools.product(() if options.draw else options.gating, options.clips):
        content = json.loads(result.read_text()) if result.exists() else {"runs": {}}
        if f"{gating}, {clip}" not in content["runs"]:
            found = {f"{gating}, {clip}": measure(gating, clip, options.frames, options.size)}
            known = json.loads(result.read_text())["runs"] if result.exists() else {}
            about = {"frames": options.frames, "size": options.size}
            about |= {"commit": commit(), "machine": machine()}
            write_json({"runs": known | found} | about, result)
    content = json.loads(result.read_text())
    if not options.out and len(content["runs"]) == len(GATINGS) * len(CLIPS):
        filling.fill(PAGE, "importance", tables(content))


if __name__ == "__main__":
    main()
