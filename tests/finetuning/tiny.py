"""A small ViViT and videos whose brightness goes with their class."""

import torch

import eventful
from eventful.models.vivit import ViViT

CLASSES, VIEWS, CLIPS, DIM = 3, 2, 3, 24


def vivit(seed: int = 0, converted: bool = True, **options) -> ViViT:
    torch.manual_seed(seed)
    settings = {"classes": CLASSES, "img_size": 8, "frames": 2 * CLIPS, "dim": DIM, "heads": 3}
    model = ViViT(**settings | {"depth": 2, "temporal_depth": 1, "patch": 4} | options).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight[0].numel() ** -0.5)
    if converted:
        eventful.convert(model.spatial, eventful.TopR(2), prefix="gated")
    return model


def videos(count: int = 10, labels=None):
    """Videos whose brightness goes with their class."""
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        label = i % CLASSES if labels is None else labels[i]
        views = torch.randn(VIEWS, 2 * CLIPS, 3, 8, 8, generator=generator)
        yield f"P01/video {i}", views + (i % CLASSES), label
