"""The paper's variants on whole models: pooled keys, sampled tokens, half precision."""

import pytest
import torch

import eventful
from eventful.attention import FORMS
from eventful.block.block import eventful_blocks
from tests.zoo import build, clip, relative, same, stream_of

TOP = eventful.TopR(3)
GLOBAL = "blocks.1"  # of the SAM models
KEPT = {"blocks.1": 7}


@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", ["sam", "sam_resampled", "sam_no_positions"])
def test_keep_all_is_the_first_frame_with_pooled_keys(name, attention):
    """And the model without pooling is another one."""
    stream = stream_of(name, eventful.KeepAll(), torch.float64, attention=attention, pooling=2)
    other = stream_of(name, eventful.KeepAll(), torch.float64, attention=attention)
    for frame in clip(4, dtype=torch.float64):
        output = stream(frame)
        fresh = eventful.Stream(stream._bound.model, scene_cuts=None, method="forward_features")
        assert relative(output, fresh(frame)) < 1e-10
        assert relative(output, other(frame)) > 1e-3


def of_recorded_sets(name, attention, frames, **options):
    """Outputs, every gate choosing what the form "dense" chooses."""
    leader = stream_of(name, TOP, torch.float64, attention="dense", **options)
    stream = stream_of(name, TOP, torch.float64, attention=attention, **options)
    for frame in clip(frames, dtype=torch.float64):
        expected = leader(frame)
        yield stream(frame), expected


@pytest.mark.parametrize("attention", ["query_key", "incremental"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sam", {"pooling": 2}),
        ("sam_resampled", {"pooling": 2}),
        ("plain", {"sampling": KEPT}),
        ("registers", {"sampling": {"blocks.1": 9}}),
    ],
)
def test_law_4_holds_for_every_variant(name, options, attention):
    for output, expected in of_recorded_sets(name, attention, 6, **options):
        assert relative(output, expected) < 1e-9


def test_a_pooled_row_flushed_is_a_first_frame():
    stream = stream_of("sam", TOP, torch.float64, pooling=2)
    first, second = clip(2, dtype=torch.float64)
    stream(first)
    stream.reset([1])
    output = stream(second)
    stream.reset()
    assert relative(output[1], stream(second)[1]) < 1e-10


@pytest.mark.parametrize("attention", FORMS)
def test_sampled_models_hand_fewer_tokens_on(attention):
    stream = stream_of(
        "plain", eventful.KeepAll(), torch.float64, attention=attention, sampling=KEPT
    )
    for frame in clip(3, dtype=torch.float64):
        output = stream(frame)
        assert output.shape[1] == 7
        fresh = eventful.Stream(stream._bound.model, scene_cuts=None, method="forward_features")
        assert relative(output[:, 0], fresh(frame)[:, 0]) < 1e-10  # others may lie in other slots
    operations = stream.stats
    assert operations.operations.total < operations.dense_operations.total
    whole = stream_of("plain", eventful.KeepAll(), torch.float64, attention=attention)
    whole(frame)
    assert operations.dense_operations == whole.stats.dense_operations


def test_a_sampled_row_flushed_is_a_first_frame():
    stream = stream_of("plain", TOP, torch.float64, sampling=KEPT)
    *video, last = clip(4, dtype=torch.float64)
    for frame in video:
        stream(frame)
    stream.reset([1])
    output = stream(last)
    stream.reset()
    assert relative(output[1], stream(last)[1]) < 1e-10


def test_more_tokens_than_there_are_leave_a_model_as_it_is():
    stream = stream_of("plain", TOP, torch.float64, sampling=99)
    other = stream_of("plain", TOP, torch.float64)
    for frame in clip(3, dtype=torch.float64):
        assert torch.equal(stream(frame), other(frame))
    assert stream.stats.operations == other.stats.operations


@pytest.mark.parametrize("attention", ["cached", "query_key"])
@pytest.mark.parametrize("name", ["plain", "sam"])
def test_half_precision_is_near(name, attention):
    half = stream_of(name, eventful.KeepAll(), attention=attention, half_precision=True)
    other = stream_of(name, eventful.KeepAll(), attention=attention)
    for frame in clip(3):
        assert 1e-6 < relative(half(frame), other(frame)) < 5e-3


@pytest.mark.parametrize("attention", ["cached", "query_key"])
@pytest.mark.parametrize("name", ["sam", "vitdet"])
def test_half_precision_leaves_windows_alone(name, attention):
    options = {"attention": attention, "where": lambda name, _: name != "blocks.1"}
    half = stream_of(name, TOP, half_precision=True, **options)
    other = stream_of(name, TOP, **options)
    for frame in clip(4):
        assert torch.equal(half(frame), other(frame))


@pytest.mark.parametrize(
    ("name", "options"), [("sam", {"pooling": 2}), ("plain", {"sampling": {"blocks.1": 7}})]
)
@pytest.mark.parametrize("attention", FORMS)
def test_a_snapshot_of_a_variant_goes_on_with_the_same_outputs(name, options, attention):
    stream = stream_of(name, TOP, attention=attention, **options)
    first, second, *rest = clip(5)
    stream(first)
    stream(second)
    snapshot = stream.snapshot()
    other = stream_of(name, TOP, attention=attention, **options)
    other.load_snapshot(snapshot)
    for frame in rest:
        assert same(stream(frame), other(frame))


def rows_anew(**options):
    """Rows of attention computed anew beside the updated ones, by frame; rows of a frame."""
    stream = stream_of("plain", TOP, torch.float64, **options)
    first, *rest = clip(4, dtype=torch.float64)
    stream(first)
    anew, tokens = [], 0
    for frame in rest:
        stream(frame)
        (state, *_) = [block.binding.state for block in stream._bound.blocks.values()]
        index, tokens = state.gates["qkv"].index, state.gates["qkv"].index.tokens
        anew.append(state.attention.recomputed[0] - index.counts[0])
    return anew, tokens


def test_rows_of_attention_are_computed_anew_as_guard_and_max_age_say():
    never, tokens = rows_anew(guard=1e-30, max_age=None)
    assert never == [0, 0, 0]
    strict, _ = rows_anew(guard=1, max_age=None)  # whatever has lost any mass
    assert all(rows > 0 for rows in strict)
    always, _ = rows_anew(max_age=1)
    assert always == [tokens - 4] * 3  # the class token and three others are updated
    one_in_two, _ = rows_anew(guard=1e-30, max_age=2)
    assert all(0 < rows <= -(-tokens // 2) for rows in one_in_two)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("plain", {"pooling": 2}, "no block of this VisionTransformer is told its grid"),
        ("sam", {"pooling": 0}, "pooling must be a whole number of at least 1, got 0"),
        ("sam", {"sampling": 5}, "this model has a grid"),
        ("no_class_token", {"sampling": 5}, "this model has no class token"),
        ("plain", {"sampling": {"block.7": 5}}, "no block is called 'block.7'"),
        ("plain", {"sampling": 0}, "sampling must be a whole number"),
        ("plain", {"half_precision": True}, "attention='incremental' holds none"),
        ("plain", {"half_precision": 1.5}, "half_precision must be one of"),
        ("plain", {"guard": 0}, "guard must lie above 0 and be at most 1, got 0"),
        ("plain", {"guard": 1.5}, "guard must lie above 0 and be at most 1, got 1.5"),
        ("plain", {"max_age": 0}, "max_age must be a whole number of at least 1, got 0"),
        ("plain", {"max_age": 2.5}, "max_age must be a whole number of at least 1, got 2.5"),
        ("plain", {"guard": 0.1, "attention": "cached"}, "attention='cached' keeps no row's mass"),
        ("plain", {"max_age": None, "attention": "dense"}, "attention='dense' keeps no row's mass"),
    ],
)
def test_what_does_not_fit_a_model_is_refused(name, options, message):
    model = build(name)
    with pytest.raises(ValueError, match=message):
        eventful.convert(model, TOP, **options)
    assert not eventful_blocks(model)


@pytest.mark.parametrize(
    ("name", "kept", "message"),
    [("dinov3", 9, "without rotary positions"), ("registers", 5, "5 prefix")],
)
def test_what_cannot_be_sampled_raises_on_the_first_frame(name, kept, message):
    stream = stream_of(name, TOP, sampling=kept)
    with pytest.raises(ValueError, match=message):
        stream(clip(1)[0])


def test_a_policy_that_does_not_fit_the_sampled_tokens_is_refused_before_any_change():
    stream = stream_of("plain", eventful.TopR(5), sampling=KEPT)
    first, second = clip(2)
    stream(first)
    before = stream.snapshot()
    stream.policy = {"blocks.1.mlp": eventful.TopR(7)}  # the class token and six others are left
    with pytest.raises(ValueError, match=r"TopR\(7\) asks for more tokens .* \(6\)"):
        stream(second)
    stream.policy = eventful.TopR(5)
    assert same(before["engine"]["tensors"], stream.snapshot()["engine"]["tensors"])


@pytest.mark.parametrize(("name", "options"), [("sam", {"pooling": 2}), ("plain", {"sampling": 9})])
def test_variants_of_changing_work_do_not_compile(name, options):
    model = eventful.convert(build(name), TOP, **options)
    with pytest.raises(ValueError, match="neither pooling nor sampling"):
        eventful.Stream(model, compile=True)
