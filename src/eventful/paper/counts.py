"""Closed-form operation counts of the paper's models, frame by frame and as its tables have them.

A table's figure is the mean over whole videos, of which the first frame is dense:

    ViTDet   (1 - s) update + s dense,  s = `FIRST_FRAMES`
    ViViT    12 views x (1 dense + 15 updated clips + temporal model + classifier)

Only backbones count. Embeddings of the patches do not, additions of position encodings do. The
models are built on torch's meta device: nothing is computed, no weight takes memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import nn

from eventful.attention import AttentionName, Incremental
from eventful.block.block import eventful_blocks
from eventful.block.state import STAGES, Grid
from eventful.convert import convert
from eventful.counting import BlockSize, block_operations, dense_operations
from eventful.paper.tables import EPIC, KINETICS, VITDET, Entry, Variant
from eventful.policies import KeepAll

FIRST_FRAMES = 0.0038  # share of frames of ImageNet VID, fitted to the tables
VIEWS = 12  # of a video, in ViViT: 4 in time and 3 in space
CLIPS = 16  # of a view

_ATTENTION: dict[Variant, AttentionName] = {
    "full": "cached",
    "token-wise": "dense",
    "stgt": "dense",
    "spatiotemporal": "cached",
    "incremental": "incremental",
}


@dataclass(frozen=True)
class Backbone:
    """What of a backbone its count depends on.

    Attributes:
        blocks: The sizes of its blocks.
        tokens: N, class token included.
        dim: D; position encodings are added to every token once.

    Example:
        >>> vitdet(1024).dense(), len(vitdet(1024).blocks)
        (467439922176, 12)
    """

    blocks: tuple[BlockSize, ...]
    tokens: int
    dim: int

    @classmethod
    def of(cls, model: nn.Module, grid: Grid, prefix: int = 0) -> Backbone:
        """Read the sizes off a converted model, for a token grid and so many prefix tokens."""
        sizes = tuple(BlockSize.of(block, grid) for block in eventful_blocks(model).values())
        return cls(sizes, prefix + grid[0] * grid[1], sizes[0].dim)

    def dense(self) -> int:
        """Count a frame that is computed in full."""
        blocks = (dense_operations(size, self.tokens).total for size in self.blocks)
        return self.tokens * self.dim + sum(blocks)

    def update(self, attention: AttentionName, r: int, pooled: int = 0) -> int:
        """Count a frame on which every gate lets r tokens through.

        Of incremental attention, rows that the guard sends back are left out, and windows count as
        if each held an updated token, as far as there are enough.

        Args:
            attention: The attention form.
            r: Updated tokens, prefix tokens among them.
            pooled: Updated pooled tokens, where keys and values are pooled.
        """
        blocks = (_update(size, attention, self.tokens, r, pooled) for size in self.blocks)
        return self.tokens * self.dim + sum(blocks)


@dataclass(frozen=True)
class Video:
    """A factorised video model: a backbone for every clip of a view, and the rest for each view.

    Attributes:
        spatial: The backbone that runs on every clip.
        temporal: The one that runs on the clips' class tokens.
        classifier: Operations of the classifier.

    Example:
        >>> round(vivit("vivit_b_epic").video(None) / 1e12, 2)
        7.12
    """

    spatial: Backbone
    temporal: Backbone
    classifier: int

    def video(self, r: int | None) -> int:
        """Count all views of a video, with r tokens updated on every clip but a view's first."""
        dense = self.spatial.dense()
        later = dense if r is None else self.spatial.update("cached", r)
        return VIEWS * (dense + (CLIPS - 1) * later + self.temporal.dense() + self.classifier)


@cache
def vitdet(size: int, pooling: int = 1) -> Backbone:
    """Build ViTDet-B for a square input of so many pixels and read its sizes off it.

    Args:
        size: A multiple of the patch, 16.
        pooling: Side of the cells that keys and values of global blocks are averaged over.

    Example:
        >>> vitdet(672).tokens
        1764
    """
    from eventful.models import vitdet_b_vid  # noqa: PLC0415 - optional libraries

    with torch.device("meta"):
        backbone = vitdet_b_vid().backbone
    convert(backbone, KeepAll(), attention="dense", pooling=pooling)
    return Backbone.of(backbone, (size // 16, size // 16))


@cache
def vivit(name: str) -> Video:
    """Build a ViViT by its name in `eventful.models` and read its sizes off it.

    Example:
        >>> model = vivit("vivit_b_kinetics")
        >>> model.spatial.tokens, model.temporal.tokens
        (197, 17)
    """
    from eventful.models.vivit import vivit_b_epic, vivit_b_kinetics  # noqa: PLC0415

    with torch.device("meta"):
        model = {EPIC: vivit_b_epic, KINETICS: vivit_b_kinetics}[name]()
    spatial, temporal = (
        Backbone.of(convert(part, KeepAll()), grid, prefix=1)
        for part, grid in ((model.spatial, model.spatial.grid), (model.temporal, (1, CLIPS)))
    )
    classes, dim = model.head.weight.shape
    return Video(spatial, temporal, dim * classes + classes)


def count(entry: Entry, pooled: int | None = None) -> float:
    """Count an entry of the paper's tables in closed form, in its unit.

    Args:
        entry: The row.
        pooled: Mean number of updated pooled tokens of a spatiotemporal row.

    Raises:
        ValueError: The count depends on data that are not given.

    Example:
        >>> from eventful.paper import entries
        >>> [(e.operations, round(count(e), 2)) for e in entries("A")]
        [(3.36, 3.36), (1.814, 1.81), (1.016, 1.02), (0.618, 0.62)]
    """
    if entry.variant == "threshold":
        raise ValueError("how many tokens pass a threshold depends on the video and the weights")
    if entry.variant == "spatiotemporal" and pooled is None:
        raise ValueError("a spatiotemporal row needs the number of updated pooled tokens")
    if entry.model != VITDET:
        return vivit(entry.model).video(entry.r) / entry.unit
    model = vitdet(entry.size, 2 if entry.variant in ("spatial", "spatiotemporal") else 1)
    if entry.r is None:
        return model.dense() / entry.unit
    update = model.update(_ATTENTION[entry.variant], entry.r, pooled or 0)
    return (FIRST_FRAMES * model.dense() + (1 - FIRST_FRAMES) * update) / entry.unit


def pooled_bounds(entry: Entry) -> tuple[int, int]:
    """Give the least and the most pooled tokens that r updated tokens can lie in.

    Example:
        >>> from eventful.paper import entries
        >>> pooled_bounds(entries("1")[2])
        (512, 1024)
    """
    assert entry.r is not None
    return -(-entry.r // 4), min(entry.r, (entry.size // 32) ** 2)


def equal_budget(entry: Entry) -> float:
    """Find the r at which the paper's method with top-r costs what a threshold row costs.

    Example:
        >>> from eventful.paper import entries
        >>> [round(equal_budget(entry)) for entry in entries("B")[1:]]
        [3063, 2042, 851]
    """
    assert entry.operations is not None
    few, many = 256, 1024  # the count is a straight line in r
    low, high = (count(replace(entry, variant="full", r=r, threshold=None)) for r in (few, many))
    return few + (entry.operations - low) / (high - low) * (many - few)


def _update(size: BlockSize, attention: AttentionName, tokens: int, r: int, pooled: int) -> int:
    corrected = recomputed = 0
    if attention == "incremental":
        corrected, recomputed = _incremental(size, tokens, r)
    updated = dict.fromkeys(STAGES, r)
    return block_operations(
        size, attention, tokens, updated, corrected, recomputed, cells=pooled
    ).total


def _incremental(size: BlockSize, tokens: int, r: int) -> tuple[int, int]:
    """Rows that are corrected, and rows that are computed against all their keys."""
    form = Incremental(size.heads, scale=1.0)
    if size.window:
        return 0, min(r * size.window, size.places)
    if form.full_is_cheaper(r, tokens):
        return 0, tokens
    return tokens - r, r + form.rotated_rows(tokens)
