"""ViTDet's backbone against plain float64 computations, dense and converted."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import eventful
from eventful.models.vitdet import ViTDetBackbone, attention
from eventful.models.vitdet.positions import by_line
from eventful.models.vitdet.windows import cut_windows, join_windows
from tests.models.vitdet_by_hand import (
    DIM,
    EXACT,
    FORMS,
    MODELS,
    PATCH,
    SMALL,
    backbone,
    dense,
    images,
    naive_backbone,
    relative,
)


@pytest.mark.parametrize("kind", ["linear", "paper"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_the_dense_forward_is_the_plain_computation(name, batch, kind):
    trained, size, options, windows = MODELS[name]
    model = backbone(trained, rel_positions=kind, **options)
    frame = images(size, batch, options.get("in_chans", 3))
    output = dense(model, frame)
    assert output.shape == (batch, size[0] // PATCH, size[1] // PATCH, DIM)
    for image, tokens in zip(frame, output, strict=True):
        assert relative(tokens, naive_backbone(model, image, windows, kind)) < EXACT


@pytest.mark.parametrize("limit", [1, 2 * 3 * 5 * 15 * 2])
def test_attention_some_lines_at_a_time_is_the_same(monkeypatch, limit):
    """One line, and two of three: the last part is shorter."""
    model, frame = backbone(), images((12, 20), batch=2)
    expected = dense(model, frame)
    monkeypatch.setattr(attention, "_BIAS_VALUES", limit)
    assert relative(dense(model, frame), expected) < EXACT


def test_relative_positions_matter_in_these_models():
    """In each kind of block and along each axis; and so does the way to another size."""
    model, frame = backbone(), images((12, 20))
    expected = dense(model, frame)
    for number in range(2):
        for axis in ("rel_pos_h", "rel_pos_w"):
            other = copy.deepcopy(model)
            table = getattr(other.blocks[number].attn, axis)
            with torch.no_grad():
                table.copy_(table.flip(0))
            assert relative(dense(other, frame), expected) > 1e-2
    frame = images((20, 28))
    ours, papers = (dense(backbone(rel_positions=kind), frame) for kind in ("linear", "paper"))
    assert relative(ours, papers) > 1e-2


def test_the_two_ways_coincide_at_the_trained_size():
    frame = images((12, 20))
    ours, papers = (dense(backbone(rel_positions=kind), frame) for kind in ("linear", "paper"))
    assert torch.equal(ours, papers)


def test_the_papers_way_is_no_function_of_the_offset():
    offsets = torch.arange(7.0)[:, None] ** 2
    linear, paper = (by_line(offsets, 5, kind)[..., 0] for kind in ("linear", "paper"))
    assert linear.shape == paper.shape == (5, 5)
    assert linear[0, 1] == linear[1, 2]
    assert (paper[0, 1] - paper[1, 2]).abs() > 0.1


@pytest.mark.parametrize("grid", [(3, 5), (4, 6), (1, 2), (7, 2)])
def test_windows_go_back_where_they_came_from(grid):
    x = torch.rand(3, *grid, 5)
    windows = cut_windows(x, 3)
    assert windows.shape == (3 * -(-grid[0] // 3) * -(-grid[1] // 3), 3, 3, 5)
    assert torch.equal(join_windows(windows, grid), x)


def test_names_and_shapes_of_vit_b():
    """What converters of checkpoints count on."""
    with torch.device("meta"):
        model = ViTDetBackbone()
    shapes = {key: tuple(weight.shape) for key, weight in model.state_dict().items()}
    expected = {"pos_embed": (1, 14, 14, 768)}
    expected |= {"patch_embed.proj.weight": (768, 3, 16, 16), "patch_embed.proj.bias": (768,)}
    linears = {"attn.qkv": (2304, 768), "attn.proj": (768, 768)}
    linears |= {"mlp.fc1": (3072, 768), "mlp.fc2": (768, 3072)}
    for i in range(12):
        for norm in ("norm1", "norm2"):
            expected |= {f"blocks.{i}.{norm}.{part}": (768,) for part in ("weight", "bias")}
        for layer, shape in linears.items():
            expected |= {f"blocks.{i}.{layer}.weight": shape, f"blocks.{i}.{layer}.bias": shape[:1]}
        offsets = 127 if i in (2, 5, 8, 11) else 27
        expected |= {f"blocks.{i}.attn.rel_pos_{axis}": (offsets, 64) for axis in "hw"}
    assert shapes == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrower_types_give_the_same_up_to_rounding(dtype):
    """With every position resized."""
    for kind in ("linear", "paper"):
        model = backbone(rel_positions=kind)
        frame = images((20, 28), batch=2)
        expected = dense(model, frame)
        output = dense(model.to(dtype), frame.to(dtype))
        assert output.dtype == dtype
        assert relative(output.double(), expected) < 20 * torch.finfo(dtype).eps


class TestMistakes:
    @pytest.mark.parametrize("size", [(13, 20), (12, 22), (2, 20)])
    def test_images_that_a_patch_cuts(self, size):
        with pytest.raises(ValueError, match=rf"multiples of 4 pixels, got {size[0]} x {size[1]}"):
            backbone()(images(size))

    def test_the_nearest_larger_size_is_named(self):
        with pytest.raises(ValueError, match=r"pad the images .* to 16 x 24"):
            backbone()(images((13, 22)))

    @pytest.mark.parametrize("shape", [(3, 12, 20), (1, 4, 12, 20)])
    def test_images_of_another_shape(self, shape):
        with pytest.raises(ValueError, match=r"expected images \(batch, 3, height, width\)"):
            backbone()(torch.zeros(shape, dtype=torch.float64))

    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"img_size": (12, 21)}, "multiples of 4 pixels"),
            ({"rel_positions": "cubic"}, r"one of \('linear', 'paper'\), got 'cubic'"),
            ({"global_blocks": (1, 2)}, r"within 0 to 1.* got \[2\]"),
            ({"num_heads": 5}, "num_heads must divide embed_dim, got 5 and 24"),
            ({"window_size": 0}, "window_size must be at least 1, got 0"),
        ],
        ids=str,
    )
    def test_options_that_do_not_fit(self, options, what):
        with pytest.raises(ValueError, match=what):
            ViTDetBackbone(**({"img_size": (12, 20)} | SMALL | options))


# Converted


def stream_on(model, policy, **options):
    """On a copy of the model."""
    model = eventful.convert(copy.deepcopy(model), policy, **options)
    return eventful.Stream(model, scene_cuts=None)


def video(size, count=3, batch=1):
    return [images(size, batch, seed=seed) for seed in range(count)]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("kind", ["linear", "paper"])
@pytest.mark.parametrize("size", [(12, 20), (20, 28), (8, 8)], ids=str)
def test_keep_all_is_the_dense_model(size, kind, attention, batch):
    model = backbone(rel_positions=kind)
    stream = stream_on(model, eventful.KeepAll(), attention=attention)
    for frame in video(size, batch=batch):
        assert relative(stream(frame), dense(model, frame)) < 1e-10


@pytest.mark.parametrize("name", MODELS)
def test_keep_all_is_the_dense_model_of_every_shape(name):
    trained, size, options, _ = MODELS[name]
    model = backbone(trained, **options)
    stream = stream_on(model, eventful.KeepAll())
    for seed in range(2):
        frame = images(size, 2, options.get("in_chans", 3), seed)
        assert relative(stream(frame), dense(model, frame)) < 1e-10


@pytest.mark.parametrize("attention", ["dense", "incremental"])
@pytest.mark.parametrize("kind", ["linear", "paper"])
@pytest.mark.parametrize("size", [(12, 20), (20, 28)], ids=["as trained", "resized"])
def test_some_tokens_are_updated_as_if_all_that_changed_had_been(size, kind, attention):
    """A threshold next to 0 lets through what moved: one patch, and all that depends on it."""
    model = backbone(rel_positions=kind)
    stream = stream_on(model, eventful.Threshold(1e-9), attention=attention)
    frame = images(size)
    stream(frame)
    for patch in ((0, 0), (2, 4), (1, 2)):
        frame = frame.clone()
        y, x = (PATCH * place for place in patch)
        frame[..., y : y + PATCH, x : x + PATCH] += 1.0
        assert relative(stream(frame), dense(model, frame)) < 1e-10
        assert stream.stats.updated["blocks.0.qkv"] == (1,)


def test_without_a_stream_the_model_is_dense():
    model, frame = backbone(), images((12, 20))
    expected = dense(model, frame)
    eventful.convert(model, eventful.TopR(1))
    assert [type(block).__name__ for block in model.blocks] == ["VitDetBlock"] * 2
    assert torch.equal(dense(model, frame), expected)
    eventful.restore(model)
    assert [type(block).__name__ for block in model.blocks] == ["Block"] * 2
    assert torch.equal(dense(model, frame), expected)


def test_torch_is_all_that_it_needs():
    """In a process of its own, where no optional library can be imported."""
    script = """
import sys
sys.modules.update(dict.fromkeys(("timm", "torchvision", "torchmetrics", "av", "PIL")))
import eventful, torch
from eventful.models.vitdet import ViTDetBackbone
model = ViTDetBackbone(32, embed_dim=24, depth=2, num_heads=3, global_blocks=(1,))
stream = eventful.Stream(eventful.convert(model, eventful.TopR(1)))
assert stream(torch.zeros(1, 3, 32, 32)).shape == (1, 2, 2, 24)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_global_blocks_may_be_converted_alone():
    model = backbone()
    stream = stream_on(model, eventful.KeepAll(), where=lambda _, block: block.window_size == 0)
    assert stream.gates == ["blocks.1.qkv", "blocks.1.proj", "blocks.1.mlp"]
    for frame in video((12, 20)):
        assert relative(stream(frame), dense(model, frame)) < 1e-10


def test_a_stream_normalises_as_detectron2_does():
    model = backbone()
    model_converted = eventful.convert(copy.deepcopy(model), eventful.KeepAll())
    stream = eventful.Stream(model_converted, normalize=True)
    frame = images((12, 20)).sigmoid()
    mean = torch.tensor([123.675, 116.28, 103.53]).double().view(1, 3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).double().view(1, 3, 1, 1)
    expected = dense(model, (255 * frame - mean) / std)
    assert relative(stream(frame), expected) < 1e-5  # the constants are held in float32


def test_a_stream_refuses_images_that_a_patch_cuts_and_goes_on():
    model = backbone()
    stream = stream_on(model, eventful.KeepAll())
    first, second = video((12, 20), 2)
    stream(first)
    with pytest.raises(ValueError, match="multiples of 4 pixels"):
        stream(images((12, 22)))
    assert relative(stream(second), dense(model, second)) < 1e-10


SURGERIES = {
    "a hook on attention": (lambda b: b.attn.register_forward_hook(lambda *_: None), "hooks"),
    "an unknown tensor": (lambda b: b.attn.register_buffer("shift", torch.ones(1)), "shift"),
    "an unknown child": (lambda b: b.add_module("adapter", nn.Linear(24, 24)), "adapter"),
    "an unknown child of the MLP": (lambda b: b.mlp.add_module("drop", nn.Dropout()), "mlp.drop"),
    "another layer": (lambda b: setattr(b.attn, "qkv", nn.Sequential(b.attn.qkv)), "qkv"),
    "another activation": (lambda b: setattr(b.mlp, "act", nn.ReLU()), "mlp.act"),
    "another kind of norm": (lambda b: setattr(b, "norm2", nn.RMSNorm(24)), "norm2"),
    "another norm": (
        lambda b: setattr(b, "norm1", nn.LayerNorm((5, 24))),
        "more than the last axis",
    ),
}


@pytest.mark.parametrize("name", SURGERIES)
def test_what_is_unknown_is_refused_by_name(name):
    model = backbone()
    operate, what = SURGERIES[name]
    operate(model.blocks[1])
    with pytest.raises(ValueError, match=what) as error:
        eventful.convert(model, eventful.TopR(1))
    assert "blocks.1" in str(error.value)
    assert [type(block).__name__ for block in model.blocks] == ["Block", "Block"]
