"""When a stream starts anew: resets, other sizes, interrupted frames, skipped blocks, cuts."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import eventful
from tests.zoo import TOLERANCE, build, clip, relative, same, stream_of

POLICY = eventful.TopR(3)
FORMS = ("dense", "query_key", "cached", "incremental")


def dense(stream, frame):
    """The converted model without a stream is the dense model."""
    with torch.inference_mode():
        return stream._bound.model.forward_features(frame)


def flushes(stream, start=0):
    return [(f.frame, f.row, f.reason) for f in stream.stats.flushes if f.frame >= start]


def stream_of_any_size():
    plain = build("plain")
    sizes = {"img_size": (12, 20), "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}
    model = VisionTransformer(**sizes, num_classes=7, dynamic_img_size=True).eval()
    model.load_state_dict(plain.state_dict())
    model = eventful.convert(model, POLICY)
    return eventful.Stream(model, scene_cuts=None, method="forward_features")


def test_the_first_frame_is_reported():
    stream, video = stream_of("plain", POLICY), clip(3)
    for frame in video:
        stream(frame)
    assert flushes(stream) == [(0, 0, "first frame"), (0, 1, "first frame")]
    assert stream.stats.flush_reasons == {"first frame": 2}


@pytest.mark.parametrize("attention", FORMS)
def test_reset_makes_the_next_frame_dense(attention):
    stream, video = stream_of("plain", POLICY, attention=attention), clip(5)
    for frame in video[:3]:
        stream(frame)
    stream.reset()
    stream.reset()
    assert relative(stream(video[3]), dense(stream, video[3])) < TOLERANCE[torch.float32]
    assert flushes(stream, 1) == [(3, 0, "requested"), (3, 1, "requested")]
    fresh = eventful.Stream(stream._bound.model, scene_cuts=None, method="forward_features")
    fresh(video[3])
    assert torch.equal(stream(video[4]), fresh(video[4]))
    assert flushes(stream, 4) == []


@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("prefix", ["always", "gated"])
def test_reset_of_a_row_leaves_the_others(attention, prefix):
    options = {"attention": attention, "prefix": prefix}
    stream, control = (stream_of("registers", POLICY, torch.float64, **options) for _ in range(2))
    video = clip(6, batch=3, dtype=torch.float64)
    for frame in video[:3]:
        stream(frame), control(frame)
    stream.reset([1])
    tolerance = TOLERANCE[torch.float64]
    output, kept = stream(video[3]), control(video[3])
    assert relative(output[1], dense(stream, video[3])[1]) < tolerance
    assert relative(kept[1], dense(stream, video[3])[1]) > 1e-3
    assert relative(output[[0, 2]], kept[[0, 2]]) < tolerance
    assert flushes(stream, 1) == [(3, 1, "requested")]
    chosen = 3 + 5 * (prefix == "always")
    assert stream.stats.updated == dict.fromkeys(stream.gates, (chosen, 20, chosen))
    fresh = stream_of("registers", POLICY, torch.float64, **options)
    fresh(video[3, 1:2])
    for frame in video[4:]:
        output = stream(frame)
        assert relative(output[1:2], fresh(frame[1:2])) < tolerance
        assert relative(output[[0, 2]], control(frame)[[0, 2]]) < tolerance


def test_resets_of_rows_add_up_and_a_reset_of_all_wins():
    stream, video = stream_of("plain", POLICY), clip(4, batch=3)
    stream(video[0])
    stream.reset([2])
    stream.reset([0, 2])
    stream(video[1])
    assert flushes(stream, 1) == [(1, 0, "requested"), (1, 2, "requested")]
    stream.reset([2])
    stream.reset()
    stream.reset([1])
    stream(video[2])
    assert flushes(stream, 2) == [(2, row, "requested") for row in range(3)]
    stream(video[3])
    assert flushes(stream, 3) == []


@pytest.mark.parametrize("rows", [[2], [-1], [0, 7]])
def test_reset_of_a_row_that_is_not_there_is_refused(rows):
    stream, video = stream_of("plain", POLICY), clip(2)
    stream(video[0])
    with pytest.raises(ValueError, match=r"rows must lie from 0 to 1, got"):
        stream.reset(rows)
    stream(video[1])
    assert flushes(stream, 1) == []


def test_reset_before_the_first_frame_asks_for_nothing():
    stream, video = stream_of("plain", POLICY), clip(2)
    stream.reset()
    stream.reset([0])
    for frame in video:
        stream(frame)
    assert stream.stats.flush_reasons == {"first frame": 2}


def test_another_frame_size_is_a_reported_reset():
    stream = stream_of_any_size()
    small, large = clip(2), torch.randn(2, 2, 3, 16, 28)
    sizes = []
    for frame in (*small, *large, small[0]):
        output = stream(frame)
        sizes.append(stream.stats.state_bytes)
        if stream.stats.updated["blocks.1.mlp"] != (4, 4):
            assert relative(output, dense(stream, frame)) < TOLERANCE[torch.float32]
    assert [f[0] for f in flushes(stream)] == [0, 0, 2, 2, 4, 4]
    assert [f[2] for f in flushes(stream)][::2] == [
        "first frame",
        "frame size changed from (2, 3, 12, 20) to (2, 3, 16, 28)",
        "frame size changed from (2, 3, 16, 28) to (2, 3, 12, 20)",
    ]
    assert sizes[0] == sizes[1] == sizes[4] < sizes[2] == sizes[3]
    assert stream.stats.dense_operations.other > 0


def test_a_policy_that_does_not_fit_the_new_size_leaves_the_old_state():
    stream, control = stream_of_any_size(), stream_of_any_size()
    video = clip(4)
    stream.policy = control.policy = eventful.TopR(10)
    for frame in video[:2]:
        stream(frame), control(frame)
    before = stream.snapshot()
    with pytest.raises(ValueError, match=r"TopR\(10\).*\(6\)"):
        stream(torch.randn(2, 3, 8, 12))
    assert same(stream.snapshot(), before)
    for frame in video[2:]:
        assert torch.equal(stream(frame), control(frame))


def test_another_number_of_rows_is_a_reported_reset():
    stream, video = stream_of("plain", POLICY), clip(3, batch=3)
    stream(video[0, :2]), stream(video[1, :2])
    assert relative(stream(video[2]), dense(stream, video[2])) < TOLERANCE[torch.float32]
    reason = "frame size changed from (2, 3, 12, 20) to (3, 3, 12, 20)"
    assert flushes(stream, 1) == [(2, row, reason) for row in range(3)]
    stream.reset([2])
    stream(video[2])
    assert flushes(stream, 3) == [(3, 2, "requested")]


def failing(module, error):
    """Let a module fail the next time it is called."""

    def fail(*_):
        handle.remove()
        raise error("pulled the plug")

    handle = module.register_forward_pre_hook(fail)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("part", ["blocks.0.attn.proj", "blocks.1.mlp", "norm"])
@pytest.mark.parametrize("asked", [False, True])
def test_a_frame_that_fails_halfway_is_followed_by_a_dense_one(error, part, asked):
    stream, video = stream_of("plain", POLICY), clip(6)
    for frame in video[:2]:
        stream(frame)
    if asked:
        stream.reset([1])
    failing(stream._bound.model.get_submodule(part), error)
    with pytest.raises(error, match="pulled the plug"):
        stream(video[2])
    assert stream.stats.frames == 2
    stream.reset([0])
    assert relative(stream(video[3]), dense(stream, video[3])) < TOLERANCE[torch.float32]
    assert flushes(stream, 1) == [(2, 0, "interrupted"), (2, 1, "interrupted")]
    fresh = eventful.Stream(stream._bound.model, scene_cuts=None, method="forward_features")
    fresh(video[3])
    assert torch.equal(stream(video[4]), fresh(video[4]))
    assert flushes(stream, 3) == []


def test_a_frame_that_fails_before_the_first_gate_never_came():
    stream, control = stream_of("plain", POLICY), stream_of("plain", POLICY)
    video = clip(5)
    for frame in video[:2]:
        stream(frame), control(frame)
    before = stream.snapshot()
    failing(stream._bound.model.patch_embed, RuntimeError)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        stream(video[2])
    assert same(stream.snapshot(), before)
    for frame in video[2:]:
        assert torch.equal(stream(frame), control(frame))


def test_a_first_frame_that_fails_leaves_no_state():
    stream, video = stream_of("plain", POLICY), clip(2)
    failing(stream._bound.model.blocks[1].mlp, RuntimeError)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        stream(video[0])
    with pytest.raises(ValueError, match="before the first frame"):
        stream.gate("blocks.0.qkv")
    assert relative(stream(video[1]), dense(stream, video[1])) < TOLERANCE[torch.float32]
    assert flushes(stream) == [(0, 0, "first frame"), (0, 1, "first frame")]


def test_a_reset_that_fails_is_tried_again():
    stream, video = stream_of("plain", POLICY), clip(3)
    stream(video[0])
    stream.reset()
    failing(stream._bound.model.blocks[1].mlp, RuntimeError)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        stream(video[1])
    assert relative(stream(video[2]), dense(stream, video[2])) < TOLERANCE[torch.float32]
    assert flushes(stream, 1) == [(1, 0, "requested"), (1, 1, "requested")]


def test_a_failure_of_one_stream_does_not_touch_another():
    model = eventful.convert(build("plain"), POLICY)
    first, second, control = (eventful.Stream(model, scene_cuts=None) for _ in range(3))
    video = clip(4)
    for frame in video[:2]:
        first(frame), second(frame), control(frame)
    failing(model.blocks[1].mlp, RuntimeError)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        first(video[2])
    for frame in video[2:]:
        assert torch.equal(second(frame), control(frame))


class Odd(VisionTransformer):
    """Has methods that leave blocks out, or run them twice."""

    def shallow(self, x):
        return self.blocks[0](self._pos_embed(self.patch_embed(x)))

    def twice(self, x):
        return self.blocks(self.forward_features(x))

    def none(self, x):
        return self.patch_embed(x)


@pytest.mark.parametrize(
    ("method", "counts"),
    [
        ("shallow", r"\{'blocks\.1': 0, 'blocks\.2': 0\}"),
        ("twice", r"\{'blocks\.0': 2, 'blocks\.1': 2, 'blocks\.2': 2\}"),
        ("none", r"\{'blocks\.0': 0, 'blocks\.1': 0, 'blocks\.2': 0\}"),
    ],
)
def test_blocks_that_do_not_run_once_are_an_error(method, counts):
    model = build("plain")
    model.__class__ = Odd
    model = eventful.convert(model, POLICY)
    stream = eventful.Stream(model, method=method)
    for frame in clip(2):
        with pytest.raises(RuntimeError, match=rf"must run once.*{counts}.*where="):
            stream(frame)
    assert stream.stats.frames == 0


def test_blocks_that_a_method_skips_may_be_left_out():
    model = build("plain")
    model.__class__ = Odd
    model = eventful.convert(model, eventful.KeepAll(), where=lambda name, _: name == "blocks.0")
    stream = eventful.Stream(model, method="shallow")
    for frame in clip(2):
        torch.testing.assert_close(stream(frame), model.shallow(frame).detach())


def test_a_block_that_runs_on_some_frames_only_is_an_error():
    model = build("plain")
    stream = eventful.Stream(eventful.convert(model, POLICY), scene_cuts=None)
    video = clip(3)
    stream(video[0])
    block = stream._bound.blocks["blocks.1"]
    block.forward = lambda x, **_: x
    with pytest.raises(RuntimeError, match=r"must run once.*\{'blocks\.1': 0\}"):
        stream(video[1])
    del block.forward
    stream(video[2])
    assert flushes(stream, 1) == [(1, 0, "interrupted"), (1, 1, "interrupted")]


CUTS = eventful.SceneCuts(level=0.9)


def clip_with_a_cut(batch=2, dtype=torch.float64):
    """Row 0 shows another scene from frame 5 on."""
    video, other = clip(9, batch, dtype), clip(9, batch, dtype, seed=9)
    video[5:, 0] = other[5:, 0]
    return video


@pytest.mark.parametrize("name", ["plain", "dinov3"])
@pytest.mark.parametrize("attention", FORMS)
def test_a_scene_cut_flushes_its_own_row_alone(name, attention):
    control = stream_of(name, POLICY, torch.float64, attention=attention)
    stream = eventful.Stream(control._bound.model, scene_cuts=CUTS, method="forward_features")
    tolerance = TOLERANCE[torch.float64]
    for t, frame in enumerate(clip_with_a_cut()):
        output, without = stream(frame), control(frame)
        assert relative(output[1], without[1]) < tolerance
        if t < 5:
            assert relative(output[0], without[0]) < tolerance
        if t == 5:
            assert relative(output[0], dense(stream, frame)[0]) < tolerance
            assert relative(without[0], dense(stream, frame)[0]) > 1e-2
            tokens = 15 + stream._bound.model.num_prefix_tokens
            updated = stream.stats.updated.values()
            assert {counts[0] for counts in updated} == {tokens}
            assert {counts[1] for counts in updated} == {3 + stream._bound.model.num_prefix_tokens}
    assert flushes(stream, 1) == [(5, 0, "scene cut")]
    assert stream.stats.flush_reasons == {"first frame": 2, "scene cut": 1}
    assert control.stats.flush_reasons == {"first frame": 2}


@pytest.mark.parametrize(("jump", "reasons"), [(2.0, {"scene cut": 1}), (4.0, {})])
def test_a_cut_jumps_over_what_the_frames_before_showed(jump, reasons):
    model = eventful.convert(build("plain", torch.float64), POLICY)
    stream = eventful.Stream(model, scene_cuts=eventful.SceneCuts(level=0.9, jump=jump, memory=2))
    for t, frame in enumerate(clip_with_a_cut()[:6]):
        stream(frame)
        lengths = [len(history) for history in stream.snapshot()["engine"]["histories"]]
        assert lengths == [min(t, 2)] * 2
    assert stream.stats.flush_reasons == {"first frame": 2} | reasons
    assert stream.snapshot()["engine"]["histories"][0][0] > 0.2


def test_a_cut_and_a_requested_row_fall_on_one_frame():
    model = eventful.convert(build("plain", torch.float64), POLICY)
    stream = eventful.Stream(model, scene_cuts=CUTS, method="forward_features")
    video = clip_with_a_cut(batch=3)
    for frame in video[:5]:
        stream(frame)
    stream.reset([2])
    output = stream(video[5])
    assert flushes(stream, 1) == [(5, 2, "requested"), (5, 0, "scene cut")]
    assert relative(output[[0, 2]], dense(stream, video[5])[[0, 2]]) < TOLERANCE[torch.float64]
    assert relative(output[1], dense(stream, video[5])[1]) > 1e-3


def test_without_scene_cuts_nothing_is_flushed():
    stream = stream_of("plain", POLICY)
    generator = torch.Generator().manual_seed(3)
    for _ in range(6):
        stream(5 * torch.randn(2, 3, 12, 20, generator=generator))
    assert stream.stats.flush_reasons == {"first frame": 2}
    assert stream.stats.updated == dict.fromkeys(stream.gates, (4, 4))


def test_scene_cuts_are_on_by_default():
    model = eventful.convert(build("plain"), POLICY)
    stream = eventful.Stream(model)
    frame = clip(1)[0]
    stream(frame)
    stream(frame)
    stream(-frame)
    assert flushes(stream, 1) == [(2, 0, "scene cut"), (2, 1, "scene cut")]


def test_a_cut_on_a_frame_that_is_refused_does_not_count():
    model = eventful.convert(build("plain", torch.float64), POLICY)
    stream = eventful.Stream(model, scene_cuts=CUTS)
    video = clip_with_a_cut()
    for frame in video[:5]:
        stream(frame)
    stream.policy = eventful.TopR(16)
    before = stream.snapshot()
    with pytest.raises(ValueError, match="more tokens"):
        stream(video[5])
    assert same(stream.snapshot(), before)
    stream.policy = POLICY
    stream(video[5])
    assert flushes(stream, 1) == [(5, 0, "scene cut")]
