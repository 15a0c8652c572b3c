"""Streams under frame policies: what changes them in mid-stream."""

import copy
import threading
import types

import pytest
import torch

import eventful
from eventful.stream.costs import Costs
from tests.laws.frames import (
    COSTS,
    NoMotion,
    WholePatches,
    flow_is,
    frame_stream,
    kinds,
    pixels,
    scripted,
    still,
)
from tests.zoo import build, clip, relative

DOUBLE = torch.float64
KINDS = {"dense", "partial", "carried", "held"}


@pytest.fixture(autouse=True)
def _no_motion(monkeypatch):
    flow_is(monkeypatch, NoMotion)


def dense(model, frame):
    with torch.inference_mode():
        return model.forward_features(frame)


class TestPolicies:
    def test_auto_to_auto_keeps_what_is_known(self):
        stream = frame_stream("plain", eventful.Auto(share=0.3))
        for frame in clip(3):
            stream(frame)
        for policy in (
            eventful.Auto(share=0.5),
            eventful.Auto(share=0.5, worst=0.7),
            eventful.Auto(max_error=0.2),
            eventful.Auto(share=0.1),
        ):
            stream.policy = policy
            stream(frame)
            assert stream.policy == policy
        assert set(stream.stats.flush_reasons) == {"first frame"}

    def test_from_time_to_operations_all_begins_anew(self):
        model = eventful.convert(build("plain"), eventful.Auto(max_error=0.1))
        stream = eventful.Stream(model, pixels=pixels, method="forward_features", scene_cuts=None)
        first, second, third = clip(3)
        stream(first), stream(second)
        for policy in (eventful.Auto(max_error=0.3), eventful.Auto(latency_ms=1000)):
            stream.policy = policy
            stream(third)
        assert set(stream.stats.flush_reasons) == {"first frame"}
        stream.policy = eventful.Auto(share=0.1)  # counts operations instead
        stream(third)
        assert set(stream.stats.flush_reasons) == {"first frame", "another kind of policy"}

    def test_a_time_is_not_held_by_costs_in_operations(self):
        model = eventful.convert(build("plain"), eventful.Auto(share=0.3))
        stream = eventful.Stream(model, pixels=pixels, method="forward_features")
        first, second, third = clip(3)
        stream(first), stream(second)
        assert stream.costs.unit == "operations"
        stream.policy = eventful.Auto(latency_ms=1000)
        stream(third)
        assert stream.costs.unit == "ms"
        assert stream.stats.flush_reasons["another kind of policy"] == 2
        counted = Costs(1e9, 1e7, 1e7, 1e7, 1e5, unit="operations")
        with pytest.raises(ValueError, match="latency:40 needs costs in milliseconds"):
            eventful.Stream(model, policy=eventful.Auto(latency_ms=40), costs=counted)
        stream = eventful.Stream(model, pixels=pixels, costs=counted)
        with pytest.raises(ValueError, match="latency:40 needs costs in milliseconds"):
            stream.policy = eventful.Auto(latency_ms=40)
        assert stream.policy == eventful.Auto(share=0.3)

    @pytest.mark.parametrize("policy", ["auto:0.3", "carry:3", "skip:3", "top:3"])
    @pytest.mark.parametrize("other", ["top:5", "auto:0.5", "carry:2", "skip:2"])
    def test_another_kind_of_policy_begins_anew(self, policy, other):
        before, after = eventful.parse(policy), eventful.parse(other)
        stream, frame = frame_stream("dinov3", before, DOUBLE), None
        for frame in clip(3, dtype=DOUBLE):
            stream(frame)
        last = clip(4, dtype=DOUBLE)[-1]
        stream.policy = after
        if type(before) is type(after):
            stream(last)
            assert set(stream.stats.flush_reasons) == {"first frame"}
            return
        with pytest.raises(ValueError, match="nothing to save after another kind of policy"):
            stream.snapshot()
        assert relative(stream(last), dense(build("dinov3", DOUBLE), last)) < 1e-12
        assert stream.stats.flush_reasons == {"first frame": 2, "another kind of policy": 2}
        stream.policy = before
        assert relative(stream(last), dense(build("dinov3", DOUBLE), last)) < 1e-12
        assert stream.stats.flush_reasons["another kind of policy"] == 4

    def test_a_model_converted_without_a_policy_runs_auto(self):
        model = eventful.convert(build("plain"))
        stream = eventful.Stream(model, pixels=pixels, costs=COSTS)
        assert stream.policy == eventful.Auto(max_error=0.15)
        for frame in clip(3):
            assert stream(frame).shape == (2, 7)
        assert {row.kind for row in stream.stats.rows} <= KINDS

    @pytest.mark.parametrize("policy", [eventful.Auto(), eventful.Carry(3), eventful.Skip(3)])
    def test_frame_policies_do_not_compile(self, policy):
        model = eventful.convert(build("plain"), policy)
        with pytest.raises(ValueError, match="compile=True serves token policies"):
            eventful.Stream(model, compile=True)
        stream = eventful.Stream(model, policy=eventful.TopR(3), compile=True)
        with pytest.raises(ValueError, match="compile=True serves token policies"):
            stream.policy = policy
        assert stream.policy == eventful.TopR(3)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"share": 0}, "above 0 and at most 1"),
            ({"share": 1.5}, "above 0 and at most 1"),
            ({"time": float("nan")}, "above 0"),
            ({"max_error": -1}, "above 0 and at most 1"),
            ({"max_error": 15}, r"at most 1 \(0.15 is 15 %\), got 15"),
            ({"max_error": float("inf")}, "above 0 and at most 1"),
            ({"latency_ms": float("inf")}, "above 0 and finite"),
            ({"latency_ms": True}, "above 0"),
            ({"share": 0.2, "time": 0.2}, "takes one of"),
            ({"share": 0.5, "worst": 0.2}, "from 0.5 to 1"),
            ({"worst": 0.5}, "not with max_error"),
            ({"latency_ms": 40, "worst": 0.5}, "not with latency_ms"),
        ],
    )
    def test_targets_out_of_range_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            eventful.Auto(**arguments)

    @pytest.mark.parametrize("share", [1 / 3, 0.1 + 0.2, 1e-7, 0.25, 1.0])
    def test_the_text_of_auto_reads_back_as_the_same(self, share):
        for policy in (
            eventful.Auto(share=share),
            eventful.Auto(latency_ms=1234567 * share),
            eventful.Auto(share=share, worst=max(share, 2 / 3)),
        ):
            assert eventful.parse(str(policy)) == policy


class TestSceneCuts:
    @pytest.mark.parametrize("policy", ["auto:0.3", "error:0.1", "carry:9"])
    def test_bring_a_dense_frame_of_their_row(self, policy):
        cuts = eventful.SceneCuts(level=0.1, jump=3.0)
        stream = frame_stream("plain", eventful.parse(policy), DOUBLE, scene_cuts=cuts)
        video = still(6, dtype=DOUBLE)
        for frame in video[4:]:
            frame[1] = -frame[1] - 1
        for t, frame in enumerate(video):
            output = stream(frame)
            if t == 4:
                model = build("plain", DOUBLE)
                assert relative(output[1], dense(model, frame)[1]) < 1e-12
                assert [row.kind for row in stream.stats.rows][1] == "dense"
                assert stream.stats.rows[1].reason == "scene cut"
        assert stream.stats.flush_reasons == {"first frame": 2, "scene cut": 1}

    @pytest.mark.parametrize("policy", ["auto:0.3/0.4", "latency:40"])
    def test_behind_which_nothing_moves_are_made_good_where_no_dense_frame_fits(
        self, policy, monkeypatch
    ):
        """Every token is recomputed, the picture standing still meanwhile."""
        cuts = eventful.SceneCuts(level=0.1, jump=3.0)
        stream = frame_stream("no_class_token", eventful.parse(policy), DOUBLE, scene_cuts=cuts)
        monkeypatch.setattr(eventful.stream.flat.Flat, "clock", lambda self, ms: None)
        first, other = still(1, batch=1, dtype=DOUBLE)[0], -still(1, batch=1, dtype=DOUBLE)[0] - 1
        stream(first), stream(first)
        tokens = []
        for _ in range(8):
            output = stream(other)
            tokens.append(stream.stats.rows[0].tokens)
            assert (stream.stats.rows[0].kind == "partial") == (tokens[-1] > 0)
        assert sum(tokens) >= 15
        before = dense(build("no_class_token", DOUBLE), first)
        after = dense(build("no_class_token", DOUBLE), other)
        assert relative(output, after) < 0.9 * relative(before, after)


def test_another_number_of_rows_begins_anew():
    stream = frame_stream("plain", dtype=DOUBLE)
    for batch in (2, 3, 1):
        for frame in clip(2, batch=batch, dtype=DOUBLE):
            output = stream(frame)
        assert len(output) == len(stream.stats.rows) == batch
    reasons = list(stream.stats.flush_reasons)
    assert reasons[1].startswith("frame size changed from (2, 3, 12, 20) to (3, 3, 12, 20)")


@pytest.mark.parametrize("part", ["blocks.1.mlp", "norm"])
def test_a_frame_that_fails_is_followed_by_a_full_one(part):
    stream, video = frame_stream("plain", dtype=DOUBLE), clip(5, dtype=DOUBLE)
    scripted(stream, video[0], "p3 p3 p3 p3", "c p3 p3 p3")
    stream(video[1])

    def pull(*_):
        raise RuntimeError("pulled the plug")

    hook = stream._bound.model.get_submodule(part).register_forward_pre_hook(pull)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        stream(video[2])
    hook.remove()
    model = eventful.restore(copy.deepcopy(stream._bound.model))
    assert relative(stream(video[3]), dense(model, video[3])) < 1e-12
    assert stream.stats.flush_reasons == {"first frame": 2, "interrupted": 2}
    stream(video[4])
    assert stream.stats.frames == 4


MEAN, STD = (0.4, 0.5, 0.7), (0.2, 0.3, 0.45)


@pytest.mark.parametrize("policy", ["auto:0.5", "carry:3"])
def test_normalisation_may_be_told_in_three_ways(policy, monkeypatch):
    flow_is(monkeypatch, WholePatches)
    model = build("plain")
    model.pretrained_cfg = {"mean": MEAN, "std": STD}
    model = eventful.convert(model, eventful.parse(policy))
    processor = types.SimpleNamespace(image_mean=list(MEAN), image_std=list(STD))
    options = {"scene_cuts": None, "costs": COSTS}
    streams = [
        eventful.Stream(model, normalize=way, **options) for way in (True, (MEAN, STD), processor)
    ]
    normalised = eventful.Stream(model, **options)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    for frame in clip(6):
        picture = pixels(frame)
        expected = normalised((picture - mean) / std)
        for stream in streams:
            torch.testing.assert_close(stream(picture), expected)
            assert kinds(stream) == kinds(normalised)


@pytest.mark.parametrize("state_dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["plain", "dinov3", "sam", "vitdet"])
def test_narrow_state_is_near_and_takes_less(name, state_dtype, tmp_path):
    texts = "p3 c p5 h d p4 c", "c p4 d p2 h p1 p15"
    wide, video = frame_stream(name), clip(8)
    narrow, other = (frame_stream(name, state_dtype=state_dtype) for _ in range(2))
    scripted(wide, video[0], *texts), scripted(narrow, video[0], *texts)
    for frame in video[1:]:
        assert relative(narrow(frame), wide(frame)) < 0.05
    sizes = [
        sum(
            kept.nbytes
            for block in stream._bound.blocks.values()
            for kept in block.binding.state.kv
        )
        for stream in (narrow, wide)
    ]
    assert 2 * sizes[0] == sizes[1]
    stream = frame_stream(name, state_dtype=state_dtype)
    for frame in (*video[:4], video[3]):
        stream(frame)
    stream.snapshot(tmp_path / "s")
    other.load_snapshot(tmp_path / "s")
    for frame in (video[3], *video[4:]):
        assert torch.equal(stream(frame), other(frame))
    with pytest.raises(ValueError, match="state_dtype"):
        wide.load_snapshot(tmp_path / "s")


@pytest.mark.parametrize("policy", ["auto:0.5", "auto:0.3/0.6", "carry:3", "skip:3"])
def test_streams_of_one_model_in_threads_do_not_see_each_other(policy, monkeypatch):
    monkeypatch.undo()  # the true flow
    model = eventful.convert(build("rope_mixed"), eventful.parse(policy))

    def outputs(seed):
        stream = eventful.Stream(
            model,
            pixels=lambda x: pixels(x).repeat_interleave(4, 2).repeat_interleave(4, 3),
            costs=COSTS,
            scene_cuts=None,
        )
        return [stream(frame) for frame in clip(10, batch=1, seed=seed)]

    expected = [outputs(seed) for seed in range(3)]
    found = [None] * 3
    threads = [
        threading.Thread(target=lambda i=i: found.__setitem__(i, outputs(i))) for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(found, expected, strict=True):
        assert all(map(torch.equal, ours, theirs))


def test_costs_are_measured_once_for_a_shape_of_frames(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "eventful.stream.measure.timed_costs",
        lambda *given, beside: (calls.append(given), eventful.Costs(100.0, 2.0, 1.0, 5.0, 3.0))[1],
    )
    stream = frame_stream("plain", eventful.Auto(time=0.5), costs=None)
    frames = clip(4, batch=1)
    for frame in frames[:2]:
        stream(frame)
    stream.reset()
    for frame in frames[2:]:
        stream(frame)
    assert stream.stats.flush_reasons == {"first frame": 1, "requested": 1}
    assert len(calls) == 1
