"""Streams that hold an error or a time: small models, an injected clock, real video."""

import itertools
import os
from pathlib import Path

import pytest
import torch

import eventful
from eventful.models import saliency_vit
from eventful.stream import budget
from eventful.video import Reader
from tests.zoo import build, clip, relative, same, stream_of

TOP = eventful.TopR(3)


def steered(policy=TOP, name="plain", method="forward_features", scene_cuts=None, **options):
    model = eventful.convert(build(name), policy)
    return eventful.Stream(model, scene_cuts=scene_cuts, method=method, **options)


def dense(stream, frame):
    with torch.no_grad():
        return stream._originals[0].forward_features(frame)


def reasons(stream):
    return {f.frame: f.reason for f in stream.stats.flushes}


def test_without_targets_nothing_is_reported_or_moved():
    stream = stream_of("plain", TOP)
    for frame in clip(5):
        stream(frame)
    assert (stream.stats.error, stream.stats.latency, stream.stats.target_met) == (None,) * 3
    assert stream.policy == TOP
    assert stream.snapshot()["steering"] is None


@pytest.mark.parametrize("policy", [TOP, eventful.TopFraction(0.3), eventful.Threshold(3.0)])
def test_checks_return_the_dense_output_and_are_flushes(policy):
    stream = steered(policy, max_error=0.5, check_every=4)
    for number, frame in enumerate(clip(16)):
        y = stream(frame)
        if number in reasons(stream):
            assert relative(y, dense(stream, frame)) < 2e-5
    assert stream.stats.error.checks >= 3


def test_checks_are_listed_and_counted_and_come_sooner_at_first():
    stream = steered(max_error=0.5, check_every=4)
    for frame in clip(16):
        stream(frame)
    assert [n for n, r in reasons(stream).items() if r == "error check"] == [1, 3, 7, 11, 15]
    held = stream.stats.error
    assert (held.checks, held.share) == (5, 5 / 16)
    assert stream.stats.flush_reasons == {"first frame": 2, "error check": 10}


def test_the_error_at_a_check_is_that_of_the_output_it_replaces():
    """On the first check the budget is still the policy's own, as without a target."""
    stream, plain = steered(max_error=0.05), steered()
    video = clip(2)
    plain_output = None
    for frame in video:
        stream(frame)
        plain_output = plain(frame)
    exact = dense(plain, video[1])
    errors = [relative(plain_output[row], exact[row]) for row in range(2)]
    assert stream.stats.error.last == pytest.approx(max(errors), rel=1e-4)
    spent = plain.stats.operations.total
    assert stream.stats.error.operations == spent
    assert stream.stats.operations.total > plain.stats.dense_operations.total


def test_a_harder_target_costs_more_and_errs_less():
    def run(target):
        stream = steered(max_error=target, check_every=5)
        errors = []
        for number, frame in enumerate(clip(60)):
            y = stream(frame)
            if number not in reasons(stream):
                errors.append(relative(y, dense(stream, frame)))
        return sum(errors[10:]) / len(errors[10:]), stream.stats.ratio

    (loose, cheap), (tight, dear) = run(0.5), run(0.1)
    assert tight < loose
    assert dear < cheap
    assert tight < 1.3 * 0.1


def test_a_still_video_comes_to_the_least_budget():
    stream = steered(max_error=0.05)
    frame = clip(1)[0]
    for _ in range(40):
        stream(frame)
    assert stream.policy == eventful.TopR(1)
    assert stream.stats.error.limit == "least"
    assert stream.stats.target_met


def still_busy_cut():
    """Sixty frames of one picture, ninety on which it wanders, and seventy of another."""
    draw = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 1, 3, 12, 20, generator=draw)
    yield from [first] * 60
    for scene, frames, pace in ((first, 90, 0.08), (second, 70, 0.12)):
        x = scene
        for _ in range(frames):
            x = 0.97 * (x + pace * torch.randn(x.shape, generator=draw)) + 0.03 * scene
            yield x


def test_a_cut_and_a_change_from_still_to_busy_are_held():
    target = 0.3
    stream = steered(max_error=target, scene_cuts=eventful.SceneCuts())
    errors = []
    for number, frame in enumerate(still_busy_cut()):
        y = stream(frame)
        if number not in reasons(stream):
            errors.append(relative(y, dense(stream, frame)))
    means = [sum(errors[i : i + 50]) / 50 for i in range(len(errors) - 49)]
    assert max(means) < 1.1 * target
    assert min(means[-80:]) > 0.75 * target
    listed = reasons(stream)
    assert listed[150] == "scene cut"
    assert listed[60] == "error check"  # the first frame that moves
    assert {152, 156} <= {n for n, reason in listed.items() if reason == "error check"}


def test_a_target_that_is_out_of_reach_runs_nearly_everything_and_is_said():
    stream = steered(max_error=1e-4)
    used = []
    for number, frame in enumerate(clip(60)):
        stream(frame)
        if number not in reasons(stream):
            used.append(stream._steering._count)
    assert sum(used[10:]) / len(used[10:]) > 14.5
    assert not stream.stats.error.met
    assert "missed" in str(stream.stats)


def test_policies_of_one_kind_keep_pace():
    stream = steered({"*.qkv": eventful.TopR(2), "*.proj": eventful.TopR(4), "*.mlp": TOP})
    moved = budget.Budget(stream.policy).at(4, 0.0, dict.fromkeys(stream.gates, 15))
    assert moved["blocks.1.qkv"] == eventful.TopR(4)
    assert moved["blocks.1.proj"] == eventful.TopR(8)
    assert moved["blocks.2.mlp"] == eventful.TopR(6)


def test_a_snapshot_goes_on_the_same():
    video = clip(24)
    stream = steered(max_error=0.1, check_every=5)
    for frame in video[:13]:
        stream(frame)
    saved = stream.snapshot()
    fresh = steered(eventful.TopFraction(0.5), max_error=0.1, check_every=5)
    fresh.load_snapshot(saved)
    for frame in video[13:]:
        assert torch.equal(fresh(frame), stream(frame))
    assert same(fresh.snapshot(), stream.snapshot())


@pytest.fixture
def seconds(monkeypatch):
    """A clock that moves by 1 ms for each token of the last frame; returns the stream's slot."""
    slot, now = [], [0.0]

    def clock():
        if slot and slot[0]._steering is not None:
            now[0] += 0.5e-3 * slot[0]._steering._count
        return now[0]

    monkeypatch.setattr("eventful.stream.stream._clock", clock)
    return slot


def test_a_time_is_held_by_the_number_of_tokens(seconds):
    stream = steered(eventful.TopR(12), latency_ms=3.0)
    seconds.append(stream)
    for frame in clip(60):
        stream(frame)
    held = stream.stats.latency
    assert held.target == 3.0
    assert held.mean == pytest.approx(3.0, rel=0.3)
    assert stream.policy.r < 12
    assert stream.stats.error is None


def test_of_both_targets_the_smaller_budget_wins(seconds):
    def counts(**targets):
        seconds.clear()
        stream = steered(eventful.TopR(12), **targets)
        seconds.append(stream)
        used = []
        for number, frame in enumerate(clip(40)):
            stream(frame)
            if number not in reasons(stream):
                used.append(stream._steering._count)
        return sum(used) / len(used), stream

    exact, _ = counts(max_error=0.1)
    fast, _ = counts(latency_ms=2.0)
    assert fast < exact
    short, stream = counts(max_error=0.1, latency_ms=2.0)
    assert short == pytest.approx(fast, rel=0.2)
    assert stream.stats.latency.met
    assert not stream.stats.error.met
    assert stream.stats.target_met is False
    roomy, stream = counts(max_error=0.1, latency_ms=1000.0)
    assert roomy == pytest.approx(exact, rel=0.02)
    assert stream.stats.latency.met


def test_a_snapshot_carries_times_too(seconds):
    def fresh():
        return steered(eventful.TopR(12), latency_ms=3.0)

    stream, video = fresh(), clip(16)
    seconds.append(stream)
    for frame in video:
        stream(frame)
    twin = fresh()
    twin.load_snapshot(stream.snapshot())
    assert twin.stats.latency == stream.stats.latency
    assert twin._steering.state() == stream._steering.state()
    assert twin.policy == stream.policy


def test_a_time_out_of_reach_is_said(seconds):
    stream = steered(eventful.TopR(12), latency_ms=0.01)
    seconds.append(stream)
    for frame in clip(40):
        stream(frame)
    assert stream.stats.latency.limit == "least"
    assert stream.stats.target_met is False
    assert "missed, with the least budget there is (top:1)" in str(stream.stats)


REFUSED = {
    "zero": ({"max_error": 0}, ValueError, "max_error must be above 0"),
    "nan": ({"max_error": float("nan")}, ValueError, "max_error must be above 0"),
    "text": ({"max_error": "2 %"}, TypeError, "max_error must be a number"),
    "bool": ({"max_error": True}, TypeError, "max_error must be a number"),
    "time": ({"latency_ms": -1}, ValueError, "latency_ms must be above 0"),
    "every": ({"max_error": 0.1, "check_every": 0}, ValueError, "check_every must be at least 1"),
    "part": ({"max_error": 0.1, "check_every": 2.5}, TypeError, "check_every must be a whole"),
    "compile": ({"max_error": 0.1, "compile": True}, ValueError, "leave compile=False"),
    "all": ({"max_error": 0.1, "policy": eventful.KeepAll()}, ValueError, "none that can be moved"),
    "nothing": ({"max_error": 0.1, "policy": eventful.Threshold(0)}, ValueError, "above 0"),
    "mixed": (
        {"latency_ms": 5, "policy": {"*": TOP, "*.mlp": eventful.Threshold(1.0)}},
        ValueError,
        "several: Threshold, TopR",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_targets_are_refused(case):
    options, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        steered(**options)


def test_a_policy_that_cannot_be_moved_is_refused_later_too():
    stream = steered(max_error=0.1)
    with pytest.raises(ValueError, match="none that can be moved"):
        stream.policy = eventful.KeepAll()
    assert stream.policy == TOP


def test_an_output_without_a_floating_point_tensor_is_refused(monkeypatch):
    model = eventful.convert(build("plain"), TOP)
    monkeypatch.setattr(type(model), "best", lambda self, x: self(x).argmax(1), raising=False)
    stream = eventful.Stream(model, max_error=0.1, method="best")
    with pytest.raises(ValueError, match="compares floating-point tensors"):
        stream(clip(1)[0])
    assert stream.stats.frames == 0


def test_of_nested_outputs_the_worst_tensor_counts_row_by_row():
    a, b = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.ones(2, 3)
    exact = {"a": a, "more": [b, (torch.ones(2, dtype=torch.int64), None)]}
    rough = {"a": a * torch.tensor([[1.1], [1.0]]), "more": [b * 1.05, (None, None)]}
    assert budget.relative_errors(rough, exact, 2) == pytest.approx([0.1, 0.05], rel=1e-5)


@pytest.mark.slow
def test_real_video_is_held():
    """vtest at a small size: the mean error of frames that are not flushes, after the start."""
    if "EVENTFUL_DATA" not in os.environ:
        pytest.skip("set EVENTFUL_DATA to the folder with vtest/vtest.avi")
    path = Path(os.environ["EVENTFUL_DATA"]) / "vtest" / "vtest.avi"
    reader = Reader(path, 224, keep_aspect=True)
    plain = saliency_vit((reader.height, reader.width)).backbone
    model = eventful.convert(saliency_vit((reader.height, reader.width)).backbone, TOP)
    options = {"normalize": True, "method": "forward_features"}
    stream = eventful.Stream(model, max_error=0.1, **options)
    mean, std = (torch.tensor(plain.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    errors = []
    for number, frame in enumerate(itertools.islice(reader, 90)):
        y = stream(frame.image)
        if number not in reasons(stream):
            with torch.inference_mode():
                errors.append(relative(y, plain.forward_features((frame.image - mean) / std)))
    assert sum(errors[-50:]) / 50 < 1.25 * 0.1
