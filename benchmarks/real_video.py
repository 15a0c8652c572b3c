"""What real video does to the state: its precision, and the rows that the guard sends back.

    EVENTFUL_DATA=... python benchmarks/real_video.py [--frames 60] [--out FILE]

runs the demo's backbone at 518 over clips with a static and with a moving camera and writes
benchmarks/results/real_video.json. For each clip and policy:

- `precision`: for each `state_dtype`, the relative error of the final patch tokens against the
  dense model (mean and max over every fifth frame), how far the tokens are from those of the stream
  with float32 state, and the bytes of state;
- `sent_back`: rows that the guard sent back as a share of all rows: mean over blocks and frames,
  the largest of any block, and for each block the share of frames that send back more than 1/64,
  which is what `Incremental` has room for where the number must be fixed;
- `updated_again`: of the tokens that a QKV gate updates, the share that it updated on the frame
  before, too: below a half, keeping the active keys' state apart from the still ones' costs more
  than replacing keys (docs/speed.md).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import eventful
from eventful.attention import Incremental
from eventful.models import saliency_vit
from eventful.provenance import commit, machine
from eventful.video import Reader

RESULT = Path(__file__).parent / "results" / "real_video.json"
SIZE = 518
CLIPS = {
    "vtest (static camera)": "vtest/vtest.avi",
    "highway (static camera)": "cdnet2014/highway/input",
    "breakdance (moving camera)": "davis2016/JPEGImages/480p/breakdance",
    "parkour (moving camera)": "davis2016/JPEGImages/480p/parkour",
}
POLICIES = ("fraction:0.125", "fraction:0.25")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def relative(y: Tensor, reference: Tensor) -> float:
    """Relative error in the Frobenius norm."""
    return ((y - reference).norm() / reference.norm()).item()


def sent_back(stream: eventful.Stream) -> list[float]:
    """For each block, the share of rows that were computed anew beside updated and rotated ones."""
    shares = []
    for block in stream._bound.blocks.values():
        attention, index = block.binding.state.attention, block.binding.state.gates["qkv"].index
        rotated = Incremental(block.heads, block.scale).rotated_rows(index.tokens)
        more = attention.recomputed[0] - index.counts[0] - rotated
        shares.append(max(0, more) / index.tokens)
    return shares


def updated(stream: eventful.Stream) -> Tensor:
    """(blocks, patches) the tokens that the QKV gates let through on the last frame."""
    names = [name for name in stream.gates if name.endswith(".qkv")]
    return torch.stack([stream.gate(name).updated[0, 1:] for name in names])


def measure(path: Path, policy: str, frames: int, size: int) -> dict:
    """Run one clip with each dtype of state, side by side."""
    model = saliency_vit(size).backbone
    eventful.convert(model, eventful.policies.parse(policy))
    options = {"normalize": True, "scene_cuts": None, "method": "forward_features"}
    streams = {d: eventful.Stream(model, state_dtype=d, **options) for d in DTYPES}
    errors, drift, shares, again = defaultdict(list), defaultdict(list), [], []
    before = None
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    for i, frame in enumerate(itertools.islice(Reader(path, size), frames)):
        tokens = {d: stream(frame.image)[:, 1:] for d, stream in streams.items()}
        if i:
            shares.append(sent_back(streams[torch.float32]))
            now = updated(streams[torch.float32])
            if before is not None:
                again.append(((now & before).sum() / now.sum()).item())
            before = now
        if i % 5 == 4:
            with torch.inference_mode():
                dense = model.forward_features((frame.image - mean) / std)[:, 1:]
            for d in DTYPES:
                errors[d].append(relative(tokens[d], dense))
                drift[d].append(relative(tokens[d], tokens[torch.float32]))
    rows = torch.tensor(shares)
    return {
        "precision": {
            str(d).removeprefix("torch."): {
                "relative_error_mean": sum(errors[d]) / len(errors[d]),
                "relative_error_max": max(errors[d]),
                "from_float32_state_mean": sum(drift[d]) / len(drift[d]),
                "state_bytes": streams[d].stats.state_bytes,
            }
            for d in DTYPES
        },
        "sent_back": {
            "mean": rows.mean().item(),
            "largest": rows.max().item(),
            "frames_over_a_64th_by_block": (rows > 1 / 64).float().mean(dim=0).tolist(),
        },
        "updated_again": sum(again) / len(again),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--clips", nargs="+", choices=CLIPS, default=list(CLIPS), metavar="CLIP")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    frames, size = options.frames, options.size
    data = Path(os.environ["EVENTFUL_DATA"])
    clips = {
        clip: {p: measure(data / CLIPS[clip], p, frames, size) for p in POLICIES}
        for clip in options.clips
    }
    result = {"size": size, "frames": frames, "clips": clips}
    result |= {"commit": commit(), "machine": machine()}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(clips, indent=1))


if __name__ == "__main__":
    main()
