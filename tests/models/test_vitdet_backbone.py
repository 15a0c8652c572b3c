"""ViTDet's backbone and pyramid, against plain float64 computations written out here."""

import copy
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

import eventful
from eventful.models.vitdet import SimplePyramid, ViTDetBackbone, attention
from eventful.models.vitdet.positions import by_line
from eventful.models.vitdet.windows import cut_windows, join_windows

FORMS = ("dense", "query_key", "cached", "incremental")
DIM, HEADS, PATCH = 24, 3, 4
EXACT = 1e-12
SMALL = {
    "patch_size": PATCH,
    "embed_dim": DIM,
    "depth": 2,
    "num_heads": HEADS,
    "window_size": 2,
    "global_blocks": (1,),
    "position_grid": 2,
}


def randomised(model, seed=0):
    """Peaked attention, positions that matter, no weight at its initial value; float64."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "rel_pos" in key or "pos_embed" in key:
                weight.normal_(std=0.6)
            elif weight.ndim > 1:
                weight.normal_(std=1.3 / weight[0].numel() ** 0.5)
            else:
                weight.add_(0.3 * torch.randn_like(weight))
    return model.eval().double()


def backbone(img_size=(12, 20), seed=0, **options):
    """A block with windows of 2 x 2 and a global one, on patches of 4 x 4."""
    return randomised(ViTDetBackbone(img_size, **(SMALL | options)), seed)


def images(size, batch=1, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)


def dense(model, frame):
    with torch.inference_mode():
        return model(frame)


def relative(y, reference):
    return ((y - reference).norm() / reference.norm()).item()


# The plain computation: one query at a time, on a list of tokens with their coordinates.


def resampling(before, after, taps):
    """The matrix (after, before) that resamples one axis, pixel centres at halves, edges held."""
    matrix = torch.zeros(after, before, dtype=torch.float64)
    for i in range(after):
        place = (i + 0.5) * before / after - 0.5
        for tap, weight in taps(place):
            matrix[i, min(max(tap, 0), before - 1)] += weight
    return matrix


def linear_taps(place):
    place = max(place, 0.0)
    left = math.floor(place)
    return [(left, 1 - (place - left)), (left + 1, place - left)]


def cubic_taps(place, a=-0.75):
    """Keys' cubic convolution, with the constant that PyTorch and OpenCV use."""

    def kernel(x):
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a

    left = math.floor(place)
    return [(tap, kernel(place - tap)) for tap in range(left - 1, left + 3)]


def naive_by_line(rel_pos, size, kind):
    """R[y][j], an embedding for each pair of lines."""
    trained = (len(rel_pos) + 1) // 2
    if kind == "linear":
        offsets = resampling(2 * trained - 1, 2 * size - 1, linear_taps) @ rel_pos
        return torch.stack(
            [torch.stack([offsets[y - j + size - 1] for j in range(size)]) for y in range(size)]
        )
    pairs = torch.stack(
        [
            torch.stack([rel_pos[y - j + trained - 1] for j in range(trained)])
            for y in range(trained)
        ]
    )
    matrix = resampling(trained, size, cubic_taps)
    return torch.einsum("ya,abd,jb->yjd", matrix, pairs, matrix)


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + 1e-6).sqrt() * norm.weight + norm.bias


def linear(x, layer):
    y = torch.einsum("...i,oi->...o", x, layer.weight)
    return y if layer.bias is None else y + layer.bias


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def naive_window(tokens, attn, kind):
    """Attention among the tokens (side, side, dim) of one window, or of a whole grid."""
    height, width, _ = tokens.shape
    lines = naive_by_line(attn.rel_pos_h, height, kind)
    columns = naive_by_line(attn.rel_pos_w, width, kind)
    q, k, v = linear(tokens, attn.qkv).view(height, width, 3, HEADS, -1).unbind(2)
    outputs = torch.zeros_like(q)
    for y in range(height):
        for x in range(width):
            for head in range(HEADS):
                query = q[y, x, head]
                scores = torch.einsum("yxd,d->yx", k[:, :, head], query) / math.sqrt(DIM / HEADS)
                scores = scores + (lines[y] @ query)[:, None] + (columns[x] @ query)[None]
                weights = scores.exp() / scores.exp().sum()
                outputs[y, x, head] = torch.einsum("yx,yxd->d", weights, v[:, :, head])
    return linear(outputs.flatten(2), attn.proj)


def naive_attention(c, attn, size, kind):
    """Pad one image's normed tokens with zeros, go through the windows, drop the padding."""
    if not size:
        return naive_window(c, attn, kind)
    height, width, dim = c.shape
    down, across = math.ceil(height / size), math.ceil(width / size)
    padded = torch.zeros(down * size, across * size, dim, dtype=c.dtype)
    padded[:height, :width] = c
    output = torch.zeros_like(padded)
    for top in range(0, down * size, size):
        for left in range(0, across * size, size):
            window = slice(top, top + size), slice(left, left + size)
            output[window] = naive_window(padded[window], attn, kind)
    return output[:height, :width]


@torch.no_grad()
def naive_backbone(model, image, windows, kind):
    """Tokens of one image (channels, height, width); `windows` has one size a block."""
    channels, height, width = image.shape
    grid = height // PATCH, width // PATCH
    patches = image.view(channels, grid[0], PATCH, grid[1], PATCH)
    weight, bias = model.patch_embed.proj.weight, model.patch_embed.proj.bias
    x = torch.einsum("cyaxb,dcab->yxd", patches, weight) + bias
    positions = model.pos_embed[0]
    down = resampling(positions.shape[0], grid[0], cubic_taps)
    across = resampling(positions.shape[1], grid[1], cubic_taps)
    x = x + torch.einsum("ya,xb,abd->yxd", down, across, positions)
    for block, size in zip(model.blocks, windows, strict=True):
        x = x + naive_attention(layer_norm(x, block.norm1), block.attn, size, kind)
        hidden = gelu(linear(layer_norm(x, block.norm2), block.mlp.fc1))
        x = x + linear(hidden, block.mlp.fc2)
    return x


MODELS = {
    # name: (trained size, size of the images, options, window of each block)
    "as trained": ((12, 20), (12, 20), {}, (2, 0)),
    "a square grid": ((12, 12), (12, 12), {"window_size": 3}, (3, 0)),
    "windows that fit": ((16, 24), (16, 24), {}, (2, 0)),
    "windows with padding below": ((12, 16), (12, 16), {}, (2, 0)),
    "a window that is larger than the grid": ((12, 20), (12, 20), {"window_size": 6}, (6, 0)),
    "the global block first": ((12, 20), (12, 20), {"global_blocks": [0]}, (0, 2)),
    "no bias of q, k and v": ((12, 20), (12, 20), {"qkv_bias": False}, (2, 0)),
    "grey images": ((12, 20), (12, 20), {"in_chans": 1}, (2, 0)),
    "a wider MLP": ((12, 20), (12, 20), {"mlp_ratio": 5.5}, (2, 0)),
    "positions of the grid's size": ((12, 12), (12, 12), {"position_grid": 3}, (2, 0)),
    "larger than trained": ((12, 20), (20, 28), {}, (2, 0)),
    "smaller than trained": ((20, 28), (12, 20), {}, (2, 0)),
    "larger on one side, smaller on the other": ((12, 20), (20, 12), {"position_grid": 5}, (2, 0)),
    "trained on a square, run on an oblong": ((28, 28), (12, 20), {"window_size": 3}, (3, 0)),
}


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


# The pyramid


def channel_norm(x, norm):
    return layer_norm(x.permute(1, 2, 0), norm).permute(2, 0, 1)


def doubled(x, layer):
    """A transposed convolution with kernel and stride 2: each pixel becomes a square of four."""
    squares = torch.einsum("cyx,coab->oyaxb", x, layer.weight)
    return squares.flatten(3, 4).flatten(1, 2) + layer.bias[:, None, None]


def convolved(x, conv):
    """A sum over the kernel's places of shifted maps, zeros outside; then the norm."""
    side = conv.weight.shape[-1]
    _, height, width = x.shape
    padded = torch.zeros(len(x), height + side - 1, width + side - 1, dtype=x.dtype)
    margin = side // 2
    padded[:, margin : margin + height, margin : margin + width] = x
    total = 0
    for a in range(side):
        for b in range(side):
            shifted = padded[:, a : a + height, b : b + width]
            total = total + torch.einsum("cyx,oc->oyx", shifted, conv.weight[:, :, a, b])
    return channel_norm(total, conv.norm)


@torch.no_grad()
def naive_pyramid(pyramid, tokens):
    """Maps of one image's tokens (height, width, dim)."""
    x, level = tokens.permute(2, 0, 1), pyramid.levels
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    quads = x[:, :height, :width].unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    up = gelu(channel_norm(doubled(x, level["p2"][0]), level["p2"][1]))
    starts = {
        "p2": doubled(up, level["p2"][3]),
        "p3": doubled(x, level["p3"][0]),
        "p4": x,
        "p5": quads.amax(dim=(2, 4)),
    }
    maps = {
        name: convolved(convolved(start, level[name][-2]), level[name][-1])
        for name, start in starts.items()
    }
    return maps | {"p6": maps["p5"][:, ::2, ::2]}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("grid", [(3, 5), (6, 4), (7, 7), (2, 11)])
def test_the_pyramid_is_the_plain_computation(grid, batch):
    pyramid = randomised(SimplePyramid(DIM, out_channels=7))
    tokens = torch.randn(batch, *grid, DIM, dtype=torch.float64)
    maps = dense(pyramid, tokens)
    assert list(maps) == ["p2", "p3", "p4", "p5", "p6"]
    for row in range(batch):
        for name, expected in naive_pyramid(pyramid, tokens[row]).items():
            assert maps[name][row].shape == expected.shape
            assert relative(maps[name][row], expected) < EXACT


def test_maps_follow_the_backbone():
    model, pyramid = backbone(), randomised(SimplePyramid(DIM, 7, patch_size=PATCH))
    maps = dense(pyramid, dense(model, images((12, 20), batch=2)))
    sizes = {name: tuple(x.shape) for name, x in maps.items()}
    assert sizes == {
        "p0": (2, 7, 12, 20),
        "p1": (2, 7, 6, 10),
        "p2": (2, 7, 3, 5),
        "p3": (2, 7, 1, 2),
        "p4": (2, 7, 1, 1),
    }
    assert pyramid.strides == {"p0": 1, "p1": 2, "p2": 4, "p3": 8, "p4": 16}


def test_fewer_scales():
    pyramid = randomised(SimplePyramid(DIM, 7, scales=(2, 1)))
    maps = dense(pyramid, torch.randn(1, 3, 5, DIM, dtype=torch.float64))
    sizes = {name: tuple(x.shape[2:]) for name, x in maps.items()}
    assert sizes == {"p3": (6, 10), "p4": (3, 5), "p5": (2, 3)}
    assert torch.equal(maps["p5"], maps["p4"][:, :, ::2, ::2])


def test_names_and_shapes_of_the_pyramid():
    """Detectron2's behind `simfp_<level>`, channels of ViT-B."""
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in SimplePyramid(768).state_dict().items()}
    expected = {}
    expected |= {"levels.p2.0.weight": (768, 384, 2, 2), "levels.p2.0.bias": (384,)}
    expected |= {"levels.p2.1.weight": (384,), "levels.p2.1.bias": (384,)}
    expected |= {"levels.p2.3.weight": (384, 192, 2, 2), "levels.p2.3.bias": (192,)}
    expected |= {"levels.p3.0.weight": (768, 384, 2, 2), "levels.p3.0.bias": (384,)}
    for level, first, width in (("p2", 4, 192), ("p3", 1, 384), ("p4", 0, 768), ("p5", 1, 768)):
        for number, shape in ((first, (256, width, 1, 1)), (first + 1, (256, 256, 3, 3))):
            layer = f"levels.{level}.{number}"
            expected |= {f"{layer}.weight": shape}
            expected |= {f"{layer}.norm.{part}": (256,) for part in ("weight", "bias")}
    assert shapes == expected


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"scales": (1, 2)}, r"falling and each once, got \(1, 2\)"),
        ({"scales": (4, 3)}, "out of 4, 2, 1 and 0.5"),
        ({"scales": ()}, "out of 4, 2, 1 and 0.5"),
        ({"patch_size": 14}, "a power of two from 4 on, got 14"),
        ({"patch_size": 2}, "a power of two from 4 on, got 2"),
    ],
    ids=str,
)
def test_a_pyramid_that_cannot_be_built(options, what):
    with pytest.raises(ValueError, match=what):
        SimplePyramid(DIM, **options)
