"""Caches of spatial outputs: what they hold, resume and refuse."""

import json

import pytest
import torch

import eventful
from eventful.finetuning import (
    SpatialCache,
    cache_spatial_outputs,
)
from eventful.models.vivit import spatial_tokens
from tests.finetuning.tiny import CLIPS, DIM, VIEWS, videos, vivit


class TestCache:
    def test_holds_what_a_stream_gives(self, model, cache):
        stream = eventful.Stream(model.spatial, scene_cuts=None)
        expected = {name: (spatial_tokens(stream, views), label) for name, views, label in videos()}
        assert len(cache) == len(expected) == 10
        for video, tokens, label in cache:
            assert tokens.shape == (VIEWS, CLIPS, DIM)
            assert torch.equal(tokens, expected[video][0])
            assert label == expected[video][1]

    def test_says_what_it_depends_on(self, model, tmp_path):
        policy = {"*": eventful.TopR(2), "*.mlp": eventful.TopR(3)}
        about = {"data set": "epic", "size": 320}
        cache_spatial_outputs(model, videos(1), policy, tmp_path, about=about)
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        assert manifest["about"] == about
        assert manifest["policies"]["blocks.1.qkv"] == "top:2"
        assert manifest["policies"]["blocks.1.mlp"] == "top:3"
        assert "prefix='gated'" in manifest["options"]["blocks.0"]

    def test_counts_operations(self, model, cache):
        stream = eventful.Stream(model.spatial, scene_cuts=None)
        for _, views, _ in videos():
            spatial_tokens(stream, views)
        used, dense = cache.operations()
        assert used == stream.stats.total_operations / 10
        assert dense == stream.stats.total_dense_operations / 10

    def test_goes_on_where_it_was(self, model, tmp_path):
        asked, reports = [], []

        def lazily(count):
            for name, views, label in videos(count):
                yield name, lambda name=name, views=views: asked.append(name) or views, label

        cache_spatial_outputs(model, lazily(3), None, tmp_path)
        (tmp_path / "P01%2Fvideo%201.safetensors").unlink()
        asked.clear()
        cache = cache_spatial_outputs(model, lazily(5), None, tmp_path, progress=reports.append)
        assert asked == ["P01/video 1", "P01/video 3", "P01/video 4"]
        assert [tuple(report)[:3] for report in reports] == [
            (1, 0, 0),
            (2, 1, 0),
            (3, 1, 0),
            (4, 2, 0),
            (5, 3, 0),
        ]
        whole = cache_spatial_outputs(model, videos(5), None, tmp_path / "whole")
        assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(cache, whole, strict=True))

    def test_a_video_that_is_cut_short_leaves_nothing(self, model, tmp_path):
        def broken():
            yield from videos(2)
            raise OSError("the disk is gone")

        with pytest.raises(OSError, match="the disk is gone"):
            cache_spatial_outputs(model, broken(), None, tmp_path)
        assert len(SpatialCache(tmp_path)) == 2
        assert not list(tmp_path.glob("*.part"))

    def test_leaves_out_and_counts_what_cannot_be_read(self, model, tmp_path):
        items = [
            (name, views if i else (lambda: None), label)
            for i, (name, views, label) in enumerate(videos(3))
        ]
        reports = []
        cache = cache_spatial_outputs(model, items, None, tmp_path, progress=reports.append)
        assert len(cache) == 2
        assert tuple(reports[-1]) == (3, 2, 1, "P01/video 2")

    def test_normalizes_if_asked(self, model, tmp_path):
        raw = [(name, views.sigmoid(), label) for name, views, label in videos(2)]
        ready = [(name, (views - 0.45) / 0.225, label) for name, views, label in raw]
        one = cache_spatial_outputs(model, raw, None, tmp_path / "a", normalize=True)
        other = cache_spatial_outputs(model, ready, None, tmp_path / "b")
        assert torch.allclose(one[1].tokens, other[1].tokens, atol=1e-5)


class TestCacheErrors:
    def test_another_policy(self, model, cache):
        with pytest.raises(ValueError, match=r"policies is top:2 there and top:3 here, for \*"):
            cache_spatial_outputs(model, videos(), eventful.TopR(3), cache.folder)

    def test_another_option(self, cache):
        other = vivit(converted=False)
        eventful.convert(other.spatial, eventful.TopR(2), prefix="always")
        with pytest.raises(ValueError, match=r"options is .*gated.* there and .*always.* here"):
            cache_spatial_outputs(other, videos(), None, cache.folder)

    def test_other_weights(self, cache):
        with pytest.raises(ValueError, match="weights is"):
            cache_spatial_outputs(vivit(seed=1), videos(), None, cache.folder)

    def test_another_data_set(self, model, cache):
        with pytest.raises(ValueError, match="about is None there and epic here, for name"):
            cache_spatial_outputs(model, videos(), None, cache.folder, about={"name": "epic"})

    def test_another_label(self, model, cache):
        with pytest.raises(ValueError, match=r"has class 0, and 'P01/video 0' now comes with 2"):
            cache_spatial_outputs(model, videos(1, labels=[2]), None, cache.folder)

    def test_one_id_twice(self, model, tmp_path):
        with pytest.raises(ValueError, match="'P01/video 0' comes twice"):
            cache_spatial_outputs(model, [*videos(1), *videos(1)], None, tmp_path)

    def test_a_model_that_is_not_converted(self, tmp_path):
        with pytest.raises(ValueError, match=r"call eventful\.convert\(model\.spatial"):
            cache_spatial_outputs(vivit(converted=False), videos(), None, tmp_path)

    def test_a_folder_of_something_else(self, model, cache, tmp_path):
        with pytest.raises(ValueError, match="is not a folder that cache_spatial_outputs has made"):
            SpatialCache(tmp_path)
        (cache.folder / "manifest.json").unlink()
        with pytest.raises(ValueError, match="tensors of unknown origin"):
            cache_spatial_outputs(model, videos(), None, cache.folder)

    def test_no_video(self, model, tmp_path):
        with pytest.raises(ValueError, match="holds no video yet"):
            cache_spatial_outputs(model, [], None, tmp_path)

    def test_a_damaged_file(self, cache):
        path = cache.paths[3]
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(ValueError, match=r"is damaged .*delete it and make it again"):
            cache[3]

    def test_views_of_different_number(self, cache, model, tmp_path):
        mixed = [(n, v[: 1 + i], label) for i, (n, v, label) in enumerate(videos(2))]
        with pytest.raises(ValueError, match="must have equally many views"):
            cache_spatial_outputs(model, mixed, None, tmp_path / "mixed").batch([0, 1])
