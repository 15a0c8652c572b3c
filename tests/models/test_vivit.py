"""ViViT against a plain float64 computation of TAdaConv's mathematics, dense and eventful."""

import copy
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import eventful
from eventful.models.vivit import (
    SpatialModel,
    TemporalModel,
    TubeletEmbedding,
    ViViT,
    spatial_tokens,
    tubelets,
    vivit_b_epic,
    vivit_b_kinetics,
)

SIZE = (12, 20)  # a 3 x 5 grid of 4 x 4 patches
FORMS = ["incremental", "cached", "query_key", "dense"]


def vivit(**options) -> ViViT:
    """A small model in float64 with no weight at its initial value and positions that matter."""
    torch.manual_seed(0)
    settings = {"classes": 7, "img_size": SIZE, "frames": 10, "dim": 24, "heads": 3, "depth": 3}
    model = ViViT(**settings | {"temporal_depth": 2, "patch": 4} | options).eval().double()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "blocks" in name:
                weight.normal_(std=1.3 / weight.shape[-1] ** 0.5)
            elif weight.ndim > 1:
                weight.normal_(std=0.6)
            else:
                weight.add_(0.3 * torch.randn_like(weight))
    return model


def videos(batch: int = 2, views: int = 3, frames: int = 10, size=SIZE, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    still = torch.randn(batch, views, 1, 3, *size, generator=generator, dtype=torch.float64)
    moving = torch.randn(batch, views, frames, 3, *size, generator=generator, dtype=torch.float64)
    return still + 0.3 * moving


def dense(model: ViViT, views: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(views)


def stream_on(model: ViViT, policy, **options) -> eventful.Stream:
    spatial = eventful.convert(copy.deepcopy(model.spatial), policy, **options)
    return eventful.Stream(spatial, scene_cuts=None)


class Plain:
    """ViViT in numpy from its equations, a token at a time where that is plainest."""

    def __init__(self, model: ViViT) -> None:
        self.w = {name: weight.detach().numpy() for name, weight in model.named_parameters()}
        self.heads = model.spatial.blocks[0].attn.num_heads

    def norm(self, x, name):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def linear(self, x, name):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def attention(self, x, name):
        q, k, v = np.split(self.linear(x, f"{name}.qkv"), 3, axis=-1)
        size = x.shape[1] // self.heads
        parts = []
        for head in range(self.heads):
            at = slice(head * size, (head + 1) * size)
            scores = np.exp(q[:, at] @ k[:, at].T / math.sqrt(size))
            parts.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, at])
        return self.linear(np.concatenate(parts, axis=1), f"{name}.proj")

    def mlp(self, x, name):
        x = self.linear(x, f"{name}.fc1")
        erf = np.vectorize(math.erf)(x / math.sqrt(2))
        return self.linear(x * (1 + erf) / 2, f"{name}.fc2")

    def encoder(self, x, name):
        """Tokens (tokens, dim) to the class token behind the norm (dim,)."""
        x = np.concatenate([self.w[f"{name}.cls_token"][0], x]) + self.w[f"{name}.pos_embed"][0]
        depth = 1 + max(int(k.split(".")[2]) for k in self.w if k.startswith(f"{name}.blocks"))
        for block in range(depth):
            at = f"{name}.blocks.{block}"
            x = x + self.attention(self.norm(x, f"{at}.norm1"), f"{at}.attn")
            x = x + self.mlp(self.norm(x, f"{at}.norm2"), f"{at}.mlp")
        return self.norm(x, f"{name}.norm")[0]

    def embed(self, first, second):
        """Two frames (3, height, width) to tokens, one patch after the other."""
        kernel = self.w["spatial.patch_embed.proj.weight"]
        side = kernel.shape[-1]
        tokens = []
        for y in range(0, first.shape[1], side):
            for x in range(0, first.shape[2], side):
                patch = [f[:, y : y + side, x : x + side] for f in (first, second)]
                tokens.append((kernel * np.concatenate(patch)).sum(axis=(1, 2, 3)))
        return np.stack(tokens) + self.w["spatial.patch_embed.proj.bias"]

    def classify(self, views):
        """Views (views, frames, 3, height, width) to logits."""
        logits = []
        for view in views:
            pairs = zip(view[0::2], view[1::2], strict=True)
            said = [self.encoder(self.embed(*pair), "spatial") for pair in pairs]
            logits.append(self.linear(self.encoder(np.stack(said), "temporal"), "head"))
        return np.mean(logits, axis=0)


def test_dense_is_the_plain_computation():
    model, views = vivit(), videos()
    expected = np.stack([Plain(model).classify(video) for video in views.numpy()])
    assert dense(model, views).numpy() == pytest.approx(expected, abs=1e-10)
    assert np.ptp(expected) > 0.1


def test_logits_are_averaged_over_views():
    model, views = vivit(), videos(batch=1)
    alone = [dense(model, views[:, i : i + 1]) for i in range(3)]
    assert torch.allclose(dense(model, views), torch.stack(alone).mean(dim=0), atol=1e-12)


def test_the_tubelet_embedding_is_a_convolution_over_time_and_space():
    torch.manual_seed(0)
    embedding, conv = TubeletEmbedding(dim=5, patch=4), torch.nn.Conv3d(3, 5, (2, 4, 4), (2, 4, 4))
    with torch.no_grad():
        embedding.proj.weight.copy_(conv.weight.transpose(1, 2).flatten(1, 2))
        embedding.proj.bias.copy_(conv.bias)
        view = torch.randn(2, 6, 3, 12, 20)
        ours = torch.stack([embedding(pair) for pair in tubelets(view).unbind(1)], dim=2)
        assert torch.allclose(ours, conv(view.transpose(1, 2)), atol=1e-5)


def test_tubelets_keep_the_order_of_frames_and_channels():
    view = torch.arange(2 * 4 * 3).view(2, 4, 3, 1, 1)
    folded = tubelets(view)
    assert folded.shape == (2, 2, 6, 1, 1)
    assert folded[0, 1].flatten().tolist() == [6, 7, 8, 9, 10, 11]


class TestEventful:
    @pytest.mark.parametrize("prefix", ["always", "gated"])
    @pytest.mark.parametrize("attention", FORMS)
    def test_keep_all_is_the_dense_model(self, attention, prefix):
        model, views = vivit(), videos()
        stream = stream_on(model, eventful.KeepAll(), attention=attention, prefix=prefix)
        tokens = spatial_tokens(stream, views.flatten(0, 1)).unflatten(0, (2, 3))
        assert torch.allclose(model.classify(tokens), dense(model, views), atol=1e-10)

    def test_the_class_token_competes(self):
        model, view = vivit(), videos()[0]
        stream = stream_on(model, eventful.TopR(2), prefix="gated")
        spatial_tokens(stream, view)
        assert set(stream.stats.updated.values()) == {(2, 2, 2)}

    def test_each_view_starts_anew(self):
        model = vivit()
        view, other = videos(seed=1)[0], videos(seed=2)[0]
        stream = stream_on(model, eventful.TopR(2), prefix="gated")
        expected = spatial_tokens(stream, view)
        spatial_tokens(stream, other)
        assert torch.equal(spatial_tokens(stream, view), expected)
        assert [flush.frame for flush in stream.stats.flushes][::3] == [0, 5, 10]

    def test_views_do_not_see_each_other(self):
        model, views = vivit(), videos()[0]
        stream = stream_on(model, eventful.TopR(3), prefix="gated")
        together = spatial_tokens(stream, views)
        alone = [spatial_tokens(stream, views[i : i + 1]) for i in range(3)]
        assert torch.allclose(together, torch.cat(alone), atol=1e-10)

    def test_few_tokens_make_a_difference(self):
        model, view = vivit(), videos()[0]
        stream = stream_on(model, eventful.TopR(2), prefix="gated")
        with torch.inference_mode():
            exact = [model.spatial(pair) for pair in tubelets(view).unbind(1)]
        ours = spatial_tokens(stream, view)
        assert torch.allclose(ours[:, 0], exact[0], atol=1e-10)
        assert not torch.allclose(ours[:, 1], exact[1], atol=1e-2)

    def test_normalize_takes_frames_from_0_to_1(self):
        model, view = vivit(), videos()[0].sigmoid()
        spatial = eventful.convert(copy.deepcopy(model.spatial), eventful.KeepAll())
        stream = eventful.Stream(spatial, scene_cuts=None, normalize=True)
        mean, std = (torch.tensor(model.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
        assert mean.flatten().tolist() == pytest.approx([0.45] * 3)
        assert std.flatten().tolist() == pytest.approx([0.225] * 3)
        expected = model.spatial(tubelets((view - mean) / std)[:, 0])
        assert torch.allclose(spatial_tokens(stream, view)[:, 0], expected, atol=1e-6)

    def test_a_stream_takes_no_other_channels(self):
        stream = stream_on(vivit(), eventful.TopR(2))
        with pytest.raises(ValueError, match="expected a frame \\(batch, 6, height, width\\)"):
            stream(torch.zeros(1, 3, *SIZE, dtype=torch.float64))

    def test_the_whole_model_stays_dense_when_its_spatial_model_is_converted(self):
        model, views = vivit(), videos()
        expected = dense(model, views)
        eventful.convert(model.spatial, eventful.TopR(2), prefix="gated")
        assert torch.equal(dense(model, views), expected)


class TestOtherSizes:
    def test_positions_are_interpolated_and_the_class_token_keeps_its_own(self):
        spatial = vivit().spatial
        square = spatial.pos_embed[0, 1:].T.reshape(1, 24, 3, 5)
        patches = F.interpolate(square, size=(4, 2), mode="bilinear")[0].reshape(24, 8).T
        other = SpatialModel(grid=(4, 2), dim=24, heads=3, depth=3, patch=4).double().eval()
        weights = spatial.state_dict()
        weights["pos_embed"] = torch.cat([spatial.pos_embed[0, :1], patches])[None]
        other.load_state_dict(weights)
        pair = torch.randn(2, 6, 16, 8, dtype=torch.float64)
        assert torch.allclose(spatial(pair), other(pair), atol=1e-12)

    def test_keep_all_is_the_dense_model(self):
        model, views = vivit(), videos(size=(16, 8))
        stream = stream_on(model, eventful.KeepAll(), prefix="gated")
        tokens = spatial_tokens(stream, views.flatten(0, 1)).unflatten(0, (2, 3))
        assert torch.allclose(model.classify(tokens), dense(model, views), atol=1e-10)


@pytest.mark.parametrize(
    ("preset", "tokens", "classes", "parameters"),
    [(vivit_b_epic, 401, 97, 114_986_593), (vivit_b_kinetics, 197, 400, 115_062_928)],
)
def test_presets(preset, tokens, classes, parameters):
    """Parameters by hand: 16 blocks of 12 dim^2 + 13 dim, two norms, tokens, positions, head."""
    with torch.device("meta"):
        model = preset()
    assert not model.training
    assert model.frames == 32
    assert model.spatial.pos_embed.shape == (1, tokens, 768)
    assert model.temporal.pos_embed.shape == (1, 17, 768)
    assert model.head.out_features == classes
    assert (len(model.spatial.blocks), len(model.temporal.blocks)) == (12, 4)
    dim = 768
    blocks = 16 * (12 * dim**2 + 13 * dim)
    embedding = (6 * 16 * 16 + 1) * dim
    rest = (2 * 2 + 2 + tokens + 17) * dim + (dim + 1) * classes
    assert sum(p.numel() for p in model.parameters()) == blocks + embedding + rest == parameters
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-6}


def test_dropout_stands_before_the_classifier_in_train_mode_alone():
    model = vivit()
    tokens = torch.randn(1, 3, 5, 24, dtype=torch.float64)
    assert model.head_drop.p == 0.5
    assert torch.equal(model.classify(tokens), model.classify(tokens))
    model.train()
    assert not torch.equal(model.classify(tokens), model.classify(tokens))


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"frames": 9}, "multiple of 2 frames a view, got 9"),
            ({"frames": 0}, "multiple of 2 frames a view, got 0"),
            ({"img_size": (12, 18)}, "multiples of 4 pixels, got 12 x 18"),
            ({"img_size": 3}, "multiples of 4 pixels, got 3 x 3"),
            ({"dim": 25}, "dim=25 does not divide into 3 heads"),
        ],
    )
    def test_of_construction(self, options, message):
        with pytest.raises(ValueError, match=message):
            vivit(**options)

    @pytest.mark.parametrize("shape", [(1, 6, 12, 18), (1, 6, 2, 20), (1, 3, 12, 20), (6, 12, 20)])
    def test_of_tubelets_that_do_not_fit(self, shape):
        with pytest.raises(ValueError, match="expected two frames as"):
            vivit().spatial(torch.zeros(shape, dtype=torch.float64))

    @pytest.mark.parametrize(
        "shape", [(1, 3, 3, 4, 4), (1, 2, 4, 4, 4), (1, 0, 3, 4, 4), (2, 3, 4)]
    )
    def test_of_views_that_do_not_divide(self, shape):
        with pytest.raises(ValueError, match="with an even number of frames"):
            tubelets(torch.zeros(shape))

    def test_of_views_of_another_length(self):
        with pytest.raises(ValueError, match=r"expected views \(batch, views, 10, 3, "):
            vivit()(videos(frames=8))

    def test_of_another_number_of_clips(self):
        with pytest.raises(ValueError, match=r"expected tokens \(batch, 5, 24\), got \(2, 4, 24\)"):
            vivit().temporal(torch.zeros(2, 4, 24, dtype=torch.float64))

    def test_of_tokens_without_views(self):
        with pytest.raises(ValueError, match=r"expected tokens \(batch, views, clips, dim\)"):
            vivit().classify(torch.zeros(2, 5, 24, dtype=torch.float64))

    def test_of_a_missing_library(self):
        code = (
            "import sys; sys.modules['timm.models.vision_transformer'] = None\n"
            "from eventful.models.vivit import TemporalModel\n"
            "TemporalModel()"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "pip install 'eventful-transformers[timm]'" in done.stderr


def test_the_temporal_model_sees_the_order_of_clips():
    model = vivit().temporal
    tokens = torch.randn(1, 5, 24, dtype=torch.float64)
    assert isinstance(model, TemporalModel)
    assert not torch.allclose(model(tokens), model(tokens.flip(1)), atol=1e-2)
