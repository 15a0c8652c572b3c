"""What scripts make of their results: study, refreshing, importance."""

import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("the benchmarks are not installed with the package", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))
try:
    import filling
    import study_report
    from study_report import axes, cells, cost_for, error_at
finally:
    sys.path.remove(str(BENCHMARKS))

POINTS = [(0.2, 0.4), (0.6, 0.2)]


def script(name):
    """A script that needs what a plain installation lacks."""
    for library in ("av", "cv2", "timm"):
        pytest.importorskip(library)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return __import__(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize(
    ("error", "cost"),
    [(0.1, 0.8), (0.2, 0.6), (0.3, 0.4), (0.5, 0.2)],
)
def test_cost_lies_between_the_points_and_dense(error, cost):
    assert cost_for(POINTS, error) == pytest.approx(cost)


def test_cost_is_that_from_which_on_the_error_stays_low():
    assert cost_for([(0.1, 0.2), (0.3, 0.6), (0.6, 0.2)], 0.4) == pytest.approx(0.45)


@pytest.mark.parametrize(("cost", "error"), [(0.1, 0.4), (0.4, 0.3), (0.8, 0.1), (1.0, 0.0)])
def test_error_is_linear_between_the_points_and_dense(cost, error):
    assert error_at(POINTS, cost) == pytest.approx(error)


def test_every_cell_has_a_name_of_its_own():
    assert len({str(cell) for cell in cells()}) == len(cells())
    used = {cell for places in axes().values() for row in places.values() for cell in row}
    assert used == set(cells())


def test_the_middle_frames_are_taken():
    middle = script("study").middle
    assert middle(list(range(96)), 8) == list(range(0, 96, 8))
    assert middle(list(range(96)), 1) == list(range(42, 54))
    assert middle(list(range(20)), 2) == list(range(0, 20, 2))


def test_errors_that_grow_are_not_bounded():
    summary = script("refresh").summary
    errors = torch.full((4000,), 0.5)
    errors[10], errors[3000] = 0.8, 0.83
    found = summary(errors)
    assert (found["bounded"], found["bound"]) == (True, 0.83)
    assert found["max"] == [0.8, 0.5, 0.5, 0.83]
    errors[3000] = 0.85
    assert not summary(errors)["bounded"]


def test_tables_replace_what_stands_between_the_marks_of_their_kind():
    text = "a\n<!-- x: one -->\nold\n<!-- end -->\n<!-- y: one -->\nkept\n<!-- end -->"
    new = filling.filled(text, "x", {"one": [["b"], ["1"]]})
    assert new == text.replace("old", "| b |\n|---|\n| 1 |")


def test_tables_of_the_study_are_those_of_the_result():
    found, page = json.loads(study_report.RESULT.read_text()), study_report.PAGE.read_text()
    made = filling.filled(page, "study", study_report.tables(found))
    assert made == page, "run benchmarks/study.py --draw"


def test_tables_of_refreshing_are_those_of_the_result():
    refresh = script("refresh")
    found, page = json.loads(refresh.RESULT.read_text()), refresh.PAGE.read_text()
    made = filling.filled(page, "refresh", refresh.tables(found))
    assert made == page, "run benchmarks/refresh.py --draw"


def test_tables_of_importance_are_those_of_the_result():
    importance = script("importance")
    found, page = json.loads(importance.RESULT.read_text()), importance.PAGE.read_text()
    made = filling.filled(page, "importance", importance.tables(found))
    assert made == page, "run benchmarks/importance.py --draw"


def test_gains_are_over_the_better_plain_measure():
    importance = script("importance")
    plain = {"error": 0.4, "relative": 0.2}
    runs = {}
    for gating in importance.GATINGS:
        for i, clip in enumerate(importance.CLIPS):
            errors = dict.fromkeys(importance.KINDS, 0.195) | plain
            errors["error x received"] = 0.18 if i < 3 else 0.3
            runs[f"{gating}, {clip}"] = {"tokens, N/4": errors}
    _, line = importance.tables({"runs": runs})["paper"]
    assert line[1:5] == ["0.400", "0.200", f"{(3 * 0.18 + 4 * 0.3) / 7:.3f} (3)", "0.195 (0)"]


def test_rollout_passes_parts_on_and_loses_none():
    importance = script("importance")
    model = importance.saliency_vit((28, 42)).backbone
    with torch.inference_mode():
        parts = importance.rollout(model, torch.rand(1, 3, 28, 42))
    assert len(parts) == len(model.blocks) + 1
    assert parts[-1].tolist() == [pytest.approx([0] + [1 / 6] * 6)]
    torch.testing.assert_close(torch.cat(parts).sum(dim=1), torch.ones(len(parts)))
    assert (parts[0] > 0).all()
