"""Trains the detector of vehicles on CDnet's highway, minutes on a CPU.

    EVENTFUL_DATA=... python benchmarks/train_vehicles.py [--cache DIR] [--weights F] [--out FILE]

computes the dense tokens of the frozen backbone for every 4th frame to train and to score on, once
if they are kept in a cache; trains the pyramid and the head; and writes the weights to
src/eventful/models/data/vehicles.safetensors and to benchmarks/results/vehicles.json how well they
find the vehicles of the later frames.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from training import fit

from eventful.datasets import Motion, Sample
from eventful.datasets.regions import Regions, moving_regions
from eventful.evaluation.measures.boxes import Boxes, average_precision
from eventful.evaluation.measures.patches import fitted_frame
from eventful.evaluation.runners.tokens import Models, TokenRunner
from eventful.evaluation.settings import Setting
from eventful.evaluation.tasks.dense_tokens import DenseTokens
from eventful.evaluation.tasks.token_task import LONG_SIDE, PATCH
from eventful.evaluation.tasks.vehicles import EVERY, highway, parts
from eventful.models.saliency import saliency_vit
from eventful.models.vehicles import WEIGHTS, VehicleDetector
from eventful.provenance import commit, machine, version, write_json
from eventful.video.geometry import fitted

EPOCHS, BATCH, LEARNING_RATE = 12, 4, 1e-3
RESULT = Path(__file__).parent / "results" / "vehicles.json"
FILL = 0.65  # a region that covers less of its box is most often two vehicles


class Part(NamedTuple):
    """Frames with dense tokens.

    Attributes:
        numbers: Of the frames.
        tokens: (frames, tokens, dim).
        grid: Patches (h, w).
        shape: (height, width) of the frames.
        regions: Of each frame, in its own pixels.
        merged: How many regions are likely two vehicles.
    """

    numbers: list[int]
    tokens: np.ndarray
    grid: tuple[int, int]
    shape: tuple[int, int]
    regions: list[Regions]
    merged: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the model's input."""
        return self.grid[0] * PATCH, self.grid[1] * PATCH

    def boxes(self, at: int) -> Tensor:
        """A frame's boxes in pixels of the model's input."""
        y, x = (to / came for to, came in zip(self.size, self.shape, strict=True))
        return self.regions[at].boxes * torch.tensor([x, y, x, y])


def load(samples: list[Sample[Motion]], name: str, cache: Path, size: int) -> Part:
    """Read the tokens of some frames, or compute them."""
    height, width = samples[0].original
    columns, rows = fitted(width, height, size, keep_aspect=True, patch=PATCH)
    dense = DenseTokens(cache)
    if dense.read(name) is None:
        dense.write(name, computed(samples, (rows, columns)))
    tokens = dense.read(name)
    if tokens is None or len(tokens) != len(samples):
        raise ValueError(f"{cache} holds the tokens of other frames; choose another --cache")
    motions = [sample.target for sample in samples if sample.target is not None]
    regions = [moving_regions(motion) for motion in motions]
    merged = sum(map(likely_merged, motions, regions))
    grid = (rows // PATCH, columns // PATCH)
    numbers = [sample.number for sample in samples]
    return Part(numbers, tokens, grid, (height, width), regions, merged)


def computed(samples: list[Sample[Motion]], size: tuple[int, int]) -> Iterator[Tensor]:
    """The dense tokens of frames, on the way that evaluation takes."""
    runner = TokenRunner(Models(saliency_vit), Setting("dense", None))
    runner.start()
    for sample in samples:
        yield runner(fitted_frame(sample.image, size))


def likely_merged(motion: Motion, regions: Regions) -> int:
    """How many regions cover little of their boxes."""
    boxes = [motion.moving[y0:y1, x0:x1] for x0, y0, x1, y1 in regions.boxes.int().tolist()]
    return sum(box.float().mean().item() < FILL for box in boxes)


def train(part: Part, epochs: int) -> tuple[VehicleDetector, list[float]]:
    """Train from scratch; also the mean loss of each epoch."""
    torch.manual_seed(0)
    detector = VehicleDetector().train()

    def loss(numbers: list[int]) -> Tensor:
        tokens = torch.from_numpy(part.tokens[numbers])
        return detector.loss(tokens, part.grid, [part.boxes(at) for at in numbers])

    how = {"epochs": epochs, "batch": BATCH, "rate": LEARNING_RATE}
    return detector, fit(detector, len(part.numbers), loss, **how)


@torch.inference_mode()
def score(detector: VehicleDetector, part: Part) -> float | None:
    """Average precision at an overlap of 0.5."""
    boxes = Boxes()
    for tokens, regions in zip(part.tokens, part.regions, strict=True):
        (found,) = detector(torch.from_numpy(tokens.copy())[None], part.grid)
        boxes.add(found.scaled(part.size, part.shape), regions)
    return average_precision(boxes.arrays())


def about(part: Part) -> dict[str, int]:
    """What a part holds."""
    return {
        "first": part.numbers[0],
        "last": part.numbers[-1],
        "frames": len(part.numbers),
        "vehicles": sum(len(one.boxes) for one in part.regions),
        "doubtful": sum(len(one.doubtful) for one in part.regions),
        "likely_merged": part.merged,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--size", type=int, default=LONG_SIDE, help="long side, in pixels")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    cache = options.cache or Path(tempfile.mkdtemp())
    root = Path(os.environ["EVENTFUL_DATA"])
    data = highway(next(root.glob("cdnet*"), root), strict=True)
    samples = {sample.number: sample for sample in data[0] if sample.target is not None}
    names = ("training", "evaluation")
    chosen = [
        [samples[number] for number in numbers[::EVERY]] for numbers in parts(data.labelled(0))
    ]
    training, evaluation = (
        load(part, name, cache, options.size) for part, name in zip(chosen, names, strict=True)
    )
    start = time.perf_counter()
    detector, losses = train(training, options.epochs)
    seconds = time.perf_counter() - start
    options.weights.parent.mkdir(exist_ok=True)
    made = {"made_by": "benchmarks/train_vehicles.py", "trained_on": "CDnet 2014, highway"}
    save_file(detector.state_dict(), options.weights, metadata=made)
    result = {
        "training": about(training),
        "evaluation": about(evaluation),
        "long_side": options.size,
        "epochs": options.epochs,
        "losses": losses,
        "map50_training": score(detector, training),
        "map50": score(detector, evaluation),
        "seconds": seconds,
        "machine": machine(),
        "versions": {name: version(name) for name in ("torchvision", "torchmetrics")},
        "commit": commit(),
    }
    write_json(result, options.out)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
