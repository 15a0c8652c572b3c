"""Fine-tuning on a small generated action set: what naive conversion loses, and what comes back.

    python benchmarks/finetuning.py [--out FILE]

trains a small ViViT from scratch, dense, on squares that move in four directions at two speeds;
converts its spatial model, which costs accuracy; fine-tunes the temporal model and the classifier
on the frozen eventful outputs; and writes benchmarks/results/finetuning.json: for each r the
accuracy on held-out videos, dense, naive and fine-tuned, and the operations of the spatial model.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch.nn import functional as F

import eventful
from eventful.finetuning import (
    MovingShapes,
    Settings,
    SpatialCache,
    cache_spatial_outputs,
    evaluate,
    finetune,
)
from eventful.models.vivit import ViViT
from eventful.provenance import commit, machine, version

RESULT = Path(__file__).parent / "results" / "finetuning.json"
RS = (1, 2, 4, 8)
TRAIN, TEST = MovingShapes(1536, seed=1), MovingShapes(512, seed=2)
EPOCHS = 8  # of dense training
SETTINGS = Settings(epochs=20, learning_rate=3e-4, batch_size=16)


def small_vivit() -> ViViT:
    """17 tokens a moment: 16 patches of 8 x 8 pixels and the class token."""
    torch.manual_seed(0)
    model = ViViT(
        classes=len(MovingShapes.motions),
        img_size=32,
        frames=16,
        dim=48,
        heads=3,
        depth=3,
        temporal_depth=2,
        patch=8,
        dropout=0.1,
    )
    for weight in model.parameters():
        if weight.ndim > 1:  # the usual 0.02 is for a dim of hundreds
            torch.nn.init.trunc_normal_(weight, std=weight[0].numel() ** -0.5)
    return model


def train_dense(model: ViViT, shapes: MovingShapes, epochs: int) -> None:
    """Train all of a model from scratch, the usual way."""
    mean, std = model.pretrained_cfg["mean"][0], model.pretrained_cfg["std"][0]
    views = (torch.stack([views for _, views, _ in shapes]) - mean) / std
    labels = torch.tensor([label for _, _, label in shapes])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    steps = epochs * -(-len(labels) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    torch.manual_seed(0)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels)).split(32):
            loss = F.cross_entropy(model(views[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()


def caches(
    model: ViViT, policy: eventful.Policy, folder: Path, train: MovingShapes, test: MovingShapes
) -> tuple[SpatialCache, SpatialCache]:
    """Outputs of the spatial model, converted as in the paper, for both sets of videos."""
    eventful.convert(model.spatial, policy, prefix="gated")
    try:
        return tuple(
            cache_spatial_outputs(model, shapes, None, folder / name, normalize=True)
            for name, shapes in (("train", train), ("test", test))
        )
    finally:
        eventful.restore(model.spatial)


def measure(
    model: ViViT, r: int, settings: Settings, train: MovingShapes, test: MovingShapes
) -> dict:
    """Accuracy of a dense model at a budget of r tokens, before and after fine-tuning."""
    tuned = copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known, held_out = caches(tuned, eventful.TopR(r), folder, train, test)
        naive = evaluate(tuned, held_out)
        history = finetune(tuned, known, settings, folder / "run")
        used, dense = held_out.operations()
        return {
            "r": r,
            "naive_top1": naive.top1,
            "finetuned_top1": evaluate(tuned, held_out).top1,
            "operations": used,
            "dense_operations": dense,
            "checked_losses": [epoch.checked_loss for epoch in history],
        }


def dense_accuracy(model: ViViT, test: MovingShapes) -> float:
    """Accuracy of the dense model on held-out videos."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        eventful.convert(model.spatial, eventful.KeepAll())
        cache = cache_spatial_outputs(model, test, None, folder, normalize=True)
        eventful.restore(model.spatial)
        return evaluate(model, cache).top1


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--r", type=int, nargs="+", default=RS, help="updated tokens")
    parser.add_argument("--videos", type=int, nargs=2, default=(len(TRAIN), len(TEST)))
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of dense training")
    parser.add_argument("--finetuning-epochs", type=int, default=SETTINGS.epochs)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    known, held_out = (
        MovingShapes(count, shapes.seed)
        for shapes, count in zip((TRAIN, TEST), options.videos, strict=True)
    )
    settings = replace(SETTINGS, epochs=options.finetuning_epochs)
    torch.set_num_threads(1)
    model, start = small_vivit(), time.process_time()
    train_dense(model, known, options.epochs)
    seconds = time.process_time() - start
    dense = dense_accuracy(model, held_out)
    print(f"dense {dense:.3f} after {seconds:.0f} s")
    rows = []
    for r in options.r:
        rows.append(measure(model, r, settings, known, held_out))
        print({key: value for key, value in rows[-1].items() if key != "checked_losses"})
    result = {
        "videos": {"train": len(known), "test": len(held_out)},
        "finetuning": asdict(settings),
        "tokens": model.spatial.pos_embed.shape[1],
        "dense_epochs": options.epochs,
        "dense_processor_seconds": seconds,
        "dense_top1": dense,
        "rows": rows,
        "commit": commit(),
        "machine": machine() | {"timm": version("timm")},
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
