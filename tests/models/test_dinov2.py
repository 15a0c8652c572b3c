"""The demo's backbone in transformers: equal to timm's, whole, converted and at several taps."""

import pytest
import torch

import eventful
from eventful.models.dinov2 import MEAN, STD, _weights, dinov2_backbone, dinov2_model
from eventful.models.saliency import saliency_vit

pytest.importorskip("transformers")
SIZE = (70, 98)


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def frames():
    torch.manual_seed(7)
    return torch.rand(2, 3, *SIZE)


@pytest.fixture(scope="module")
def timm_backbone():
    return saliency_vit(SIZE).backbone


@pytest.fixture(scope="module")
def normalised(frames):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (frames - mean) / std


def test_timms_numbers(timm_backbone):
    assert timm_backbone.pretrained_cfg["mean"] == MEAN
    assert timm_backbone.pretrained_cfg["std"] == STD


@torch.inference_mode()
def test_equal_to_timm(timm_backbone, normalised):
    expected = timm_backbone.forward_features(normalised)
    found = dinov2_model()(normalised).last_hidden_state
    assert found.shape == (2, 1 + 5 * 7, 384)
    assert relative(found, expected) < 1e-6


@torch.inference_mode()
def test_other_sizes_are_resampled_as_in_timm(normalised):
    square = normalised[..., :42, :42]
    expected = saliency_vit(42).backbone.forward_features(square)
    assert relative(dinov2_model()(square).last_hidden_state, expected) < 1e-6


@torch.inference_mode()
def test_taps_equal_to_timm(timm_backbone, normalised):
    maps = dinov2_backbone(layers=(2, 7, 12))(normalised).feature_maps
    expected = timm_backbone.forward_intermediates(
        normalised, indices=[1, 6, 11], norm=True, intermediates_only=True
    )
    assert [tuple(one.shape) for one in maps] == [(2, 384, 5, 7)] * 3
    for ours, theirs in zip(maps, expected, strict=True):
        assert relative(ours, theirs) < 1e-6
    assert relative(maps[0], maps[1]) > 0.1


class TestConverted:
    @pytest.fixture
    def stream(self):
        model = eventful.convert(dinov2_backbone(layers=(3, 12)), eventful.KeepAll())
        return eventful.Stream(model, normalize=(MEAN, STD))

    def test_all_kept_is_timm(self, stream, frames, normalised, timm_backbone):
        with torch.inference_mode():
            expected = timm_backbone.forward_intermediates(
                normalised, indices=[2, 11], norm=True, intermediates_only=True
            )
        for _ in range(2):
            for ours, theirs in zip(stream(frames).feature_maps, expected, strict=True):
                assert relative(ours, theirs) < 1e-5

    def test_frame_policies_run(self, stream, frames):
        stream.policy = eventful.Carry(3)
        dense = stream(frames).feature_maps
        again = stream(frames).feature_maps
        assert all(relative(two, one) < 1e-6 for one, two in zip(dense, again, strict=True))
        assert stream.stats.ratio > 1.9


@pytest.mark.parametrize("layers", [(), (0, 12), (12, 3), (3, 3), (13,)])
def test_layers_that_are_not_there(layers):
    with pytest.raises(ValueError, match=r"expected layers from 1 to 12, rising.*got"):
        dinov2_backbone(layers=layers)


def test_older_releases_keep_the_files_names():
    """Before attention was flattened, transformers had the names that the file has."""
    part = "encoder.layer.0.attention"
    stored = {f"backbone.{part}.attention.query.weight": torch.ones(2)}
    stored |= {f"backbone.pos_embed.{name}": torch.ones(1, 1, 2) for name in ("class", "patches")}
    old = f"{part}.attention.query.weight"
    assert old in _weights(stored, {old: torch.empty(2)})
    new = f"{part}.q_proj.weight"
    assert _weights(stored, {new: torch.empty(2)}).keys() == {
        new,
        "embeddings.position_embeddings",
    }
