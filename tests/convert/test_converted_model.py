"""A converted model in use: dense without a stream, copied, moved, reloaded, trained."""

import copy
import io
import pickle

import pytest
import torch

import eventful
from eventful.counting import BlockSize, dense_operations
from tests.zoo import build, clip, relative, tolerance

POLICY = eventful.TopR(3)


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_a_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def outputs(model, video):
    stream = eventful.Stream(model, scene_cuts=None)
    return [stream(frame) for frame in video]


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("twin_of", [copy.deepcopy, through_pickle, through_a_file])
@pytest.mark.parametrize("name", ["layer_scale", "dinov3"])
def test_a_copy_computes_the_same(name, twin_of):
    model, video = eventful.convert(build(name), POLICY), clip(5)
    expected = outputs(model, video)
    twin = twin_of(model)
    assert torch.equal(twin(video[0]), model(video[0]))
    assert same(outputs(twin, video), expected)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
    assert same(outputs(model, video), expected)
    assert [type(block).__name__ for block in eventful.restore(twin).blocks] == [
        type(block.original).__name__ for block in model.blocks
    ]


def test_copies_of_a_copy_share_its_weights_with_its_own_original_blocks():
    twin = copy.deepcopy(eventful.convert(build("plain"), POLICY))
    frame = clip(1)[0]
    with torch.no_grad():
        twin.blocks[0].mlp.fc2.weight.mul_(3)
    expected = twin(frame)
    assert torch.equal(eventful.restore(twin)(frame), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_dtype_is_a_reported_reset(dtype):
    model = eventful.convert(build("registers"), POLICY)
    stream, video = eventful.Stream(model, scene_cuts=None), clip(4)
    for frame in video[:2]:
        stream(frame)
    assert model.to(dtype) is model
    output, given = stream(video[2]), video[2:3].to(dtype)
    assert output.dtype == dtype
    assert relative(output, model(given[0])) < tolerance(model, given)
    reason = f"dtype changed from torch.float32 to {dtype}"
    assert [(f.frame, f.row, f.reason) for f in stream.stats.flushes][-2:] == [
        (2, 0, reason),
        (2, 1, reason),
    ]
    fresh = eventful.Stream(model, scene_cuts=None)
    fresh(video[2])
    assert torch.equal(stream(video[3]), fresh(video[3]))
    assert stream.stats.updated == dict.fromkeys(stream.gates, (8, 8))


@pytest.mark.parametrize("assign", [False, True])
def test_weights_load_into_a_converted_model(assign):
    torch.manual_seed(1)
    other = build("swiglu")
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    weights = copy.deepcopy(other.state_dict())
    video = clip(4)
    expected_dense = other(video[0])
    expected = outputs(eventful.convert(other, POLICY), video)
    model = eventful.convert(build("swiglu"), POLICY)
    before = model(video[0])
    model.load_state_dict(weights, assign=assign)
    assert relative(before, expected_dense) > 1e-2
    assert torch.equal(model(video[0]), expected_dense)
    assert same(outputs(model, video), expected)
    assert torch.equal(eventful.restore(model)(video[0]), expected_dense)


def test_weights_load_into_a_model_whose_stream_was_made_before():
    other = build("layer_scale")
    model = eventful.convert(build("layer_scale"), POLICY)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.5)
    stream, video = eventful.Stream(model, scene_cuts=None), clip(3)
    model.load_state_dict(other.state_dict())
    assert same([stream(frame) for frame in video], outputs(model, video))


@pytest.mark.parametrize("name", ["plain", "layer_scale", "qk_norm", "registers", "inner_norms"])
@pytest.mark.parametrize("left_out", [("blocks.0",), ("blocks.0", "blocks.2")], ids=len)
def test_blocks_left_out_are_counted_as_other_on_both_sides(name, left_out):
    video = clip(2)
    whole = eventful.Stream(eventful.convert(build(name), POLICY), scene_cuts=None)
    part = eventful.Stream(
        eventful.convert(build(name), POLICY, where=lambda n, _: n not in left_out),
        scene_cuts=None,
    )
    block = whole._bound.blocks["blocks.0"]
    for frame in video:
        whole(frame), part(frame)
        tokens = 15 + block.prefix_tokens
        one = dense_operations(BlockSize.of(block), tokens).total
        missing = len(left_out) * 2 * one  # of two batch rows
        for ours, theirs in (
            (part.stats.operations, whole.stats.operations),
            (part.stats.dense_operations, whole.stats.dense_operations),
        ):
            assert ours.other == theirs.other + missing
        assert part.stats.dense_operations.total == whole.stats.dense_operations.total
        mlps = [stream.stats.dense_operations.mlp for stream in (part, whole)]
        assert 3 * mlps[0] == (3 - len(left_out)) * mlps[1]


@pytest.mark.parametrize("name", ["eva02", "dinov3", "rope_mixed", "gated", "grouped"])
def test_rotations_of_blocks_left_out_count_with_other_additions(name):
    whole = eventful.Stream(eventful.convert(build(name), POLICY), scene_cuts=None)
    part = eventful.Stream(
        eventful.convert(build(name), POLICY, where=lambda n, _: n != "blocks.1"), scene_cuts=None
    )
    frame = clip(1)[0]
    whole(frame), part(frame)
    patches, queries_and_keys = 2 * 15 * 24, 1 + 1 / 3 if name == "grouped" else 2
    rotations = part.stats.dense_operations.total - whole.stats.dense_operations.total
    assert rotations == patches * queries_and_keys


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace")
@pytest.mark.parametrize("name", ["plain", "dinov3", "sam"])
def test_a_trace_of_a_converted_model_is_dense(name):
    model, frame = build(name), clip(1)[0]
    with torch.no_grad():
        expected = model(frame)
        traced = torch.jit.trace(eventful.convert(model, POLICY), frame, check_trace=False)
        torch.testing.assert_close(traced(frame), expected)


def test_an_attention_mask_is_refused():
    model, frame = eventful.convert(build("plain"), POLICY), clip(1)[0]
    mask = torch.zeros(1, 1, 16, 16)
    with pytest.raises(ValueError, match=r"blocks\.0 is eventful and takes no attention mask"):
        model.forward_features(frame, attn_mask=mask)
    tokens = torch.randn(2, 16, 24)
    for block in (model.blocks[1], eventful.Stream(model)._bound.blocks["blocks.1"]):
        with pytest.raises(ValueError, match=r"blocks\.1 is eventful and takes no attention mask"):
            block(tokens, is_causal=True)


def test_a_rotary_block_refuses_a_mask_too():
    model = eventful.convert(build("eva02"), POLICY)
    with pytest.raises(ValueError, match=r"blocks\.2 is eventful and takes no attention mask"):
        model.blocks[2](torch.randn(2, 16, 24), attn_mask=torch.zeros(1, 1, 16, 16))


def test_train_mode_is_refused_without_a_stream():
    model, frame = eventful.convert(build("layer_scale"), POLICY), clip(1)[0]
    expected = model(frame)
    model.train()
    with pytest.raises(RuntimeError, match=r"blocks\.0 is eventful and in train mode.*restore"):
        model(frame)
    assert torch.equal(model.eval()(frame), expected)


@pytest.mark.parametrize("made", ["before", "after"])
@pytest.mark.parametrize("part", ["model", "block"])
def test_train_mode_is_refused_with_a_stream(made, part):
    model, frame = eventful.convert(build("layer_scale"), POLICY), clip(1)[0]
    trained = model if part == "model" else model.blocks[1]
    if made == "before":
        stream = eventful.Stream(model)
        stream(frame)
    trained.train()
    if made == "after":
        stream = eventful.Stream(model)
    with pytest.raises(RuntimeError, match=r"train mode; call model\.eval\(\)"):
        stream(frame)
    trained.eval()
    assert stream(frame).isfinite().all()


@pytest.mark.parametrize("name", ["layer_scale", "eva02"])
def test_convert_puts_the_model_in_eval_mode(name):
    model, frame = build(name), clip(1)[0]
    expected = model(frame)
    eventful.convert(model.train(), POLICY)
    assert not any(module.training for module in model.modules())
    assert torch.equal(model(frame), expected)
    torch.testing.assert_close(eventful.Stream(model)(frame), expected.detach())


def test_a_stream_refuses_a_frame_that_asks_for_gradients():
    stream = eventful.Stream(eventful.convert(build("plain"), POLICY))
    frame = clip(1)[0].requires_grad_()
    with pytest.raises(RuntimeError, match=r"no gradients; pass frame\.detach\(\)"):
        stream(frame)
    assert stream(frame.detach()).isfinite().all()


@pytest.mark.parametrize("name", ["layer_scale", "eva02"])
def test_without_a_stream_gradients_flow_as_in_the_dense_model(name):
    model, converted = build(name), eventful.convert(build(name), POLICY)
    gradients = []
    for each in (model, converted):
        frame = clip(1)[0].requires_grad_()
        each(frame).square().sum().backward()
        gradients.append([frame.grad, *(p.grad for p in each.parameters() if p.grad is not None)])
    assert len(gradients[0]) > 40
    assert same(*gradients)
    assert gradients[1][0].abs().sum() > 0


def test_a_stream_output_asks_for_no_gradients():
    stream = eventful.Stream(eventful.convert(build("plain"), POLICY))
    assert not stream(clip(1)[0]).requires_grad
