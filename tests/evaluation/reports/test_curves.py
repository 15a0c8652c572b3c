"""Accuracy-cost curves: which points stand where, and phases taken together."""

import math

import pytest
from PIL import Image

from eventful.evaluation.reports.curves import FAMILIES, curves, family, lines
from eventful.evaluation.reports.phases import pooled


def row(policy, ratio, error=0.2, variant=None, objects=None, **quality):
    return {
        "policy": policy,
        "variant": variant or policy.partition(":")[0],
        "options": {},
        "operations_ratio": ratio,
        "quality": quality,
        "relative_error": error,
        "relative_error_rms": error,
        "relative_error_max": error,
        "relative_error_objects": objects,
        "videos": [{"video": "camel", "relative_error": error, "quality": quality}],
    }


ROWS = [
    row("skip:5", 4.0, 0.3, j_mean=0.6, auc=0.8),
    row("skip:5+2", 5.0, 0.4, j_mean=0.5, auc=None),
    row("skip:2", 2.0, 0.1, j_mean=0.7, auc=0.9),
    row("fraction:0.25", 3.0, 0.25, variant="incremental", objects=0.5, j_mean=0.65, auc=0.85),
]
DENSE = {"quality": {"j_mean": 0.72, "auc": 0.91}}


def test_phases_become_one_row():
    five, two, gated = pooled(ROWS)
    assert (five["policy"], five["phases"]) == ("skip:5", 2)
    assert five["operations_ratio"] == pytest.approx(2 / (1 / 4 + 1 / 5))
    assert five["quality"] == {"j_mean": 0.55, "auc": 0.8}  # the mean of those that are known
    assert five["relative_error"] == pytest.approx(0.35)
    assert five["relative_error_rms"] == pytest.approx(math.sqrt((0.09 + 0.16) / 2))
    assert five["relative_error_max"] == 0.4
    assert five["relative_error_objects"] is None
    (video,) = five["videos"]
    assert (video["video"], video["relative_error"]) == ("camel", pytest.approx(0.35))
    assert [one["phases"] for one in (two, gated)] == [1, 1]


def test_policies_of_gates_are_no_phases():
    both = [row(f"top:{r}", r, variant="incremental") for r in (3, 5)]
    assert [one["policy"] for one in pooled(both)] == ["top:3", "top:5"]


def test_lines_go_from_the_most_operations_down_in_a_fixed_order():
    found = lines(ROWS, "j_mean")
    assert list(found) == [FAMILIES["incremental"], FAMILIES["skip"]]
    assert found[FAMILIES["skip"]] == [(2.0, 0.7), (4.0, 0.6), (5.0, 0.5)]
    assert lines(ROWS, "relative_error_objects") == {FAMILIES["incremental"]: [(3.0, 0.5)]}
    assert FAMILIES["skip"] in lines([row("skip:5", 4.0, auc=0.8)], "auc")
    assert lines([row("skip:5", None, auc=0.8)], "auc") == {}


def test_a_variant_without_a_name_is_drawn_all_the_same():
    assert family({"variant": "query-key"}).label == "query-key"


def test_the_picture_names_all_lines(tmp_path):
    paths = [tmp_path / "a.svg", tmp_path / "a.png"]
    curves(DENSE, ROWS, "a task", paths)
    text = paths[0].read_text()
    shown = ("a task", "J, mean", "AUC", "relative error", "every k-th frame, held", ">dense<")
    assert [word for word in shown if word not in text] == []
    assert "every k-th frame, carried" not in text
    with Image.open(paths[1]) as picture:
        assert picture.width > picture.height > 400


def test_the_same_figures_give_the_same_file(tmp_path):
    paths = [tmp_path / name for name in ("a.svg", "b.svg")]
    for path in paths:
        curves(DENSE, ROWS, "a task", [path])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_without_any_setting(tmp_path):
    curves(DENSE, [], "a task", [tmp_path / "a.svg"])
    curves(None, [], "a task", [tmp_path / "b.svg"])
