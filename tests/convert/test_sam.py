"""timm's SAM blocks, converted: windows, padding and relative positions of every kind."""

import copy

import pytest
import torch
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import nn

import eventful
from tests.zoo import build, clip, relative, same, stream_of

FORMS = ("dense", "query_key", "cached", "incremental")
DIM, HEADS = 24, 3


def sam(size=(12, 20), window=2, seed=0, dtype=torch.float64, **options):
    """A block with windows and a global one, peaked attention, positions that matter."""
    torch.manual_seed(seed)
    options = {"use_rel_pos": True} | options
    model = VisionTransformerSAM(
        img_size=size,
        patch_size=4,
        embed_dim=DIM,
        depth=2,
        num_heads=HEADS,
        num_classes=7,
        window_size=window,
        global_attn_indexes=(1,),
        neck_chans=0,
        **options,
    )
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "rel_pos" in key or "pos_embed" in key:
                weight.normal_(std=0.6)
            elif weight.ndim > 1:
                weight.normal_(std=1.3 / weight.shape[-1] ** 0.5)
            else:
                weight.add_(0.3 * torch.randn_like(weight))
    return model.eval().to(dtype)


def frames_of(size, count=3, batch=1, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, batch, 3, *size, generator=generator).to(dtype)


def dense(model, frame):
    with torch.inference_mode():
        return model.forward_features(frame)


def stream_on(model, policy, **options):
    """On a copy of the model."""
    model = eventful.convert(copy.deepcopy(model), policy, **options)
    return eventful.Stream(model, scene_cuts=None, method="forward_features")


MODELS = {
    # name: (size of the model's frames, options); patches are 4 x 4
    "windows with padding on both sides": ((12, 20), {}),
    "windows with padding below": ((12, 16), {}),
    "windows with padding on the right": ((16, 12), {}),
    "windows that fit": ((24, 12), {"window": 3}),
    "windows that fit, several abreast": ((16, 24), {}),
    "windows of one token": ((8, 12), {"window": 1}),
    "one window that is larger than the grid": ((12, 20), {"window": 6}),
    "no windows": ((12, 20), {"window": 0}),
    "a square grid": ((16, 16), {"window": 3}),
    "no relative positions": ((12, 20), {"use_rel_pos": False}),
    "no absolute positions": ((12, 20), {"use_abs_pos": False}),
    "norms of q and k": ((12, 20), {"qk_norm": True}),
    "layer scale": ((12, 20), {"init_values": 0.5, "drop_path_rate": 0.1}),
    "no bias of q, k and v": ((12, 20), {"qkv_bias": False}),
    "a norm in front": ((12, 20), {"pre_norm": True}),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_keep_all_is_the_dense_model(name, attention, batch):
    size, options = MODELS[name]
    model = sam(size, **options)
    stream = stream_on(model, eventful.KeepAll(), attention=attention)
    for frame in frames_of(size, batch=batch):
        assert relative(stream(frame), dense(model, frame)) < 1e-10


@pytest.mark.parametrize("other", [(20, 28), (8, 8), (28, 12)], ids=str)
@pytest.mark.parametrize("window", [0, 2, 3])
def test_keep_all_is_the_dense_model_on_grids_that_it_was_not_made_for(other, window):
    """timm resamples relative positions, and absolute ones."""
    model = sam((12, 20), window)
    stream = stream_on(model, eventful.KeepAll())
    for frame in frames_of(other, batch=3):
        assert relative(stream(frame), dense(model, frame)) < 1e-10


def test_relative_positions_matter_in_these_models():
    """In each kind of block and along each axis."""
    model, frame = sam(), frames_of((12, 20))[0]
    expected = dense(model, frame)
    for block in ("blocks.0", "blocks.1"):
        for axis in ("rel_pos_h", "rel_pos_w"):
            other = copy.deepcopy(model)
            table = getattr(other.get_submodule(block).attn, axis)
            with torch.no_grad():
                table.copy_(table.flip(0))
            assert relative(dense(other, frame), expected) > 1e-2


@pytest.mark.parametrize("attention", ["dense", "incremental"])
@pytest.mark.parametrize("size", [(12, 20), (20, 28)], ids=["made for", "resampled"])
def test_some_tokens_are_updated_as_if_all_that_changed_had_been(attention, size):
    """A threshold next to 0 lets through what moved: one patch, and all that depends on it."""
    model = sam(use_rel_pos=True)
    stream = stream_on(model, eventful.Threshold(1e-9), attention=attention)
    frame = frames_of(size)[0]
    stream(frame)
    for patch in ((0, 0), (2, 4), (1, 2)):
        frame = frame.clone()
        y, x = (4 * place for place in patch)
        frame[..., y : y + 4, x : x + 4] += 1.0
        assert relative(stream(frame), dense(model, frame)) < 1e-10
        assert stream.stats.updated["blocks.0.qkv"] == (1,)


class TestWindowsWithoutAnUpdatedToken:
    """A change of one patch, (2, 4) of 3 x 5, lies in the last of six windows."""

    @pytest.fixture
    def stream(self):
        stream = stream_on(sam(), eventful.Threshold(1e-9))
        self.frame = frames_of((12, 20), batch=2)[0]
        stream(self.frame)
        self.frame = self.frame.clone()
        self.frame[1, :, 8:12, 16:20] += 1.0
        return stream

    @staticmethod
    def attention(stream):
        return stream._bound.blocks["blocks.0"].binding.state.attention

    def test_they_are_not_recomputed(self, stream):
        assert self.attention(stream).recomputed == (24, 24)
        stream(self.frame)
        assert self.attention(stream).recomputed == (0, 4)

    def test_they_keep_their_output_to_the_bit(self, stream):
        output = self.attention(stream).tensors["output"]
        with torch.inference_mode():
            output.add_(1000.0)  # what is kept is not looked at
        before = output.clone()
        stream(self.frame)
        after = self.attention(stream).tensors["output"]
        assert torch.equal(after[0], before[0])
        assert torch.equal(after[1, :20], before[1, :20])
        assert (after[1, 20:] < 500).all()

    def test_they_cost_nothing(self, stream):
        stream.policy = {"blocks.1.*": eventful.TopR(1)}
        stream(self.frame)
        of_the_window = (16 + 4) * DIM  # its pairs, and two tables of two lines for one query
        of_all = stream.stats.operations.query_key
        work = stream._bound.blocks["blocks.1"].binding.state.attention
        pairs = sum(work.recomputed) * 15 + 2 * sum(work.corrected)
        assert of_all == of_the_window + (pairs + 2 * (3 + 5)) * DIM


@pytest.mark.parametrize("window", [0, 2])
def test_rotary_positions_are_refused_by_name(window):
    model = sam(use_rel_pos=False, use_rope=True, window=window)
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.rope, a .*RotaryEmbeddingCat"):
        eventful.convert(model, eventful.TopR(1))
    assert type(model.blocks[0]).__name__ == "Block"


SURGERIES = {
    "a hook on attention": (lambda b: b.attn.register_forward_hook(lambda *_: None), "hooks"),
    "an unknown tensor": (lambda b: b.attn.register_buffer("shift", torch.ones(1)), "shift"),
    "an unknown child": (lambda b: b.add_module("adapter", nn.Linear(24, 24)), "adapter"),
    "another layer": (lambda b: setattr(b.attn, "qkv", nn.Sequential(b.attn.qkv)), "qkv"),
    "another block": (
        lambda b: setattr(b, "norm1", nn.LayerNorm((5, 24))),
        "more than the last axis",
    ),
}


@pytest.mark.parametrize("name", SURGERIES)
def test_what_is_unknown_is_refused_by_name(name):
    model = sam()
    operate, what = SURGERIES[name]
    operate(model.blocks[1])
    with pytest.raises(ValueError, match=what) as error:
        eventful.convert(model, eventful.TopR(1))
    assert "blocks.1" in str(error.value)
    assert [type(block).__name__ for block in model.blocks] == ["Block", "Block"]


@pytest.mark.parametrize("name", ["sam", "sam_resampled", "sam_no_positions"])
def test_without_a_stream_the_model_is_dense(name):
    model, frame = build(name), clip(1)[0]
    expected = dense(model, frame)
    eventful.convert(model, eventful.TopR(1))
    assert [type(block).__name__ for block in model.blocks] == ["TimmSamBlock"] * 3
    assert torch.equal(dense(model, frame), expected)
    assert eventful.restore(model) is model
    assert [type(block).__name__ for block in model.blocks] == ["Block"] * 3
    assert torch.equal(dense(model, frame), expected)


def test_without_a_stream_train_mode_raises():
    model = eventful.convert(build("sam"), eventful.TopR(1)).train()
    with pytest.raises(RuntimeError, match=r"blocks\.0 is eventful and in train mode"):
        model.forward_features(clip(1)[0])


def test_global_blocks_may_be_converted_alone():
    model = sam()

    def is_global(name, block):
        return block.window_size == 0

    stream = stream_on(model, eventful.KeepAll(), where=is_global)
    assert stream.gates == ["blocks.1.qkv", "blocks.1.proj", "blocks.1.mlp"]
    for frame in frames_of((12, 20)):
        assert relative(stream(frame), dense(model, frame)) < 1e-10


@pytest.mark.parametrize("in_a_file", [False, True], ids=["in memory", "in a file"])
@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", ["sam", "sam_resampled", "sam_no_positions"])
def test_a_snapshot_goes_on_with_the_same_outputs(name, attention, in_a_file, tmp_path):
    video = clip(7)
    stream = stream_of(name, eventful.TopR(3), attention=attention)
    for frame in video[:4]:
        stream(frame)
    saved = stream.snapshot(tmp_path / "state" if in_a_file else None)
    fresh = stream_of(name, eventful.KeepAll(), attention=attention)
    fresh.load_snapshot(tmp_path / "state" if in_a_file else saved)
    assert fresh.stats.state_bytes == stream.stats.state_bytes
    for frame in video[4:]:
        assert torch.equal(fresh(frame), stream(frame))
        assert fresh.stats.operations == stream.stats.operations
    assert same(fresh.snapshot(), stream.snapshot())


@pytest.mark.parametrize("attention", FORMS)
def test_a_frame_of_another_size_flushes_and_goes_on(attention):
    model = sam()
    stream = stream_on(model, eventful.TopR(3), attention=attention)
    for frame in frames_of((12, 20), batch=2):
        stream(frame)
    fresh = stream_on(model, eventful.TopR(3), attention=attention)
    first, *others = frames_of((20, 28), batch=2, seed=1)
    output = stream(first)
    assert relative(output, dense(model, first)) < 1e-10
    assert torch.equal(output, fresh(first))
    reasons = [flush.reason for flush in stream.stats.flushes if flush.frame == 3]
    assert len(reasons) == 2
    assert all(reason.startswith("frame size changed") for reason in reasons)
    for frame in others:
        assert torch.equal(stream(frame), fresh(frame))
    assert stream.stats.operations == fresh.stats.operations
    assert stream.stats.state_bytes == fresh.stats.state_bytes
