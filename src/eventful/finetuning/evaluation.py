"""Accuracy of a temporal model on cached spatial outputs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from eventful.finetuning.cache import SpatialCache
from eventful.finetuning.settings import Loss
from eventful.models.vivit import ViViT


class Accuracy(NamedTuple):
    """Accuracy over the videos of a cache, their views averaged.

    Attributes:
        top1: Share of videos whose class is the first guess.
        top5: Share of videos whose class is among the first five (or all, if there are fewer).
        loss: Mean cross entropy.
        videos: Their number.
    """

    top1: float
    top5: float
    loss: float
    videos: int


@torch.no_grad()
def evaluate(model: ViViT, cache: SpatialCache, batch_size: int = 8) -> Accuracy:
    """Classify the videos of a cache.

    Args:
        model: Put in eval mode.
        cache: Of this model's spatial model.
        batch_size: Videos at a time.

    Raises:
        ValueError: The cache is of another spatial model, or holds classes that this model lacks.

    Example:
        >>> import tempfile, eventful
        >>> from eventful.finetuning import cache_spatial_outputs
        >>> model = ViViT(classes=2, img_size=32, frames=4, dim=24, heads=3, depth=2).eval()
        >>> _ = eventful.convert(model.spatial, eventful.TopR(2), prefix="gated")
        >>> videos = [(f"video {i}", torch.rand(1, 4, 3, 32, 32), i) for i in range(2)]
        >>> evaluate(model, cache_spatial_outputs(model, videos, None, tempfile.mkdtemp())).top5
        1.0
    """
    cache.check_model(model)
    model.eval()
    top1 = top5 = total = 0.0
    for start in range(0, len(cache), batch_size):
        numbers = list(range(start, min(start + batch_size, len(cache))))
        logits, labels = forward(model, cache, numbers)
        guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        top1 += guesses[:, 0].sum().item()
        top5 += guesses.any(dim=1).sum().item()
        total += F.cross_entropy(logits, labels, reduction="sum").item()
    count = len(cache)
    return Accuracy(top1 / count, top5 / count, total / count, count)


def forward(model: ViViT, cache: SpatialCache, numbers: list[int]) -> tuple[Tensor, Tensor]:
    """Logits (batch, classes) and labels (batch,) of some videos, on the model's device.

    Raises:
        ValueError: A label is no class of the model.
    """
    tokens, labels = cache.batch(numbers)
    classes = model.head.out_features
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"the model has classes 0 to {classes - 1}, and the videos have "
            f"{sorted(set(labels.tolist()))}; was the cache made for another data set?"
        )
    weight = model.head.weight
    return model.classify(tokens.to(weight.device, weight.dtype)), labels.to(weight.device)


def cross_entropy(logits: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """Cross entropy of each video, (batch,); see `Settings.loss`."""
    scores = logits.softmax(dim=-1) if loss == "probabilities" else logits
    return F.cross_entropy(scores, labels, reduction="none")
