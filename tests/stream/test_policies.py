"""The policy of a stream: set between any two frames, for all gates, some or one."""

import pytest
import torch

import eventful
from tests.zoo import build, clip, same, stream_of

STAGES = ("qkv", "proj", "mlp")


def test_the_policy_of_convert_is_the_default_and_the_streams_own_wins():
    model = eventful.convert(build("plain"), eventful.TopR(3))
    assert eventful.Stream(model).policy == eventful.TopR(3)
    other = eventful.Stream(model, policy=eventful.KeepAll())
    assert other.policy == eventful.KeepAll()
    some = eventful.Stream(model, policy={"*.mlp": eventful.TopR(5)})
    assert some.policy["blocks.1.mlp"] == eventful.TopR(5)
    assert some.policy["blocks.1.qkv"] == eventful.TopR(3)
    assert eventful.Stream(model).policy == eventful.TopR(3)


def test_a_new_policy_takes_effect_on_the_next_frame():
    stream, video = stream_of("registers", eventful.TopR(3)), clip(6)
    prefix = 5
    counts = []
    for frame, r in zip(video, (3, 3, 7, 1, 15, 2), strict=True):
        stream.policy = eventful.TopR(r)
        stream(frame)
        counts.append(set(stream.stats.updated.values()))
    whole = prefix + 15
    expected = [whole, prefix + 3, prefix + 7, prefix + 1, whole, prefix + 2]
    assert counts == [{(count, count)} for count in expected]


def test_the_getter_says_what_holds_now():
    stream = stream_of("plain", eventful.TopR(3))
    stream.policy = {"blocks.2.mlp": eventful.KeepAll()}
    assert stream.policy == {
        name: eventful.KeepAll() if name == "blocks.2.mlp" else eventful.TopR(3)
        for name in stream.gates
    }
    stream.policy = {"blocks.2.mlp": eventful.TopR(3)}
    assert stream.policy == eventful.TopR(3)


def test_a_mapping_changes_the_gates_that_it_names_alone():
    stream, video = stream_of("no_class_token", eventful.TopR(2)), clip(4)
    stream(video[0])
    stream.policy = {"blocks.1.proj": eventful.TopR(6)}
    stream(video[1])
    expected = dict.fromkeys(stream.gates, (2, 2)) | {"blocks.1.proj": (6, 6)}
    assert stream.stats.updated == expected
    stream.policy = {"*.mlp": eventful.TopR(4), "blocks.[02].qkv": eventful.TopFraction(1.0)}
    stream(video[2])
    expected |= {f"blocks.{i}.mlp": (4, 4) for i in range(3)}
    expected |= {"blocks.0.qkv": (15, 15), "blocks.2.qkv": (15, 15)}
    assert stream.stats.updated == expected
    stream.policy = eventful.TopR(1)
    stream(video[3])
    assert stream.stats.updated == dict.fromkeys(stream.gates, (1, 1))


def test_a_threshold_may_let_other_numbers_through_in_each_row():
    stream, video = stream_of("plain", eventful.Threshold(1.0)), clip(3)
    video[1:, 1] = video[0, 1]
    for frame in video:
        stream(frame)
    moving, still = zip(*stream.stats.updated.values(), strict=True)
    assert set(still) == {1}
    assert min(moving) > 1
    assert len(set(moving)) > 1


@pytest.mark.parametrize(("prefix", "extra"), [("always", 5), ("gated", 0)])
def test_prefix_tokens_come_on_top_or_compete(prefix, extra):
    stream = stream_of("registers", eventful.TopFraction(0.5), prefix=prefix)
    for frame in clip(2):
        stream(frame)
    count = extra + (15 if prefix == "always" else 20) // 2
    assert set(stream.stats.updated.values()) == {(count, count)}
    always = stream.gate("blocks.0.qkv").updated[:, :5].all().item()
    assert always == (prefix == "always")


@pytest.mark.parametrize("policy", [eventful.TopR(16), {"blocks.2.mlp": eventful.TopR(16)}])
def test_a_policy_that_does_not_fit_raises_before_any_change(policy):
    stream, control = (stream_of("plain", eventful.TopR(3)) for _ in range(2))
    video = clip(5)
    for frame in video[:2]:
        stream(frame), control(frame)
    stream.policy = policy
    before = stream.snapshot()
    updated = dict(stream.stats.updated)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"TopR\(16\) asks for more tokens.*\(15\)"):
            stream(video[2])
    assert same(stream.snapshot(), before)
    assert stream.stats.updated == updated
    stream.policy = eventful.TopR(3)
    for frame in video[3:]:
        assert torch.equal(stream(frame), control(frame))
    assert len(stream.stats.flushes) == 2


def test_a_policy_that_does_not_fit_raises_on_the_first_frame_too():
    stream, control = stream_of("plain", eventful.TopR(16)), stream_of("plain", eventful.TopR(15))
    video = clip(3)
    with pytest.raises(ValueError, match=r"TopR\(16\) asks for more tokens"):
        stream(video[0])
    assert (stream.stats.frames, stream.stats.state_bytes) == (0, 0)
    with pytest.raises(ValueError, match="nothing to save before the first frame"):
        stream.snapshot()
    stream.policy = eventful.TopR(15)
    for frame in video[1:]:
        assert torch.equal(stream(frame), control(frame))
    assert [flush.frame for flush in stream.stats.flushes] == [0, 0]


@pytest.mark.parametrize("stage", STAGES)
def test_a_gate_shows_what_it_saw_and_did(stage):
    stream, video = stream_of("plain", eventful.TopR(4)), clip(3)
    name = f"blocks.0.{stage}"
    with pytest.raises(ValueError, match="before the first frame"):
        stream.gate(name)
    stream(video[0])
    view = stream.gate(name)
    assert view.updated.all()
    assert view.error.eq(0).all()
    stream(video[1])
    view = stream.gate(name)
    assert view.error.shape == view.updated.shape == (2, 16)
    assert view.updated.sum(1).tolist() == [5, 5]
    assert view.updated[:, 0].all()
    for row in range(2):
        patches, chosen = view.error[row, 1:], view.updated[row, 1:]
        assert patches[chosen].min() >= patches[~chosen].max()
    kept = view.error.clone()
    stream(video[2])
    assert torch.equal(view.error, kept)


@pytest.mark.parametrize("name", ["blocks.3.qkv", "blocks.0", "qkv", ""])
def test_an_unknown_gate_is_refused_with_the_known_ones(name):
    stream = stream_of("plain", eventful.TopR(4))
    with pytest.raises(ValueError, match=r"no gate is called .*blocks\.2\.mlp"):
        stream.gate(name)


@pytest.mark.parametrize("policy", ["top:3", {"*": 3}, {"blocks.9.qkv": eventful.KeepAll()}])
def test_a_wrong_policy_leaves_the_old_one(policy):
    stream = stream_of("plain", eventful.TopR(4))
    with pytest.raises((TypeError, ValueError), match=r"expected a policy|no gate is called"):
        stream.policy = policy
    assert stream.policy == eventful.TopR(4)
