"""The eight laws, for every supported kind of block (docs, method, section 'Laws')."""

import copy
import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import eventful
from eventful.attention import Dense, Windowed
from eventful.block.attend import relative_positions
from eventful.ops import Index
from eventful.policies import Policy
from tests.zoo import FAMILIES, ROTARY, TOLERANCE, build, clip, relative, tolerance

DTYPES = (torch.float32, torch.bfloat16)
FORMS = ("dense", "query_key", "cached", "incremental")
EXACT = ("query_key", "incremental")
POLICIES = (eventful.TopR(4), eventful.TopFraction(0.3), eventful.Threshold(1.5))


class Recorded(Policy):
    """Chooses what a list of masks says, one after the other."""

    def __init__(self, masks):
        self.masks = list(masks)

    def select(self, error):
        return Index.from_mask(self.masks.pop(0).expand_as(error))


def stream_of(model, policy, **options):
    """Convert a copy, so that models can be compared; `stream` options apart from `convert`'s."""
    scene_cuts = options.pop("scene_cuts", None)
    model = eventful.convert(copy.deepcopy(model), policy, **options)
    return eventful.Stream(model, scene_cuts=scene_cuts, method="forward_features")


def dense(model, frame):
    with torch.inference_mode():
        return model.forward_features(frame)


def states(stream):
    return {name: block.binding.state for name, block in stream._blocks.items()}


def full_attention(block, buffer):
    """Full attention over a buffer, in its own order of tokens."""
    form = Dense(block.heads, block.scale)
    if block.window_size:
        form = Windowed(block.heads, block.scale, size=block.window_size**2, keep=False)
    bias = relative_positions(block, buffer, block.binding.grid)
    return form.start(buffer[..., : block.width], bias)[0]


@pytest.mark.parametrize("name", ROTARY)
def test_positions_matter_in_these_models(name):
    model, frame = build(name), clip(1)[0]
    with_positions = dense(model, frame)
    model.rope = None
    model.rope_mixed = False
    assert relative(dense(model, frame), with_positions) > 1e-2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("attention", FORMS)
def test_law_1_keep_all_is_the_dense_model(family, attention, dtype):
    model = build(family, dtype)
    stream = stream_of(model, eventful.KeepAll(), attention=attention)
    video = clip(4, dtype=dtype)
    limit = tolerance(model, video)
    for frame in video:
        assert relative(stream(frame), dense(model, frame)) < limit


@pytest.mark.parametrize("gate_before_norm", [False, True])
def test_law_1_the_first_frame_after_a_reset_is_the_dense_model(family, gate_before_norm):
    model = build(family)
    stream = stream_of(model, eventful.TopR(2), gate_before_norm=gate_before_norm)
    *before, last = clip(5)
    for frame in before:
        stream(frame)
    assert relative(stream(last), dense(model, last)) > 1e-3
    stream.reset()
    assert relative(stream(last), dense(model, last)) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_law_2_a_still_video_stays_still(family, policy):
    model, frame = build(family), clip(1)[0]
    stream = stream_of(model, policy)
    first = stream(frame)
    for _ in range(20):
        assert relative(stream(frame), first) < TOLERANCE[torch.float32]
    if isinstance(policy, eventful.Threshold):
        assert set(stream.stats.updated.values()) == {(getattr(model, "num_prefix_tokens", 0),) * 2}


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES])
def test_law_3_incremental_attention_is_full_attention_over_the_buffers(family, dtype):
    model = build(family, dtype)
    stream = stream_of(model, eventful.TopR(5))
    for frame in clip(12, dtype=dtype):
        stream(frame)
        for name, block in stream._blocks.items():
            state = states(stream)[name]
            full = full_attention(block, state.buffers["qkv"].tokens.double())
            assert relative(state.attention.tensors["output"].flatten(2), full) < TOLERANCE[dtype]


@pytest.mark.parametrize("attention", EXACT)
def test_law_4_exact_forms_agree_with_the_tokenwise_variant(family, attention):
    model = build(family, torch.float64)
    ours = stream_of(model, eventful.TopR(4), attention=attention)
    tokenwise = stream_of(model, eventful.TopR(4), attention="dense")
    for frame in clip(8, dtype=torch.float64):
        assert relative(ours(frame), tokenwise(frame)) < TOLERANCE[torch.float64]
        assert ours.stats.updated == tokenwise.stats.updated


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_law_4_holds_for_any_index_sets(data):
    model = build("registers", torch.float64)
    shape = (3, 15)  # frames, patches
    cells = st.lists(st.booleans(), min_size=shape[1], max_size=shape[1])
    rows = st.one_of(st.just([False] * 15), st.just([True] * 15), cells)
    masks = [torch.tensor([data.draw(rows), data.draw(rows)]) for _ in range(9 * shape[0])]
    video = clip(1 + shape[0], dtype=torch.float64)
    outputs = []
    for attention in ("dense", "incremental"):
        stream = stream_of(model, eventful.KeepAll(), attention=attention)
        stream(video[0])
        stream._checked = None
        outputs.append([_recorded(stream, masks, t, frame) for t, frame in enumerate(video[1:])])
    for tokenwise, ours in zip(*outputs, strict=True):
        assert relative(ours, tokenwise) < TOLERANCE[torch.float64]


def _recorded(stream, masks, t, frame):
    stream._check_policies = lambda: None  # each choice is used up once
    gates = list(stream._policies())
    stream.policy = {name: Recorded([masks[9 * t + i]]) for i, name in enumerate(gates)}
    return stream(frame)


def test_law_5_inputs_outputs_weights_and_keys_are_left_alone(family):
    model = build(family)
    keys, weights = list(model.state_dict()), copy.deepcopy(model.state_dict())
    blocks = list(model.blocks)
    eventful.convert(model, eventful.TopR(3))
    stream = eventful.Stream(model, method="forward_features", scene_cuts=None)
    twin = eventful.Stream(model, method="forward_features", scene_cuts=None)
    for frame in clip(4):
        given = frame.clone()
        expected = twin(frame.clone())
        output = stream(frame)
        assert torch.equal(frame, given)
        assert torch.equal(output, expected)
        with torch.inference_mode():  # the holder of either may do so
            output.fill_(torch.nan)
            frame.fill_(torch.nan)
    assert list(model.state_dict()) == keys
    assert all(torch.equal(model.state_dict()[key], weights[key]) for key in keys)
    assert eventful.restore(model) is model
    assert all(now is then for now, then in zip(model.blocks, blocks, strict=True))


def test_law_5_without_a_stream_a_converted_model_is_dense(family):
    model, frame = build(family), clip(1)[0]
    expected = dense(model, frame)
    assert torch.equal(dense(eventful.convert(model, eventful.TopR(1)), frame), expected)


@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_law_6_batch_rows_do_not_see_each_other(family, policy, attention):
    model = build(family, torch.float64)
    video = clip(6, batch=3, dtype=torch.float64)
    together = stream_of(model, policy, attention=attention)
    alone = [stream_of(model, policy, attention=attention) for _ in range(3)]
    for frame in video:
        output = together(frame)
        for row, stream in enumerate(alone):
            single = stream(frame[row : row + 1])
            assert relative(output[row : row + 1], single) < TOLERANCE[torch.float64]


def test_law_6_threads_on_one_set_of_weights_do_not_see_each_other():
    model = eventful.convert(build("eva02"), eventful.TopR(4))
    videos = [clip(12, batch=1, seed=seed) for seed in range(4)]

    def outputs(video):
        stream = eventful.Stream(model, scene_cuts=None)
        return [stream(frame) for frame in video]

    expected = [outputs(video) for video in videos]
    found = [None] * len(videos)
    threads = [
        threading.Thread(target=lambda i=i: found.__setitem__(i, outputs(videos[i])))
        for i in range(len(videos))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("attention", FORMS)
def test_law_7_state_memory_is_constant(family, attention):
    stream = stream_of(build(family), eventful.Threshold(1.0), attention=attention)
    sizes = []
    for frame in clip(6):
        stream(frame)
        tensors = [t for state in states(stream).values() for t in state.tensors().values()]
        sizes.append([(t.data_ptr(), t.nbytes) for t in tensors])
        assert sum(t.nbytes for t in tensors) == stream.stats.state_bytes
    assert all(size == sizes[0] for size in sizes)


class Unknown(nn.Module):
    def forward(self, x):
        return x


SURGERIES = {
    "unknown child": (lambda block: block.add_module("extra", Unknown()), "extra"),
    "unknown norm": (lambda block: setattr(block, "norm1", Unknown()), "norm1"),
    "unknown part of attention": (lambda b: b.attn.add_module("extra", Unknown()), "attn.extra"),
    "unknown parameter": (
        lambda b: b.register_parameter("shift", nn.Parameter(torch.zeros(24))),
        "shift",
    ),
    "subclassed linear": (
        lambda b: setattr(b.mlp, "fc1", type("Lora", (nn.Linear,), {})(24, 96)),
        "mlp.fc1",
    ),
    "hooked attention": (lambda b: b.attn.register_forward_hook(lambda *_: None), "hooks"),
}


@pytest.mark.parametrize("surgery", SURGERIES)
@pytest.mark.parametrize("name", ["plain", "eva02"])
def test_law_8_what_is_unknown_raises_by_name_and_changes_nothing(name, surgery):
    model = build(name)
    operate, what = SURGERIES[surgery]
    operate(model.blocks[1])
    blocks = list(model.blocks)
    with pytest.raises(ValueError, match=what) as error:
        eventful.convert(model, eventful.TopR(1))
    assert "blocks.1" in str(error.value)
    assert all(now is then for now, then in zip(model.blocks, blocks, strict=True))


def test_every_family_is_named():
    assert set(ROTARY) < set(FAMILIES)
