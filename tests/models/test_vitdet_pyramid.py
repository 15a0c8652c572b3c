"""ViTDet's pyramid against a plain float64 computation written out here."""

import pytest
import torch

from eventful.models.vitdet import SimplePyramid
from tests.models.vitdet_by_hand import (
    DIM,
    EXACT,
    PATCH,
    backbone,
    dense,
    gelu,
    images,
    layer_norm,
    randomised,
    relative,
)


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
