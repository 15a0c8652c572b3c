"""`Auto` holds the last output where moving it costs more than it gains."""

from dataclasses import replace

import pytest
import torch

import eventful
from tests.laws.frames import COSTS, NoMotion, flow_is, frame_stream
from tests.zoo import clip, relative

HEAVY = replace(COSTS, carried=0.5 * COSTS.dense, partial=0.6 * COSTS.dense, held=0.0)


@pytest.fixture(autouse=True)
def _no_motion(monkeypatch):
    flow_is(monkeypatch, NoMotion)  # moving changes nothing: all that it does is cost


@pytest.mark.parametrize("policy", [eventful.Auto(time=0.6), eventful.Auto(max_error=0.5)])
def test_a_heavy_head_does_not_run_on_held_frames(policy):
    stream = frame_stream("plain", policy, costs=HEAVY)
    calls = []
    stream._bound.model.norm.register_forward_hook(lambda *_: calls.append(stream.stats.frames))
    last, held = None, 0
    for frame in clip(24, batch=1):
        before = len(calls)
        output = stream(frame)
        (row,) = stream.stats.rows
        if row.kind == "held":
            assert row.reason == "between"
            assert torch.equal(output, last)
            assert len(calls) == before
            held += 1
        last = output
    assert held > 6
    assert stream.stats.kinds["carried"] <= 3  # until the first checks have shown it


def test_a_check_tells_the_error_of_what_was_held():
    stream = frame_stream("plain", eventful.Auto(time=0.6), costs=HEAVY)
    last, checked = None, 0
    for frame in clip(24, batch=1):
        output = stream(frame)
        (row,) = stream.stats.rows
        if row.kind == "dense" and row.error is not None and stream.stats.kinds["held"] > 3:
            assert row.error == pytest.approx(relative(last, output), rel=1e-4)
            checked += 1
        last = output
    assert checked > 2


def test_rows_that_are_held_beside_others_keep_what_they_saw():
    both = frame_stream("plain", eventful.Auto(time=0.6), costs=HEAVY)
    frames = clip(16, batch=2)
    alone = [frame_stream("plain", eventful.Auto(time=0.6), costs=HEAVY) for _ in range(2)]
    for frame in frames:
        found = both(frame)
        for row, stream in enumerate(alone):
            assert relative(found[row : row + 1], stream(frame[row : row + 1])) < 1e-5
            assert both.stats.rows[row].kind == stream.stats.rows[0].kind


def test_held_frames_cost_nothing_as_they_are_counted_and_measured():
    for policy in (eventful.Auto(share=0.5), eventful.Auto(time=0.5)):
        stream = frame_stream("plain", policy, costs=None)
        stream(clip(1, batch=1)[0])
        assert stream.costs.held < 0.5 * stream.costs.carried
