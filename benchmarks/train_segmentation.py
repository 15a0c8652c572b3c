"""Trains the segmentation head on seven sequences of DAVIS 2016, minutes on a CPU.

    EVENTFUL_DATA=... python benchmarks/train_segmentation.py [--cache DIR] [--out FILE]

computes the tokens of the frozen backbone for every 3rd frame of the sequences that
`davis-segmentation` does not score, and for two varied parts of each, once if they are kept in a
cache; trains the head; and writes the weights to src/eventful/models/data/segmentation.safetensors
and to benchmarks/results/segmentation.json how well it segments, with dense tokens, every 6th frame
of the four sequences that it has not seen.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from training import fit

from eventful.datasets import Davis
from eventful.evaluation.measures.masks import region_j
from eventful.evaluation.measures.patches import fitted_frame
from eventful.evaluation.tasks.annotated import davis
from eventful.evaluation.tasks.segmentation import unseen
from eventful.evaluation.tasks.token_task import LONG_SIDE, PATCH
from eventful.models.saliency import saliency_vit
from eventful.models.segmentation import WEIGHTS, SegmentationHead
from eventful.provenance import commit, machine, version, write_json
from eventful.stream.inputs import normalization
from eventful.video.geometry import fitted

EPOCHS, BATCH, LEARNING_RATE = 8, 8, 1e-3
EVERY, PARTS = 3, 2  # frames to train on, and varied parts of each beside the whole
SCORED = 6  # every so many frames of what the head has not seen
RESULT = Path(__file__).parent / "results" / "segmentation.json"


def examples(data: Davis, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames (3, H, W) and their masks (H, W): whole, and parts of them in other colours."""
    rng = np.random.default_rng(seed)
    for video in data:
        for sample in islice(iter(video), 0, None, EVERY):
            if sample.target is not None:
                yield sample.image, sample.target
                for _ in range(PARTS):
                    yield varied(rng, sample.image, sample.target)


def varied(rng: np.random.Generator, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A part of a frame, half of them mirrored, with other contrast, brightness and colours."""
    height, width = mask.shape
    share = rng.uniform(0.45, 1)
    tall, wide = int(share * height), int(share * width)
    top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    inside = slice(top, top + tall), slice(left, left + wide)
    image, mask = image[:, inside[0], inside[1]], mask[inside]
    if rng.random() < 0.5:
        image, mask = image.flip(2), mask.flip(1)
    image = ((image - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.1, 0.1)).clamp(0, 1)
    grey = image.mean(dim=0, keepdim=True)
    return (grey + (image - grey) * rng.uniform(0.4, 1.4)).clamp(0, 1), mask


@torch.inference_mode()
def tokens(image: Tensor, size: tuple[int, int], backbone: Any) -> Tensor:
    """Dense tokens (patches, dim) of a frame, in half precision."""
    mean, std = normalization(backbone)
    return backbone.forward_features((fitted_frame(image, size) - mean) / std)[0, 1:].half()


def training(data: Davis, size: tuple[int, int], seed: int, cache: Path) -> tuple[Tensor, Tensor]:
    """Tokens (examples, patches, dim) and masks, bool (examples, height, width)."""
    path = cache / f"segmentation-{size[0]}-{size[1]}-{seed}.pt"
    if not path.is_file():
        backbone, made, masks = saliency_vit(size).backbone, [], []
        for image, mask in examples(data, seed):
            made.append(tokens(image, size, backbone))
            masks.append(fitted_frame(mask[None].float(), size)[0, 0] > 0.5)
        cache.mkdir(parents=True, exist_ok=True)
        torch.save((torch.stack(made), torch.stack(masks)), path)
    return torch.load(path, weights_only=True)


def loss_of(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of the pixels, and what misses to a Dice overlap of 1."""
    likely = logits.sigmoid()
    both, either = (likely * masks).sum(dim=(1, 2)), (likely + masks).sum(dim=(1, 2))
    dice = (2 * both + 1) / (either + 1)
    return F.binary_cross_entropy_with_logits(logits, masks) + (1 - dice).mean()


def train(
    x: Tensor, masks: Tensor, grid: tuple[int, int], epochs: int
) -> tuple[SegmentationHead, list[float]]:
    """Train from scratch; also the mean loss of each epoch."""
    torch.manual_seed(0)
    head = SegmentationHead().train()

    def loss(numbers: list[int]) -> Tensor:
        return loss_of(head(x[numbers].float(), grid)[:, 0], masks[numbers].float())

    how = {"epochs": epochs, "batch": BATCH, "rate": LEARNING_RATE}
    return head, fit(head, len(x), loss, **how)


@torch.inference_mode()
def score(head: SegmentationHead, data: Davis, size: tuple[int, int]) -> dict[str, float]:
    """Mean J of each sequence."""
    backbone, grid = saliency_vit(size).backbone, (size[0] // PATCH, size[1] // PATCH)
    found: dict[str, list[float]] = {}
    for video in data:
        for sample in islice(iter(video), 0, None, SCORED):
            logits = head(tokens(sample.image, size, backbone)[None].float(), grid)
            mask = F.interpolate(logits, sample.target.shape, mode="bilinear")[0, 0] > 0
            value = region_j(mask.numpy(), sample.target.numpy())
            found.setdefault(video.id, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--size", type=int, default=LONG_SIDE, help="long side, in pixels")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0, help="of the varied parts")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    cache = options.cache or Path(tempfile.mkdtemp())
    every = davis(Path(os.environ["EVENTFUL_DATA"]), strict=True)
    held_out = unseen(every)
    seen = Davis(every.root, [one for one in every.sequences if one not in held_out.sequences])
    height, width = next(iter(seen[0])).original
    columns, rows = fitted(width, height, options.size, keep_aspect=True, patch=PATCH)
    x, masks = training(seen, (rows, columns), options.seed, cache)
    start = time.perf_counter()
    head, losses = train(x, masks, (rows // PATCH, columns // PATCH), options.epochs)
    seconds = time.perf_counter() - start
    about = f"DAVIS 2016: {', '.join(seen.sequences)}"
    made = {"made_by": "benchmarks/train_segmentation.py", "trained_on": about}
    save_file(head.state_dict(), options.weights, metadata=made)
    found = score(head, held_out, (rows, columns))
    result = {
        "trained_on": list(seen.sequences),
        "examples": len(x),
        "unseen": found,
        "j_mean": sum(found.values()) / len(found),
        "long_side": options.size,
        "epochs": options.epochs,
        "losses": losses,
        "seconds": seconds,
        "machine": machine(),
        "versions": {"torch": version("torch")},
        "commit": commit(),
    }
    write_json(result, options.out)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
