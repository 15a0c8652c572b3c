"""What `benchmarks/quality.py` makes of reports, on hand-made ones."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("the benchmarks are not installed with the package", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))
try:
    import quality
    from filling import markdown
    from quality_clock import clock
    from quality_summary import HEADS, asked, at_fewer, least, loss, summary, within
    from quality_tables import TABLES, filled
finally:
    sys.path.remove(str(BENCHMARKS))

COLUMNS = [
    f"relative_error{part}{kind}" for part in ("", "_objects") for kind in ("", "_rms", "_max")
]


def errors(error, objects):
    """Root mean squares are a half more than means, the worst is twice them."""
    values = [factor * one for one in (error, objects) for factor in (1, 1.5, 2)]
    return dict(zip(COLUMNS, values, strict=True))


def row(policy, ratio, quality, error=0.2, objects=0.4, clips=None, variant=None):
    each = {"clip": (error, objects)} if clips is None else clips
    videos = [
        {"video": name, "frames": 4, "quality": quality, **errors(*both)}
        for name, both in each.items()
    ]
    return {
        "policy": policy,
        "variant": variant or policy.partition(":")[0],
        "options": {},
        "operations_ratio": ratio,
        "quality": quality,
        **errors(error, objects),
        "kinds": {"dense": {"frames": 10}, "carried": {"frames": round(10 * ratio) - 10}},
        "videos": videos,
    }


def report(task, dense, rows):
    videos = [{"video": "clip", "frames": 4, "quality": dense}]
    return {
        "task": task,
        "data": {"root": "/somewhere", "size": 518, "frames": None},
        "dense": {"quality": dense, "operations": 7e9, "videos": videos},
        "rows": rows,
        "machine": {"processor": "a"},
        "versions": {"timm": "1"},
        "commit": "c0ffee",
    }


def maps(auc, f_beta=0.5, mae=0.1):
    return {"auc": auc, "f_beta": f_beta, "mae": mae}


def carried(j_mean, j_decay=0.1):
    return {"j_mean": j_mean, "j_recall": 0.9, "j_decay": j_decay, "f_mean": 0.6}


@pytest.fixture
def davis():
    """Judged by two tasks: dense AUC 0.9, J 0.8."""
    rows = [
        row("auto:0.5", 2.0, maps(0.899) | carried(0.799, 0.3)),
        row("auto:0.2", 5.0, maps(0.899, mae=0.2) | carried(0.79), 0.16, 0.3),
        row("auto:0.1", 9.0, maps(0.7) | carried(0.7)),
        row("skip:5", 5.0, maps(0.8) | carried(0.7), 0.18, 0.4),
        row("skip:5+1", 4.0, maps(0.7) | carried(0.6), 0.22, 0.6),
        row("fraction:0.2", 3.0, maps(0.896) | carried(0.5), variant="incremental"),
    ]
    return report("davis", maps(0.9) | carried(0.8), rows)


@pytest.fixture
def still():
    """A static clip each."""
    f1 = {"auc": 0.9, "f1": 0.8, "auc_dense": 1.0, "f1_dense": 1.0}
    names = ("highway", "vtest")
    first, second = (
        [
            row("auto:0.2", 6.0, quality, *ours, {name: ours}),
            row("skip:5", 5.0, quality, *held, {name: held}),
        ]
        for name, quality, ours, held in (
            (names[0], {"map50": 0.8}, (0.1, 0.2), (0.2, 0.5)),
            (names[1], f1, (0.08, 0.3), (0.1, 0.5)),
        )
    )
    return [report("cdnet-vehicles", {"map50": 0.803}, first), report("vtest", f1, second)]


def test_a_run_that_two_tasks_judge_is_two_tasks(davis):
    tasks = summary([davis])["tasks"]
    assert list(tasks) == ["davis-saliency", "davis-propagation"]
    assert tasks["davis-saliency"]["dense"]["quality"] == maps(0.9)
    held = next(one for one in tasks["davis-propagation"]["rows"] if one["policy"] == "skip:5")
    assert (held["phases"], held["operations_ratio"]) == (2, 4.4444)
    assert held["quality"]["j_mean"] == pytest.approx(0.65)
    assert tasks["davis-saliency"]["data"] == {"size": 518, "frames": None}  # and no folder
    json.dumps(tasks)


def test_within_goes_by_what_is_better():
    dense = {"quality": {"auc": 0.8, "mae": 0.2, "f_beta": None}}
    worse = {"quality": {"auc": 0.796, "mae": 0.201, "f_beta": 0.5}}
    assert within(worse, dense, "auc", 0.005)
    assert not within(worse, dense, "auc", 0.0049)
    assert within(worse, dense, "mae", 0.005)
    assert not within(worse, dense, "mae", 0.0049)
    assert not within(worse, dense, "f_beta", 1)
    better = {"quality": {"auc": 0.9, "mae": 0.1, "f_beta": None}}
    assert all(within(better, dense, name, 0) for name in ("auc", "mae"))


def test_the_least_operations_are_those_of_a_measured_setting(davis):
    saliency, carrying = summary([davis])["tasks"].values()
    reached = saliency["least"]["auto"]
    assert reached["0.5"] == {
        "main": {"policy": "auto:0.2", "operations_ratio": 5.0},
        "all": {"policy": "auto:0.5", "operations_ratio": 2.0},  # at auto:0.2, MAE is doubled
    }
    assert carrying["least"]["auto"]["0.5"]["main"]["policy"] == "auto:0.5"
    assert carrying["least"]["auto"]["0.5"]["all"]["policy"] == "auto:0.5"  # whatever its decay
    assert carrying["least"]["auto"]["2"]["main"]["policy"] == "auto:0.2"
    assert carrying["least"]["incremental"]["2"] == {"main": None, "all": None}
    assert list(saliency["least"]) == ["auto", "incremental", "skip"]


def test_a_setting_without_an_answer_is_none():
    task = {
        "main": "map50",
        "dense": {"quality": {"map50": None}},
        "rows": [row("skip:2", 2.0, {"map50": 0.5})],
    }
    assert least(task)["skip"]["2"]["main"] is None
    assert loss(task, task["rows"][0]) is None
    assert loss(task, None) is None


def test_quality_at_fewer_operations_is_the_best_there(davis):
    task = summary([davis])["tasks"]["davis-propagation"]
    assert at_fewer(task, "auto")["policy"] == "auto:0.2"
    assert at_fewer(task, "incremental") is None
    assert loss(task, at_fewer(task, "auto")) == pytest.approx(0.01 / 0.8)


def test_what_was_asked(davis, still):
    moving, static, objects, boxes, masks, *_ = summary([davis, *still])["asked"]
    assert moving["found"] == pytest.approx(0.16 / 0.2)
    root = ((0.18**2 + 0.22**2) / 2) ** 0.5
    assert moving["rms"] == pytest.approx(0.16 / root, rel=1e-4)
    assert moving["worst"] == pytest.approx(0.16 / 0.22)
    assert moving["clips"] == {"clip": pytest.approx(0.8)}
    assert moving["met"]
    assert static["found"] == pytest.approx(0.09 / 0.15)  # the ratio of the means
    assert static["clips"] == {"highway": pytest.approx(0.5), "vtest": pytest.approx(0.8)}
    assert objects["found"] == pytest.approx(0.25 / 0.5)
    assert objects["met"]
    assert (boxes["policy"], boxes["met"]) == ("auto:0.2", True)
    assert masks["policy"] == "auto:0.2"
    assert (masks["found"], masks["met"]) == (pytest.approx(0.0125), True)


def test_what_was_not_measured_is_neither_met_nor_missed(still):
    found = asked(summary(still[:1])["tasks"])
    assert [one["met"] for one in found] == [None, None, None, True, *[None] * 3]
    assert found[3]["found"] == pytest.approx(1 - 0.8 / 0.803, abs=1e-5)


@pytest.fixture
def people():
    """A head in a scene that it has not seen: dense 0.8."""
    rows = [
        row("auto:0.25", 3.9, {"map50": 0.81}, error=0.1),
        row("auto:0.24", 4.1, {"map50": 0.794}, error=0.12),
        row("auto:0.125", 8.0, {"map50": 0.7}),
        row("carry:4", 4.0, {"map50": 0.78}),
    ]
    return report("campus-people", {"map50": 0.8}, rows)


def test_heads_are_asked_for_at_four_times_fewer_operations(people):
    found = summary([people])
    masks, boxes = found["asked"][-2:]
    assert (masks["found"], masks["met"]) == (None, None)
    assert boxes["policy"] == "auto:0.24"  # auto:0.25 saves less than four times
    assert boxes["found"] == pytest.approx(0.006 / 0.8)
    assert boxes["met"]
    lines = TABLES["heads"](found)
    label = "campus-people, mAP50"
    assert lines[1] == [label, "dense", "1x", "0.8000", "-", "-"]
    policies = [line[1].strip("`") for line in lines[2:]]
    assert policies == ["auto:0.25", "carry:4", "auto:0.24", "auto:0.125"]
    assert lines[4] == [label, "`auto:0.24`", "4.10x", "0.7940 (-0.7 %)", "0.120", "0.240"]


def test_time_adds_up_what_kinds_of_frames_cost(davis):
    costs = clock("davis").costs
    rows = {row["policy"]: row for row in summary([davis])["tasks"]["davis-saliency"]["rows"]}
    share = (10 * costs.dense + 40 * costs.carried) / 50 / costs.dense
    assert rows["auto:0.2"]["time"] == pytest.approx(share, rel=1e-4)
    assert rows["skip:5"]["phases"] == 2
    assert share < rows["skip:5"]["time"] < 1 / 4  # the mean of both phases
    partial = {"frames": 1, "operations": 0.1}
    timed = {"variant": "auto", "policy": "", "kinds": {"dense": {"frames": 1}, "partial": partial}}
    each = clock("davis").costs.of(78)  # of 778 tokens
    assert clock("davis").share(timed) == pytest.approx((1 + each / costs.dense) / 2)
    assert clock("davis").share({**timed, "kinds": {"gated": partial}}) is None


def test_settings_that_were_not_run_again_are_kept(davis, still):
    before = summary([davis, *still])
    again = report("davis", davis["dense"]["quality"], davis["rows"][:1]) | {"commit": "new"}
    found = summary([again], before)["tasks"]
    assert list(found) == list(before["tasks"])
    masks = found["davis-propagation"]
    assert {row["policy"] for row in masks["rows"]} == {
        row["policy"] for row in before["tasks"]["davis-propagation"]["rows"]
    }
    assert masks["provenance"]["commit"] == "new"
    assert masks["kept"]["commit"] == "c0ffee"
    assert "auto, auto:0.5" not in masks["kept"]["settings"]
    assert found["vtest"]["rows"] == before["tasks"]["vtest"]["rows"]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [(("vtest", "vtest"), "two reports hold the task vtest"), (("vid",), "expected a report on")],
)
def test_reports_that_cannot_be_brought_together(tasks, message):
    f1 = dict.fromkeys(("auc", "f1", "auc_dense", "f1_dense"), 1.0)
    with pytest.raises(ValueError, match=message):
        summary([report(task, f1, []) for task in tasks])


def test_tables_say_what_was_found(davis, still):
    found = summary([davis, *still])
    text = {name: markdown(table(found)) for name, table in TABLES.items()}
    assert "| auto | 5.0x / 5.0x | 2.0x / 5.0x | 6.0x / 6.0x | 6.0x / 6.0x |" in text["limits"]
    assert "| top r (the paper's gating) | 3.0x / 3.0x | - / - | not run |" in text["limits"]
    assert "`auto:0.5`, 2.00x" in text["settings"]
    assert "| davis-propagation | every k-th frame, held | none measured |" in text["settings"]
    assert "| auto | 0.8990 (-0.1 %) | 0.7900 (-1.2 %) | 0.8000 (-0.4 %)" in text["fewer"]
    assert "| 4x faster | auto | 0.8990 (-0.1 %), 4.7x | 0.7900 (-1.2 %), 4.7x |" in text["time"]
    assert "| 0.7000 (-12.5 %), 8.0x | 0.8000 (-0.4 %), 5.6x |" in text["time"]
    assert "| DAVIS | `skip:5` | 4.44x | 0.200 | 0.30" in text["errors"]
    assert "| 0.65 | 0.600 | 0.573 | 0.500 | highway 0.500, vtest 0.800 |" in text["asked"]
    widths = [{len(line) for line in table(found)} for table in TABLES.values()]
    assert all(len(one) == 1 for one in widths)


def test_filled_replaces_tables_alone(still):
    text = "before\n<!-- quality: asked -->\nold\n<!-- end -->\n<!-- table: x -->\n1\n<!-- end -->"
    new = filled(text, summary(still))
    assert new.startswith("before\n<!-- quality: asked -->\n| figure |")
    assert new.endswith("|\n<!-- end -->\n<!-- table: x -->\n1\n<!-- end -->")
    assert filled(new, summary(still)) == new


def test_settings_have_names_of_their_own():
    for run in quality.RUNS:
        names = [one.name for one in quality.settings(run)]
        assert names[0] == "dense"
        assert len(set(names)) == len(names)
        if run in HEADS:
            assert {"auto:0.25", "skip:4", "carry:8"} < set(names)
        else:
            assert {"auto:0.2", "skip:5", "incremental, fraction:0.125"} < set(names)
            assert ("skip:5+4" in names) == (run != "davis")


def test_tables_in_the_documentation_are_up_to_date():
    found = json.loads(quality.RESULTS.read_text())
    for path in quality.FILES:
        assert filled(path.read_text(), found) == path.read_text(), (
            "run benchmarks/quality.py tables"
        )
