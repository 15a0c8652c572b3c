"""Incremental attention is the token-wise-only variant in its outputs, on ViTDet's own blocks."""

import pytest
import torch

import eventful
from tests.paper_tables.models import Fixed, frames_of, stream_on, vitdet
from tests.zoo import relative

GRIDS = {"square, windows fit": (4, 4), "not square, padded both ways": (3, 5)}


def recorded(stream, frames):
    """Outputs, and on each frame but the first what each gate let through."""
    outputs, masks = [stream(frames[0]).clone()], []
    for frame in frames[1:]:
        outputs.append(stream(frame).clone())
        masks.append({name: stream.gate(name).updated for name in stream.gates})
    return outputs, masks


def played_back(stream, frames, masks):
    """Outputs under recorded index sets."""
    yield stream(frames[0])
    for frame, gates in zip(frames[1:], masks, strict=True):
        stream.policy = {name: Fixed(mask) for name, mask in gates.items()}
        yield stream(frame)


@pytest.mark.parametrize("attention", ["incremental", "query_key"])
@pytest.mark.parametrize("policy", [eventful.TopR(3), eventful.Threshold(0.8)], ids=str)
@pytest.mark.parametrize("trained", [None, (24, 28)], ids=["own size", "resized positions"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_outputs_are_those_of_token_wise_only(grid, trained, policy, attention):
    model = vitdet(grid, trained=trained)
    frames = frames_of(grid, 6, batch=2)
    outputs, masks = recorded(stream_on(model, policy, attention="dense"), frames)
    assert any(not mask.all() for gates in masks for mask in gates.values())
    other = stream_on(model, eventful.KeepAll(), attention=attention)
    for found, expected in zip(played_back(other, frames, masks), outputs, strict=True):
        assert relative(found, expected) < 1e-11


def test_the_papers_full_form_is_not():
    """It drops part of the renormalisation, so that the equality above is not for free."""
    grid = (3, 5)
    model, frames = vitdet(grid), frames_of(grid, 6)
    outputs, masks = recorded(stream_on(model, eventful.TopR(3), attention="dense"), frames)
    other = stream_on(model, eventful.KeepAll(), attention="cached")
    *_, last = played_back(other, frames, masks)
    assert relative(last, outputs[-1]) > 1e-3


def test_incremental_does_not_recompute_all():
    grid = (6, 7)
    stream = stream_on(vitdet(grid), eventful.TopR(3), attention="incremental")
    for frame in frames_of(grid, 3):
        stream(frame)
    work = stream._bound.blocks["blocks.1"].binding.state.attention
    assert sum(work.corrected) > 0
    assert sum(work.recomputed) < 42


def test_frames_change():
    first, second, *_ = frames_of((3, 5), 6)
    assert not torch.equal(first, second)
