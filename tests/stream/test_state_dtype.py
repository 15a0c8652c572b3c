"""What a stream remembers, kept in another dtype than the model computes in."""

import pytest
import torch

import eventful
from eventful.counting import BlockSize, state_values
from eventful.ops import Index
from eventful.policies import Policy
from tests.zoo import FAMILIES, build, clip, relative, same

FORMS = ("dense", "query_key", "cached", "incremental")
HALF = (torch.bfloat16, torch.float16)
DTYPES = (*HALF, torch.float32)


def stream_of(name, policy, state_dtype, dtype=torch.float32, **options):
    model = eventful.convert(build(name, dtype), policy, **options)
    return eventful.Stream(
        model, scene_cuts=None, method="forward_features", state_dtype=state_dtype
    )


def tensors(stream):
    """All state by name, but for the order of windows."""
    return {
        f"{name}.{key}": tensor
        for name, block in stream._bound.blocks.items()
        for key, tensor in block.binding.state.tensors().items()
        if not key.endswith("slots")
    }


def dense(stream, frame):
    with torch.inference_mode():
        return stream._bound.model.forward_features(frame)


@pytest.mark.parametrize("state_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", ["plain", "gated", "sam"])
def test_references_and_buffers_have_it_and_attention_has_not(name, attention, state_dtype):
    stream = stream_of(name, eventful.TopR(3), state_dtype, attention=attention)
    for frame in clip(3):
        stream(frame)
        kinds = {}
        for key, tensor in tensors(stream).items():
            kinds.setdefault("attention" in key, set()).add(tensor.dtype)
        assert kinds[False] == {state_dtype}
        assert kinds.get(True, {torch.float32}) == {torch.float32}
    parts = {key.split(".", 2)[2] for key in tensors(stream) if key.startswith("blocks.1")}
    assert {"qkv.reference", "qkv.buffer", "proj.buffer", "mlp.reference"} < parts
    if attention == "incremental":
        assert {"attention.output", "attention.lse", "attention.peak"} < parts


@pytest.mark.parametrize("state_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF], ids=str)
@pytest.mark.parametrize("name", ["plain", "sam"])
def test_outputs_have_the_models_dtype(name, dtype, state_dtype):
    """Whether the state is narrower or wider."""
    stream = stream_of(name, eventful.KeepAll(), state_dtype, dtype)
    eps = max(torch.finfo(kind).eps for kind in (dtype, state_dtype))
    for frame in clip(3, dtype=dtype):
        output = stream(frame)
        assert output.dtype == dtype
        assert relative(output, dense(stream, frame)) < 10 * eps


@pytest.mark.parametrize("state_dtype", HALF, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_still_video_has_no_error_at_any_gate(name, state_dtype):
    """Though references are rounded: what they are compared with is rounded as they are.

    Attention is computed in full here, and everything twice before: where a few rows are computed
    anew, as prefix tokens are on every frame, their last bits may differ from those that were
    computed among all, which rounding to 16 bits turns into a whole step now and then.
    """
    stream = stream_of(name, eventful.Threshold(0.0), state_dtype, attention="dense")
    prefix = getattr(stream._bound.model, "num_prefix_tokens", 0)
    for frame in clip(2):
        for _ in range(3):
            output = stream(frame)
        for _ in range(3):
            assert torch.equal(stream(frame), output)
            assert all((stream.gate(gate).error == 0).all() for gate in stream.gates)
            assert set(stream.stats.updated.values()) == {(prefix, prefix)}


@pytest.mark.parametrize("state_dtype", HALF, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_still_video_updates_nothing_with_incremental_attention_either(name, state_dtype):
    """The first gate's error is 0; the others' is a step of a few values at most."""
    stream = stream_of(name, eventful.Threshold(0.0), state_dtype)
    prefix = getattr(stream._bound.model, "num_prefix_tokens", 0)
    frame = clip(1)[0]
    first = stream(frame)
    stream.policy = eventful.Threshold(0.1)
    for _ in range(20):
        assert relative(stream(frame), first) < torch.finfo(state_dtype).eps
        assert (stream.gate("blocks.0.qkv").error == 0).all()
        assert set(stream.stats.updated.values()) == {(prefix, prefix)}


def test_without_rounding_alike_a_still_video_would_have_errors():
    """What `measure` guards against: references in 16 bits against values in 32."""
    stream = stream_of("plain", eventful.TopR(3), torch.bfloat16)
    frame = clip(1)[0]
    stream(frame)
    block = stream._bound.blocks["blocks.0"]
    reference = block.binding.state.gates["qkv"].reference
    with torch.inference_mode():
        c = block.norm1(_tokens(stream._bound.model, frame))
    assert torch.equal(reference, c.bfloat16())
    assert (reference.float() - c).norm(dim=-1).min() > 1e-3


def _tokens(model, frame):
    x = model.patch_embed(frame)
    return model.norm_pre(model._pos_embed(x))


class Recorded(Policy):
    """Chooses what it is told, so that two streams update the same tokens."""

    def __init__(self, mask):
        self.mask = mask

    def select(self, error):
        return Index.from_mask(self.mask)


def forced(leader, follower, frame):
    """Run a frame through both; the second updates the tokens that the first has chosen."""
    expected = leader(frame)
    prefix = getattr(leader._bound.model, "num_prefix_tokens", 0)
    follower._engine._check_policies = lambda: None
    follower.policy = {
        name: Recorded(leader.gate(name).updated[:, prefix:]) for name in leader.gates
    }
    return expected, follower(frame)


# The largest relative error of the last features over the clips below, in units of the eps of the
# state, as measured on a CPU over both dtypes and all forms. Tests allow three times as much.
MEASURED = {
    "plain": 3.2,
    "registers": 3.7,
    "eva02": 0.56,
    "dinov3": 2.4,
    "gated": 0.16,
    "sam": 0.78,
    "sam_resampled": 0.24,
}


def is_of_rounding(error, name, dtype):
    """Neither larger than measured, nor so small that nothing can have been rounded."""
    of_eps = error / torch.finfo(dtype).eps
    return MEASURED[name] / 10 < of_eps < MEASURED[name] * 3


@pytest.mark.parametrize("state_dtype", HALF, ids=str)
@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", MEASURED)
def test_the_error_against_state_in_float32_is_of_its_rounding(name, attention, state_dtype):
    full = stream_of(name, eventful.TopR(4), None, attention=attention)
    narrow = stream_of(name, eventful.TopR(4), state_dtype, attention=attention)
    first, *video = clip(12)
    full(first), narrow(first)
    errors = []
    for frame in video:
        expected, found = forced(full, narrow, frame)
        errors.append(relative(found, expected))
    assert is_of_rounding(max(errors), name, state_dtype)


@pytest.mark.parametrize("state_dtype", HALF, ids=str)
@pytest.mark.parametrize("name", MEASURED)
def test_keep_all_is_close_to_the_dense_model(name, state_dtype):
    stream = stream_of(name, eventful.KeepAll(), state_dtype)
    errors = [relative(stream(frame), dense(stream, frame)) for frame in clip(4)]
    assert is_of_rounding(max(errors), name, state_dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", ["plain", "gated", "sam"])
def test_state_bytes_are_those_of_the_closed_form(name, attention, state_dtype, dtype):
    stream = stream_of(name, eventful.TopR(3), state_dtype, dtype, attention=attention)
    for frame in clip(2, batch=3, dtype=dtype):
        stream(frame)
    tokens = stream.gate("blocks.0.qkv").updated.shape[1]
    expected = 0
    for block in stream._bound.blocks.values():
        narrow, wide = state_values(BlockSize.of(block, block.binding.grid), attention, tokens)
        wide_size = dtype.itemsize if block.window_size else max(4, dtype.itemsize)
        expected += 3 * (narrow * state_dtype.itemsize + wide * wide_size)
        expected += 8 * tokens if block.window_size else 0  # each token's place, once a block
    assert stream.stats.state_bytes == expected


def test_state_bytes_by_hand():
    """Of "plain": 3 blocks, 2 rows, 16 tokens of 24, 3 heads; 144 values a token in 16 bits."""
    stream = stream_of("plain", eventful.TopR(3), torch.bfloat16)
    stream(clip(1)[0])
    references, buffers, attention = 3 * 24, 3 * 24 + 2 * 24, 24 + 2 * 3
    assert stream.stats.state_bytes == 3 * 2 * 16 * (2 * (references + buffers) + 4 * attention)


@pytest.mark.parametrize("wrong", [torch.int8, torch.float64, "bfloat16", float, torch.complex64])
def test_any_other_dtype_is_refused(wrong):
    model = eventful.convert(build("plain"), eventful.TopR(3))
    with pytest.raises(TypeError, match=r"torch\.bfloat16 or torch\.float16, or None .* got"):
        eventful.Stream(model, state_dtype=wrong)


@pytest.mark.parametrize("state_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["plain", "sam"])
def test_snapshots_keep_it(name, state_dtype, tmp_path):
    video = clip(7)
    stream = stream_of(name, eventful.TopR(3), state_dtype)
    for frame in video[:4]:
        stream(frame)
    stream.snapshot(tmp_path / "state")
    fresh = stream_of(name, eventful.KeepAll(), state_dtype)
    fresh.load_snapshot(tmp_path / "state")
    for key, tensor in tensors(stream).items():
        assert torch.equal(tensors(fresh)[key], tensor)
        assert tensors(fresh)[key].dtype == tensor.dtype
    for frame in video[4:]:
        assert torch.equal(fresh(frame), stream(frame))
    assert same(fresh.snapshot(), stream.snapshot())
    references = {t.dtype for key, t in tensors(fresh).items() if key.endswith("reference")}
    assert references == {state_dtype}


@pytest.mark.parametrize("attention", FORMS)
def test_flushes_keep_it(attention):
    stream = stream_of("registers", eventful.TopR(3), torch.bfloat16, attention=attention)
    video = clip(6)
    stream(video[0])
    expected = {key: tensor.dtype for key, tensor in tensors(stream).items()}
    for frame, rows in zip(video[1:], ([1], None, [0, 1], [0], None), strict=True):
        stream.reset(rows)
        stream(frame)
        assert {key: tensor.dtype for key, tensor in tensors(stream).items()} == expected


def test_a_snapshot_of_another_dtype_is_refused():
    wide = stream_of("plain", eventful.TopR(3), None)
    narrow = stream_of("plain", eventful.TopR(3), torch.bfloat16)
    for frame in clip(2):
        wide(frame), narrow(frame)
    before = narrow.snapshot()
    with pytest.raises(ValueError, match=r"state_dtype=None, this one has torch.bfloat16"):
        narrow.load_snapshot(wide.snapshot())
    assert same(narrow.snapshot(), before)
