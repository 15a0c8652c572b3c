"""Runs in which frames wait for the dense frame after them: order, delay, cuts, errors, faults."""

import math
from collections import namedtuple

import pytest
import torch
from torch import nn

import eventful
from eventful.stream import schedule
from eventful.stream.automatic import Automatic
from eventful.stream.estimate import Sides
from eventful.stream.gain import LONGEST
from eventful.stream.plan import Check, Seen
from tests.laws.frames import COSTS, NoMotion, Script, flow_is, frame_stream, held_bytes, still
from tests.zoo import build, clip, relative


@pytest.fixture(autouse=True)
def _no_motion(monkeypatch):
    flow_is(monkeypatch, NoMotion)


def planned(monkeypatch, text):
    monkeypatch.setattr(schedule.Schedule, "_plan", lambda self: Script(text))


def told(stream, frames, lookahead):
    """The outputs of a run with what was told of each."""
    return [(output, stream.stats.rows[0]) for output in stream.run(frames, lookahead=lookahead)]


@pytest.mark.parametrize("lookahead", [1, 3, 20])
@pytest.mark.parametrize("policy", ["auto:0.3", "error:0.2", "carry:4"])
def test_outputs_come_in_order_and_exactly_so_many_frames_late(policy, lookahead):
    stream, video, taken = frame_stream("plain", eventful.parse(policy)), clip(13, batch=1), []
    frames = (taken.append(frame) or frame for frame in video)
    outputs = []
    for number, output in enumerate(stream.run(frames, lookahead=lookahead)):
        outputs.append(output)
        assert len(taken) == min(13, number + lookahead + 1)
        assert stream.stats.frames == number + 1
    assert len(outputs) == 13
    with torch.inference_mode():
        dense = [build("plain").forward_features(frame) for frame in video]
    errors = [relative(*pair) for pair in zip(outputs, dense, strict=True)]
    assert sum(error < 1e-5 for error in errors) == stream.stats.kinds["dense"] >= 1
    assert max(errors) > 1e-2


def test_a_dense_frame_further_away_than_a_frame_may_wait_has_no_say(monkeypatch):
    planned(monkeypatch, "c c c c d")
    video = clip(6, batch=1)
    reasons = [row.reason for _, row in told(frame_stream("plain"), video, 2)]
    assert reasons[1:5] == ["from one side"] * 2 + ["from both sides"] * 2
    other = video.clone()
    other[5] = -other[5]
    outputs = [[y for y, _ in told(frame_stream("plain"), v, 2)] for v in (video, other)]
    assert [torch.equal(*pair) for pair in zip(*outputs, strict=True)] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("policy", ["auto:0.3", "error:0.2", "carry:3"])
def test_nothing_is_carried_across_a_scene_cut(policy):
    video = clip(12, batch=1)
    video[5:] = -video[5:]
    other = video.clone()
    other[5:] = other[5:].flip(-1) * 0.9
    cuts = eventful.SceneCuts(level=0.1, jump=3.0)
    found = []
    for frames in (video, other):
        stream = frame_stream("plain", eventful.parse(policy), scene_cuts=cuts)
        found.append(told(stream, frames, 4))
        assert found[-1][5][1].reason == "scene cut"
    before = [torch.equal(one[0], two[0]) for one, two in zip(*found, strict=True)]
    assert before == [True] * 5 + [False] * 7
    alone = told(frame_stream("plain", eventful.parse("carry:3")), video[5:], 4)
    if policy == "carry:3":
        for (one, _), (two, _) in zip(found[0][5:], alone, strict=True):
            assert relative(one, two) < 1e-6


def test_memory_stays_what_it_is_and_is_told():
    stream, seen = frame_stream("plain", eventful.Carry(4)), []
    frames = (frame.clone() for frame in clip(40, batch=1))
    for _ in stream.run(frames, lookahead=5):
        seen.append(held_bytes(stream, stream._ahead))
        assert stream.stats.state_bytes == pytest.approx(seen[-1], rel=0.02)
    assert max(seen[8:20]) == max(seen[20:33])


def test_outputs_are_nobody_elses_and_a_head_can_be_trained_on_them():
    video = clip(9, batch=1)
    expected = [y.clone() for y, _ in told(frame_stream("plain"), video, 4)]
    head = nn.Linear(24, 1)
    with torch.inference_mode():
        run = frame_stream("plain").run(video, lookahead=4)
        outputs = list(run)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert torch.equal(ours, theirs)
        head(ours).sum().backward()
        ours.zero_()
    again = frame_stream("plain").run(video, lookahead=4)
    for output, theirs in zip(again, expected, strict=True):
        assert torch.equal(output, theirs)
        output.zero_()  # what is to come does not depend on it


def test_a_frames_memory_may_be_used_again():
    video = clip(12, batch=1)
    expected = list(frame_stream("plain").run(video.clone(), lookahead=4))
    buffer = torch.empty_like(video[0])
    outputs = list(frame_stream("plain").run((buffer.copy_(x) for x in video), lookahead=4))
    assert all(map(torch.equal, outputs, expected))


def test_frames_wait_through_a_change_of_weights():
    stream, video = frame_stream("plain", eventful.Auto(share=0.5)), clip(12, batch=1)
    reasons = []
    for number, output in enumerate(stream.run(video, lookahead=4)):
        reasons.append(stream.stats.rows[0].reason)
        assert output.isfinite().all()
        if number == 2:
            with torch.no_grad():
                stream._bound.model.blocks[0].mlp.fc1.weight.mul_(1.5)
    assert reasons.count("weights changed") == 1
    assert "from one side" in reasons[3 : reasons.index("weights changed")]


def test_still_frames_repeat_the_output_before_them():
    video = clip(4, batch=1)
    frames = [video[0], *[video[1]] * 3, video[2]]
    stream = frame_stream("plain", eventful.Auto(share=0.5))
    outputs = told(stream, frames, 8)
    assert [row.reason for _, row in outputs][2:4] == ["nothing moved"] * 2
    assert torch.equal(outputs[1][0], outputs[2][0])
    assert torch.equal(outputs[1][0], outputs[3][0])
    assert outputs[1][0].data_ptr() != outputs[2][0].data_ptr()


Pair = namedtuple("Pair", "tokens scores")


class Odd(nn.Module):
    """Returns something that batches make other things of."""

    def __init__(self, kind):
        super().__init__()
        self.body, self.kind = build("plain"), kind

    def forward(self, x):
        y = self.body.forward_features(x)
        if self.kind == "a list of images":
            return [{"boxes": row[:3]} for row in y]
        if self.kind == "tokens of all images":
            return y.flatten(0, 1)
        if self.kind == "an object":
            found = type("Found", (), {})()
            found.tokens = y
            return found
        return Pair({"y": y, "name": "same"}, (y.mean(1), None, 3))


def leaves(output):
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, dict):
        return [t for x in output.values() for t in leaves(x)]
    if isinstance(output, list | tuple):
        return [t for x in output for t in leaves(x)]
    return [output.tokens] if hasattr(output, "tokens") else []


@pytest.mark.parametrize("kind", ["pairs", "a list of images", "tokens of all images", "an object"])
def test_frames_run_together_return_what_they_do_alone(kind, monkeypatch):
    video = clip(9, batch=1)
    options = {"method": "forward"}
    found = []
    for at_once in (8, 1):
        monkeypatch.setattr("eventful.stream.lookahead.AT_ONCE", at_once)
        model = eventful.convert(Odd(kind).eval(), eventful.Auto(share=0.5))
        stream = eventful.Stream(
            model, costs=COSTS, scene_cuts=None, pixels=lambda x: x * 0.2 + 0.5, **options
        )
        found.append([leaves(y) for y in stream.run(video, lookahead=8)])
        assert {"partial"} < set(stream.stats.kinds)
    for together, alone in zip(*found, strict=True):
        assert [x.shape for x in together] == [x.shape for x in alone]
        assert max(relative(a, b) for a, b in zip(together, alone, strict=True)) < 1e-5


def test_policies_may_change_on_the_way_but_not_their_kind():
    stream, video = frame_stream("plain", eventful.Auto(share=0.5)), clip(30, batch=1)
    for number, _ in enumerate(stream.run(video, lookahead=3)):
        if number == 5:
            stream.policy = eventful.Auto(share=0.15)
        if number == 10:
            with pytest.raises(ValueError, match="has no dense frames to wait for"):
                stream.policy = eventful.Auto(share=0.3, worst=0.5)
    stream.policy = eventful.Auto(share=0.5)
    run = stream.run(video, lookahead=3)
    next(run)
    stream.policy = eventful.Carry(3)
    with pytest.raises(ValueError, match=r"keeps to Auto, or to Carry, got carry:3"):
        list(run)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("skip:3", "skip:3 sees no picture; with lookahead use Auto"),
        ("latency:40", "latency:40 has no dense frames to wait for"),
        ("auto:0.3/0.5", "auto:0.3/0.5 has no dense frames to wait for"),
        ("top:3", "token policies have none; set stream.policy"),
    ],
)
def test_policies_without_dense_frames_to_wait_for_are_refused_at_once(policy, message):
    stream = frame_stream("plain", eventful.parse(policy))
    with pytest.raises(ValueError, match=message):
        stream.run(clip(3, batch=1), lookahead=2)
    stream(clip(1)[0])  # and it still runs


@pytest.mark.parametrize("lookahead", [-1, 1.5, "3", True])
def test_lookahead_is_a_number_of_frames(lookahead):
    with pytest.raises(ValueError, match="needs a whole number of frames"):
        frame_stream("plain").run([], lookahead=lookahead)


def test_batches_are_refused_by_name():
    with pytest.raises(ValueError, match="one video in a stream, got a batch of 2"):
        list(frame_stream("plain").run(clip(3), lookahead=2))


def test_while_frames_wait_nothing_else_goes_through():
    stream, video = frame_stream("plain"), clip(9, batch=1)
    run = stream.run(video, lookahead=3)
    first = next(run)
    for disturb in (
        lambda: stream(video[0]),
        stream.snapshot,
        lambda: stream.load_snapshot({}),
        lambda: next(stream.run(video, lookahead=2)),
    ):
        with pytest.raises(RuntimeError, match="while frames of a run with lookahead wait"):
            disturb()
    assert len(list(run)) == 8
    assert torch.equal(stream(video[0]), first)  # in full
    assert stream.stats.flush_reasons == {"first frame": 1, "requested": 1}


def test_a_run_may_be_left_half_way():
    stream, video = frame_stream("plain"), clip(9, batch=1)
    run = stream.run(video, lookahead=3)
    next(run), next(run)
    run.close()
    control = frame_stream("plain")
    for frame in video:
        assert torch.equal(stream(frame), control(frame))
    stream.run(video, lookahead=2)  # never begun
    stream(video[0])


def test_a_frame_that_is_refused_ends_the_run_and_not_the_stream():
    stream, video = frame_stream("plain"), clip(9, batch=1)
    frames = [*video[:4], video[4] * torch.nan, *video[5:]]
    with pytest.raises(ValueError, match="frame 4 holds NaN"):
        list(stream.run(frames, lookahead=3))
    outputs = list(stream.run(video, lookahead=3))
    expected = list(frame_stream("plain").run(video, lookahead=3))
    assert all(map(torch.equal, outputs, expected))


def test_a_reset_on_the_way_begins_another_video():
    stream, video = frame_stream("plain", eventful.Carry(4)), clip(10, batch=1)
    rows = []
    for number, _ in enumerate(stream.run(video, lookahead=3)):
        rows.append(stream.stats.rows[0])
        if number == 3:  # frame 6 has been taken in
            stream.reset()
    assert (rows[7].kind, rows[7].reason) == ("dense", "requested")
    assert [row.reason for row in rows[5:7]] == ["from one side"] * 2


def test_frames_may_change_in_size_on_the_way():
    model = eventful.convert(build("no_class_token"), eventful.Carry(3))
    stream = eventful.Stream(model, scene_cuts=None, pixels=lambda x: x * 0.2 + 0.5)
    del model
    video = [*clip(5, batch=1), *clip(5, batch=1).double()]
    rows = [row for _, row in told(stream, video, 4)]
    assert [row.kind for row in rows].count("dense") >= 3
    assert len(rows) == 10


MOVING = eventful.Costs(dense=100.0, carried=2.0, held=1.0, partial=60.0, token=1.0)


def follow(policy, frames, one, ratio=0.8, lookahead=16):
    """Follow a plan with lookahead; `one` gives the true error from one side by its distance."""
    plan, since, errors, spent = Automatic(policy, MOVING, 64, lookahead), [0.0], [], 1.0
    sides, ones, last = Sides(lookahead, ratio), torch.ones(64), None
    for _ in range(frames):
        age = len(since)
        choice = plan.decide(0.02 * age)
        if choice.kind != "dense":
            since.append(one(age))
            spent += MOVING.share(choice.tokens)
            continue
        errors += [0.0, *sides.shown(since[1:])]
        if last is not None:
            error = sides.both(one(last), one(age))
            squares = error**2 * ones / 64
            plan.learn_both(Seen(error, one(last), squares, squares, ones, last, age))
        squares = one(age) ** 2 * ones / 64
        plan.learn(Check(one(age), 1.2 * one(age), squares, squares, ones))
        last, since, spent = age, [0.0], spent + 1
    return sum(errors[25:]) / len(errors[25:]), spent / frames, plan


@pytest.mark.parametrize("ratio", [0.6, 0.8, 1.0])
@pytest.mark.parametrize("target", [0.1, 0.15, 0.3])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_an_error_is_held_from_both_sides_too(target, scale, ratio):
    policy = eventful.Auto(max_error=target)
    mean, cost, plan = follow(policy, 600, lambda age: scale * 0.1 * age**0.6, ratio)
    assert 0.75 * target <= mean <= 1.05 * target or cost < 0.02 + 1.2 / LONGEST
    assert plan.sides.ratio == pytest.approx(ratio, abs=0.1)
    _, causal, _ = follow(policy, 600, lambda age: scale * 0.1 * age**0.6, ratio, lookahead=0)
    assert cost < causal or ratio == 1


def test_a_budget_is_used_up_and_no_more_from_both_sides_too():
    for share in (0.1, 0.24, 0.5):
        policy = eventful.Auto(share=share)
        _, used, _ = follow(policy, 600, lambda age: 0.1 * age**0.35)
        assert used == pytest.approx(share, rel=0.05)


def test_of_two_estimates_that_are_alike_half_the_variance_is_left():
    sides = Sides(ahead=8, ratio=1 / math.sqrt(2))
    assert sides.both(0.2, 0.2) == pytest.approx(0.2 / math.sqrt(2))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 100_000, generator=generator) * torch.tensor([[0.1], [0.3]])
    shares = torch.tensor([0.9, 0.1])  # by inverse variances
    assert sides.both(0.1, 0.3) == pytest.approx((shares @ noise).std().item(), rel=0.02)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_runtime_gives_what_pytorch_does(runtime, monkeypatch):
    libraries = {"openvino": ["openvino"], "onnxruntime": ["onnxruntime", "onnxscript"]}
    for library in libraries[runtime]:
        pytest.importorskip(library)
    planned(monkeypatch, "c p3 p4 c d p2 d p1 c d")
    video = clip(11, batch=1)
    ours = told(frame_stream("registers", runtime=runtime), video, 6)
    theirs = told(frame_stream("registers"), video, 6)
    for (output, row), (expected, known) in zip(ours, theirs, strict=True):
        assert relative(output, expected) < 3e-5
        assert row._replace(error=None) == known._replace(error=None)
        assert row.error == (None if known.error is None else pytest.approx(known.error, rel=1e-4))


def test_a_still_camera_costs_next_to_nothing():
    stream = frame_stream("plain", eventful.Auto(share=0.5))
    outputs = list(stream.run(still(20, batch=1), lookahead=6))
    assert stream.stats.kinds == {"dense": 1, "held": 19}
    assert all(torch.equal(output, outputs[0]) for output in outputs)
