"""Trains the detector of people on `vtest.avi`, half an hour or less on a CPU.

    EVENTFUL_DATA=... python benchmarks/train_people.py [--cache DIR] [--weights F] [--out FILE]
    EVENTFUL_DATA=... python benchmarks/train_people.py --score

makes pictures of people from the first 640 frames (benchmarks/people_pictures.py), computes the
tokens of the frozen backbone for them, once if they are kept in a cache; trains the pyramid and the
head; and writes the weights to src/eventful/models/data/people.safetensors and to
benchmarks/results/people.json how well they find people, with dense tokens: on the later frames of
the same video, where the same people walk, and on TUD-Campus, a scene that they have not seen.
With --score it scores the weights again that are there already.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from people_pictures import SIZE, Footage, Picture, pictures
from safetensors.torch import save_file
from torch import Tensor
from training import fit

from eventful.datasets import CDnet, Davis, Mot
from eventful.evaluation.measures.boxes import Boxes, average_precision
from eventful.evaluation.measures.patches import fitted_frame
from eventful.evaluation.runners.tokens import Models, TokenRunner
from eventful.evaluation.settings import Setting
from eventful.evaluation.tasks.annotated import below
from eventful.evaluation.tasks.crowd import PAGE
from eventful.evaluation.tasks.people import campus
from eventful.evaluation.tasks.token_task import PATCH
from eventful.models.detector import PatchDetector
from eventful.models.people import SCALES, WEIGHTS, people_detector
from eventful.models.saliency import saliency_vit
from eventful.provenance import commit, machine, version, write_json
from eventful.stream.inputs import normalization
from eventful.video.geometry import fitted

FRAMES, LATER = 640, (680, 5)  # to train on; to score on, from where and every how many
PICTURES, EPOCHS, BATCH, LEARNING_RATE = 2400, 5, 8, 1e-3
SIZES = (392, 518)
SEQUENCES = ("blackswan", "camel", "car-shadow", "cows")  # of DAVIS, without people
RESULT = Path(__file__).parent / "results" / "people.json"
GRID = (SIZE[0] // PATCH, SIZE[1] // PATCH)


def vtest(root: Path) -> Mot:
    """The video with the ground truth of its people."""
    return Mot(below(root, ("vtest",)), "vtest.avi", "gt.txt", page=PAGE, strict=True)


def footage(root: Path) -> Footage:
    """The frames to train on."""
    frames, boxes = [], []
    for sample in islice(iter(vtest(root)[0]), FRAMES):
        frames.append((sample.image * 255).round().byte().permute(1, 2, 0).numpy())
        counts, doubtful = sample.target.boxes, sample.target.doubtful
        flags = torch.cat([torch.ones(len(counts)), torch.zeros(len(doubtful))])
        boxes.append(torch.column_stack([torch.cat([counts, doubtful]), flags]).double().numpy())
    return Footage(frames, boxes)


def backgrounds(root: Path) -> list[np.ndarray]:
    """Some frames without people: of four sequences of DAVIS and of CDnet's highway."""
    found = Davis(below(root, ("davis2016", "davis")))
    known = [name for name in SEQUENCES if name in found.sequences]
    animals = list(Davis(found.root, known))
    cars = [video for video in CDnet(below(root, ("cdnet2014", "cdnet"))) if video.id == "highway"]
    return [
        (sample.image * 255).round().byte().permute(1, 2, 0).numpy()
        for videos, every in ((animals, 5), (cars, 40))
        for video in videos
        for sample in islice(iter(video), 0, None, every)
    ]


def training(root: Path, count: int, seed: int, cache: Path) -> tuple[Tensor, list[Tensor]]:
    """Tokens (pictures, patches, dim) in half precision, and the boxes of each picture."""
    path = cache / f"people-{count}-{seed}.pt"
    if not path.is_file():
        backbone = saliency_vit(SIZE).backbone
        made, boxes = [], []
        for one in islice(pictures(footage(root), backgrounds(root), seed), count):
            made.append(tokens(one, backbone))
            boxes.append(torch.from_numpy(one.boxes).float())
        cache.mkdir(parents=True, exist_ok=True)
        torch.save((torch.stack(made), boxes), path)
    return torch.load(path, weights_only=True)


@torch.inference_mode()
def tokens(picture: Picture, backbone: Any) -> Tensor:
    """Dense tokens (patches, dim); in bfloat16, which takes half of the time and is 0.7 % off."""
    mean, std = normalization(backbone)
    image = torch.from_numpy(picture.pixels).permute(2, 0, 1)[None]
    with torch.autocast("cpu", torch.bfloat16):
        return backbone.forward_features((image - mean) / std)[0, 1:].half()


def train(x: Tensor, boxes: Sequence[Tensor], epochs: int) -> tuple[PatchDetector, list[float]]:
    """Train from scratch; also the mean loss of each epoch."""
    torch.manual_seed(0)
    detector = PatchDetector(scales=SCALES).train()

    def loss(numbers: list[int]) -> Tensor:
        return detector.loss(x[numbers].float(), GRID, [boxes[at] for at in numbers])

    how = {"epochs": epochs, "batch": BATCH, "rate": LEARNING_RATE}
    return detector, fit(detector, len(x), loss, **how)


@torch.inference_mode()
def score(
    detector: PatchDetector, data: Mot, long_side: int, scored: Callable[[int], bool]
) -> dict[str, Any]:
    """Average precision at an overlap of 0.5 on some frames, on the way that evaluation takes."""
    runner, boxes, people = TokenRunner(Models(saliency_vit), Setting("dense", None)), Boxes(), 0
    runner.start()
    for sample in data[0]:
        if not scored(sample.number):
            continue
        height, width = sample.original
        columns, rows = fitted(width, height, long_side, keep_aspect=True, patch=PATCH)
        found = detector(runner(fitted_frame(sample.image, (rows, columns))), grid(rows, columns))
        boxes.add(found[0].scaled((rows, columns), sample.original), sample.target)
        people += len(sample.target.boxes)
    arrays = boxes.arrays()
    return {"frames": int(arrays["scored"]), "boxes": people, "map50": average_precision(arrays)}


def scores(detector: PatchDetector, root: Path, sizes: Sequence[int]) -> dict[str, Any]:
    """On both videos, by the long side of the frames."""
    first, every = LATER
    clips: dict[str, tuple[Mot, Callable[[int], bool]]] = {
        "later_frames": (vtest(root), lambda n: n >= first and (n - first) % every == 0),
        "campus": (campus(root, strict=True), lambda n: True),
    }
    return {
        name: {str(size): score(detector, data, size, scored) for size in sizes}
        for name, (data, scored) in clips.items()
    }


def grid(height: int, width: int) -> tuple[int, int]:
    """Patches of an input."""
    return height // PATCH, width // PATCH


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0, help="of the pictures")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="to score at")
    parser.add_argument("--score", action="store_true", help="weights that are there already")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    root, cache = Path(os.environ["EVENTFUL_DATA"]), options.cache or Path(tempfile.mkdtemp())
    if options.score:
        result, detector = json.loads(options.out.read_text()), people_detector(options.weights)
    else:
        x, boxes = training(root, options.pictures, options.seed, cache)
        start = time.perf_counter()
        detector, losses = train(x, boxes, options.epochs)
        result = {
            "training": {"pictures": len(x), "people": sum(len(one) for one in boxes)},
            "epochs": options.epochs,
            "losses": losses,
            "seconds": time.perf_counter() - start,
        }
        made = {"made_by": "benchmarks/train_people.py", "trained_on": "vtest.avi, frames 1 to 640"}
        save_file(detector.state_dict(), options.weights, metadata=made)
    result |= scores(detector, root, options.sizes) | {
        "machine": machine(),
        "versions": {name: version(name) for name in ("torchvision", "torchmetrics")},
        "commit": commit(),
    }
    write_json(result, options.out)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
