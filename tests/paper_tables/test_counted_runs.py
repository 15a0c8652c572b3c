"""The closed form against what streams of small models count, and against what really runs."""

import pytest
import torch

import eventful
from eventful.counting import Observer
from eventful.paper.counts import Backbone
from tests.paper_tables.models import (
    DIM,
    WINDOW,
    Fixed,
    frames_of,
    spatial,
    stream_on,
    vitdet,
)

GRIDS = [(4, 4), (3, 5), (6, 4)]
R = 5


def counted(stream, frames, batch):
    """The last frame's operations of one batch row, and of the first frame's."""
    stream(frames[0])
    first = stream.stats.operations
    for frame in frames[1:]:
        stream(frame)
    found = stream.stats.operations
    assert first.other == found.other
    return first.total // batch, found.total // batch


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"attention": "dense"},
        {"attention": "dense", "gate": "stgt"},
        {"attention": "dense", "gate_before_norm": True},
        {"attention": "query_key"},
        {"attention": "cached"},
    ],
    ids=str,
)
def test_vitdet(grid, options, batch):
    stream = stream_on(vitdet(grid), eventful.TopR(R), **options)
    closed = Backbone.of(stream._bound.model, grid)
    first, later = counted(stream, frames_of(grid, 3, batch), batch)
    assert closed.dense() == first
    assert closed.update(options["attention"], R) == later


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("grid", [(4, 4), (6, 4), (3, 5)], ids=str)
@pytest.mark.parametrize("attention", ["dense", "query_key", "cached"])
def test_vitdet_with_pooled_keys(grid, attention, batch):
    stream = stream_on(vitdet(grid), eventful.TopR(R), attention=attention, pooling=2)
    closed = Backbone.of(stream._bound.model, grid)
    first, later = counted(stream, frames_of(grid, 3, batch), batch)
    mask = stream.gate("blocks.1.qkv").updated.view(batch, *grid)
    pooled = [cells(row) for row in mask]
    assert closed.dense() == first
    expected = sum(closed.update(attention, R, count) for count in pooled)
    assert expected == stream.stats.operations.total == later * batch


def cells(mask):
    """Cells of 2 x 2 that hold an updated token; those at the border may be smaller."""
    height, width = mask.shape
    return sum(
        bool(mask[y : y + 2, x : x + 2].any())
        for y in range(0, height, 2)
        for x in range(0, width, 2)
    )


@pytest.mark.parametrize("attention", ["dense", "query_key", "cached"])
def test_vivits_spatial_model(attention):
    """The class token competes with the others."""
    stream = stream_on(spatial((3, 5)), eventful.TopR(R), attention=attention, prefix="gated")
    closed = Backbone.of(stream._bound.model, (3, 5), prefix=1)
    first, later = counted(stream, frames_of((3, 5), 3, channels=6), 1)
    assert stream.stats.updated["blocks.0.qkv"] == (R,)
    assert closed.dense() == first
    assert closed.update(attention, R) == later


def test_incremental_where_no_row_is_sent_back():
    """One updated token in each window, and attention so flat that the guard has nothing to do."""
    grid = (4, 6)
    mask = torch.zeros(1, *grid, dtype=torch.bool)
    mask[:, ::WINDOW, ::WINDOW] = True
    stream = stream_on(flat(vitdet(grid)), Fixed(mask.flatten(1)), attention="incremental")
    closed = Backbone.of(stream._bound.model, grid)
    frames, compared = frames_of(grid, 4), 0
    for number, frame in enumerate(frames):
        stream(frame)
        work = stream._bound.blocks["blocks.1"].binding.state.attention
        if number and work.recomputed == (6 + 1,):  # the row in rotation is not an updated one
            assert work.corrected == (18,)
            assert stream.stats.operations.total == closed.update("incremental", 6)
            compared += 1
    assert compared > 0


def flat(model):
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight[: 2 * DIM] *= 0.01
            block.attn.rel_pos_h *= 0.01
            block.attn.rel_pos_w *= 0.01
    return model


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_dense_model_runs_what_is_counted(grid):
    """Fused attention adds one of the two additions of relative positions out of sight."""
    model = vitdet(grid)
    model.pos_embed = torch.nn.Parameter(torch.randn(1, *grid, DIM).double())
    with torch.inference_mode(), Observer() as observer:
        model.forward_features(frames_of(grid, 1)[0])
    closed = Backbone.of(eventful.convert(model, eventful.KeepAll()), grid)
    hidden = sum(size.heads * size.all_pairs(closed.tokens) for size in closed.blocks)
    assert observer.total + hidden == closed.dense()
