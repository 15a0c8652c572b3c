"""Streams that compile: as few graphs as there are kinds of block. These tests compile."""

import functools

import pytest
import torch
from torch._dynamo.utils import counters

import eventful
from eventful.stream import compiled
from tests.stream.compiling import CUTS, LIMIT, spoilt, twins, with_cuts
from tests.zoo import clip, relative

KINDS = {"plain": 1, "eva02": 1, "sam_no_positions": 2}  # kinds of block in the model


@pytest.fixture
def dynamo():
    """A compiler that knows nothing yet, and its counters."""
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.reset()
    counters.clear()
    yield counters
    torch._dynamo.reset()
    counters.clear()
    torch._dynamo.config.recompile_limit = limit


@pytest.fixture
def traced(dynamo, monkeypatch):
    """Graphs are captured and guarded, but what runs them is PyTorch as it is."""
    with_backend = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", with_backend)
    return dynamo


def graphs(dynamo):
    """How many there are; none may have been broken."""
    assert not dynamo["graph_break"]
    return dynamo["stats"]["unique_graphs"]


def test_one_kind_of_block_is_traced_twice(traced):
    """Once for first frames and once for all later ones, whatever happens on them."""
    stream, eager = twins("plain", scene_cuts=CUTS)
    other = eventful.Stream(stream._bound.model, method="forward_features", compile=True)
    video = with_cuts([0])
    for t, frame in enumerate(video):
        if t == 2:
            with pytest.raises(ValueError, match="NaN"):
                stream(spoilt(frame))
        if t == 7:
            stream.reset([1]), eager.reset([1])
        assert relative(stream(frame), eager(frame)) < LIMIT
        other(frame)
        assert graphs(traced) == min(t + 1, 2)
    assert stream.stats.flush_reasons == {"first frame": 2, "scene cut": 1, "requested": 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_block_is_traced_once_for_each_number_of_tokens(name, traced):
    """Over a hundred frames, with the policy moving among those prepared."""
    stream, eager = twins(name)
    video = clip(100, dtype=torch.float64)
    policies = [eventful.TopR(r) for r in (1, 3, 5)] + [eventful.KeepAll()]
    stream.prepare(video[0], policies)
    assert graphs(traced) == KINDS[name] * (1 + len(policies))
    for t, frame in enumerate(video):
        stream.policy = eager.policy = policies[t * t % 4]
        assert relative(stream(frame), eager(frame)) < LIMIT
        assert stream.stats.updated == eager.stats.updated
    assert graphs(traced) == KINDS[name] * (1 + len(policies))


@pytest.mark.slow
@pytest.mark.parametrize("bounded", [False, True], ids=["", "bounded"])
@pytest.mark.parametrize("name", ["plain", "registers", "eva02", "dinov3", "sam_resampled"])
def test_compiled_outputs_are_those_of_an_eager_stream(name, bounded, dynamo, monkeypatch):
    """By the default compiler, with a frame that never came and a row reset."""
    monkeypatch.setattr(compiled, "must_bound", lambda device: bounded)
    stream, eager = twins(name)
    for t, frame in enumerate(clip(12, dtype=torch.float64)):
        if t == 4:
            with pytest.raises(ValueError, match="frame 4 holds NaN"):
                stream(spoilt(frame))
        if t == 8:
            stream.reset([1]), eager.reset([1])
        assert relative(stream(frame), eager(frame)) < LIMIT
        assert stream.stats.updated == eager.stats.updated
    assert graphs(dynamo) == 2 * (2 if name == "sam_resampled" else 1)
