"""Which tokens a stream says it computed."""

import pytest
import torch

import eventful
from tests.zoo import clip, stream_of


def test_nothing_is_to_be_seen_before_the_first_frame():
    for policy in (eventful.TopR(3), eventful.Skip(2)):
        with pytest.raises(ValueError, match="nothing to see before the first frame"):
            stream_of("plain", policy).computed  # noqa: B018 - raises


def test_under_a_token_policy_it_is_what_the_first_gate_let_through():
    stream = stream_of("plain", eventful.TopR(3))
    for frame in clip(3):
        stream(frame)
        assert torch.equal(stream.computed, stream.gate("blocks.0.qkv").updated)
    assert stream.computed.sum(dim=1).unique().tolist() == [3 + 1]


def test_under_a_frame_policy_it_is_what_each_row_was_given():
    stream = stream_of("plain", eventful.Skip(3))
    video = clip(4)
    stream(video[0])
    assert stream.computed.all()
    stream(video[1])
    assert not stream.computed.any()
    stream.reset([1])
    stream(video[2])
    assert [row.kind for row in stream.stats.rows][:2] == ["held", "dense"]
    assert stream.computed.any(dim=1)[:2].tolist() == [False, True]
    assert [row.tokens for row in stream.stats.rows] == stream.computed.sum(dim=1).tolist()


def test_another_kind_of_policy_has_computed_nothing_yet():
    stream, video = stream_of("plain", eventful.Skip(3)), clip(2)
    stream(video[0])
    content = stream.snapshot()
    stream.load_snapshot(content)
    with pytest.raises(ValueError, match="nothing to see"):
        stream.computed  # noqa: B018 - raises
    stream(video[1])
    assert not stream.computed.any()
