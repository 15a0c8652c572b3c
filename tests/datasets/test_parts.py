"""What all data sets are made of: problems, layouts, images, XML, tables."""

import importlib.util
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import eventful.datasets
from eventful.datasets import VID_CLASSES, Problems
from eventful.datasets.images import (
    covering,
    padded,
    read_grey,
    read_plain,
    read_rgb,
    resized,
    resized_mask,
    shortest_edge,
    to_tensor,
)
from eventful.datasets.layout import consecutive, located, numbered
from eventful.datasets.tables import read_table, seconds


class TestProblems:
    def test_each_counts_once_and_empty_is_false(self):
        problems = Problems()
        assert not problems
        assert str(problems) == "no problems"
        for reason in ("torn", "torn", "wet"):
            problems.report("image", Path("a.jpg"), reason)
        assert [problem.reason for problem in problems] == ["torn", "wet"]
        assert problems.counts == {"image": 2}

    @pytest.mark.parametrize(
        ("kind", "error"), [("missing", FileNotFoundError), ("box", ValueError)]
    )
    def test_strict_raises_and_says_how_to_go_on(self, kind, error):
        with pytest.raises(error, match=r"a\.xml: torn\..*strict=False"):
            Problems(strict=True).report(kind, Path("a.xml"), "torn")


class TestLayout:
    def test_the_first_place_that_exists(self, tmp_path):
        (tmp_path / "b").mkdir()
        assert located(tmp_path, ["a", "b"], "it", "x.org") == tmp_path / "b"
        with pytest.raises(FileNotFoundError, match=r"the frames at .*/a or .*/c;.* from x\.org"):
            located(tmp_path, ["a", "c"], "the frames", "x.org")

    def test_files_by_number_and_names_that_have_none(self, tmp_path):
        for name in ("in10.jpg", "in9.JPG", "in009.jpg", "cover.jpg", "notes.txt", ".in3.jpg"):
            (tmp_path / name).touch()
        problems = Problems()
        found = numbered(tmp_path, (".jpg",), problems)
        assert [(number, path.name) for number, path in found] == [
            (9, "in009.jpg"),
            (10, "in10.jpg"),
        ]
        assert {problem.path.name for problem in problems} == {"in9.JPG", "cover.jpg"}

    def test_nothing_is_consecutive(self):
        assert consecutive([]) == []


class TestSizes:
    @pytest.mark.parametrize(
        ("before", "size", "after"),
        [
            ((720, 1280), 1024, (576, 1024)),  # the long side decides: x 0.8
            ((480, 640), 1024, (640, 853)),  # the short side does: x 4/3, 853.3
            ((500, 353), 672, (595, 420)),  # x 420/353, 594.9
            ((20, 25), 16, (10, 13)),  # 12.5 goes up
            ((1280, 720), 672, (672, 378)),
            ((1, 100), 16, (1, 16)),  # never to nothing
        ],
    )
    def test_short_side_and_long_side(self, before, size, after):
        assert shortest_edge(*before, size) == after

    @pytest.mark.parametrize(
        ("before", "size", "after"),
        [((1080, 1920), 320, (320, 569)), ((100, 60), 30, (50, 30)), ((3, 3), 5, (5, 5))],
    )
    def test_covering(self, before, size, after):
        assert covering(*before, size) == after

    def test_padding_is_below_and_to_the_right(self):
        image = padded(torch.ones(3, 2, 3), 4, (0.25, 0.5, 0.75))
        assert image[0].tolist() == [[1, 1, 1, 0.25]] * 2 + [[0.25] * 4] * 2
        assert image[:, 3, 3].tolist() == [0.25, 0.5, 0.75]

    @pytest.mark.parametrize("size", [(5, 11), (22, 34)])
    def test_resizing_is_bilinear_with_antialiasing(self, size):
        pixels = np.random.default_rng(0).integers(0, 256, (11, 17, 3), np.uint8)
        ours = to_tensor(resized(Image.fromarray(pixels), size))
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
        theirs = F.interpolate(planes, size, mode="bilinear", antialias=True)[0] / 255
        assert ours.dtype == torch.float32
        assert (ours - theirs).abs().max() < 1.1 / 255  # ours is rounded to levels, twice

    def test_masks_stay_masks(self):
        mask = np.array([[True, False], [False, False]])
        assert resized_mask(mask, (2, 4)).tolist() == [[True, True, False, False], [False] * 4]


class TestImages:
    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
    def test_any_mode_is_read_as_rgb(self, tmp_path, mode):
        path = tmp_path / "a.tif"
        Image.new("RGB", (5, 3), (255, 255, 255)).convert(mode).save(path)
        image = read_rgb(path, Problems())
        assert image is not None
        assert to_tensor(image).tolist() == torch.ones(3, 3, 5).tolist()

    @pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
    @pytest.mark.parametrize("part", [0, 0.02, 0.5])
    def test_broken_images_are_reported(self, tmp_path, truncate, suffix, part):
        path = tmp_path / f"a.{suffix}"
        noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(noise).save(path)
        truncate(path, part)
        problems = Problems()
        assert read_rgb(path, problems) is None
        assert [problem.path for problem in problems] == [path]
        with pytest.raises(ValueError, match=str(path)):
            read_rgb(path, Problems(strict=True))

    def test_masks_with_a_palette(self, tmp_path):
        image = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8))
        image.putpalette([0, 0, 0, 128, 0, 0, 85, 85, 85])
        image.save(tmp_path / "a.png")
        plain, grey = (read(tmp_path / "a.png", Problems()) for read in (read_plain, read_grey))
        assert plain is not None
        assert grey is not None
        assert plain.tolist() == [[0, 1], [2, 0]]
        assert grey.tolist() == [[0, 38], [85, 0]]  # 0.299 of 128

    def test_masks_in_colour(self, tmp_path):
        pixels = np.array([[[0, 0, 0, 255], [0, 7, 0, 255]]], np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        mask = read_plain(tmp_path / "a.png", Problems())
        assert mask is not None
        assert mask.tolist() == [[0, 7]]


class TestTables:
    def test_fields(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text('\ufeffname,nouns\na,"[1, 2]"\nb\n', encoding="utf-8")
        rows = [{"name": "a", "nouns": "[1, 2]"}, {"name": "b", "nouns": ""}]
        assert read_table(path, ["name"], "x.org") == rows

    @pytest.mark.parametrize(
        ("content", "match"),
        [(b"a,b\n1,2\n", r"lacks c\..*x\.org"), (b"", "lacks a, c"), (b"a,c\n\xff\xfe", "no CSV")],
    )
    def test_other_files_are_refused(self, tmp_path, content, match):
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(ValueError, match=match):
            read_table(tmp_path / "a.csv", ["a", "c"], "x.org")

    def test_times(self):
        assert seconds("01:02:03.45") == Fraction(372345, 100)
        for text in ("1:2", "a:b:c", "", "00:00:1/0", "00:00:-1"):
            with pytest.raises(ValueError, match=r"no time like|before the start"):
                seconds(text)


def test_the_thirty_classes():
    names = list(VID_CLASSES.values())
    assert len(VID_CLASSES) == 30
    assert names == sorted(names)
    assert VID_CLASSES["n02691156"] == "airplane"
    assert names.index("dog") == 8
    assert VID_CLASSES["n02391049"] == "zebra"


def test_without_pillow_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    spec = importlib.util.spec_from_file_location("copy", eventful.datasets.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"pip install 'eventful-transformers\[datasets\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
