"""Runs over all videos: ended and gone on with, held to what they are of, summarised."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eventful import Threshold, TopR
from eventful.evaluation import VARIANTS, Choice, Setting, combined, evaluate
from tests.evaluation import data

SETTINGS = combined(["dense", "incremental"], [TopR(4), Threshold(0.5)])
HERE = Path(__file__).parents[2]


def figures(evaluation):
    """All that does not depend on the clock."""
    return [
        (
            one.setting.name,
            one.scores,
            [row | {"milliseconds": 0, "later": 0} for row in one.videos],
        )
        for one in evaluation.settings
    ], [str(problem) for problem in evaluation.problems]


@pytest.fixture
def broken(vid_root):
    """A frame and an annotation that cannot be used."""
    path = vid_root / "Data/VID/val/street/000006.JPEG"
    path.write_bytes(path.read_bytes()[:150])
    (vid_root / "Annotations/VID/val/beach/000001.xml").write_text("<annotation>")
    return vid_root


def test_a_killed_run_goes_on_where_it_was(vid, broken, tmp_path):
    whole = figures(evaluate(vid(), SETTINGS, tmp_path / "whole"))
    command = [sys.executable, "-m", "tests.evaluation.killed", broken, tmp_path / "killed"]
    paths = os.pathsep.join([str(HERE / "src"), str(HERE)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, cwd=HERE, capture_output=True, check=False)
    assert ended.returncode == -9, ended.stderr.decode()
    results = tmp_path / "killed/results"
    done = {path.relative_to(results): path.stat().st_mtime_ns for path in results.rglob("*.npz")}
    assert sorted(map(str, done)) == [
        "dense/beach.npz",
        "dense/street.npz",
        "incremental-top-4/beach.npz",
    ]
    again = figures(evaluate(vid(), SETTINGS, tmp_path / "killed"))
    assert again == whole
    assert len(again[1]) == 2
    assert {path: (results / path).stat().st_mtime_ns for path in done} == done


def test_ctrl_c_in_the_middle_of_a_video(vid, tmp_path):
    def interrupt(at):
        if (at.settings, at.videos, at.step) == (0, 1, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(vid(), SETTINGS, tmp_path / "ended", progress=interrupt)
    seen = []
    again = evaluate(vid(), SETTINGS, tmp_path / "ended", progress=seen.append)
    ran = {(at.setting, at.video) for at in seen if at.step}
    assert ("dense", "beach") not in ran
    assert ("dense", "street") in ran
    assert figures(again) == figures(evaluate(vid(), SETTINGS, tmp_path / "whole"))


def test_more_settings_and_more_videos_join_what_is_there(vid, tmp_path):
    first = evaluate(vid(), SETTINGS[:1], tmp_path, videos=1)
    assert [row["video"] for row in first.settings[0].videos] == ["beach"]
    seen = []
    found = evaluate(vid(), SETTINGS, tmp_path, progress=seen.append)
    assert [len(one.videos) for one in found.settings] == [2, 2, 2]
    assert ("dense", "beach") not in {(at.setting, at.video) for at in seen if at.step}


def test_problems_are_told_for_any_of_the_settings(vid, broken, tmp_path):
    everything = evaluate(vid(), SETTINGS[1:], tmp_path)
    again = evaluate(vid(), SETTINGS[2:], tmp_path)  # reads no frame
    assert list(map(str, again.problems)) == list(map(str, everything.problems))
    assert len(again.problems) == 2


def test_strict_raises_at_the_first_problem(broken, tmp_path):
    task = data.make_vid(data.detector(), Choice(broken, strict=True))
    with pytest.raises(ValueError, match=r"beach/000001.xml: broken XML"):
        evaluate(task, SETTINGS, tmp_path)


@pytest.mark.parametrize("what", ["root", "weights", "frames", "size"])
def test_a_folder_of_another_run_is_refused(vid, vid_root, tmp_path, what):
    evaluate(vid(), SETTINGS[:1], tmp_path / "out")
    root, model, choice = vid_root, data.detector(), {}
    if what == "root":
        root = shutil.copytree(vid_root, tmp_path / "elsewhere")
    elif what == "weights":
        model.pyramid.levels["p4"][0].weight.data.flatten()[0] += 1
    else:
        choice = {what: 48 if what == "size" else 2}
    other = data.make_vid(model, Choice(root, **choice))
    with pytest.raises(ValueError, match=f"results of another run: {what} .* --fresh") as error:
        evaluate(other, SETTINGS[:1], tmp_path / "out")
    assert str(error.value).count("(now") == 1
    found = evaluate(other, SETTINGS[:1], tmp_path / "out", fresh=True)
    assert figures(found) == figures(evaluate(other, SETTINGS[:1], tmp_path / "other"))


def test_a_setting_of_the_same_name_and_other_options_is_refused(vid, tmp_path):
    setting = Setting("incremental", TopR(4), {"attention": "incremental"})
    evaluate(vid(), [setting], tmp_path)
    other = Setting("incremental", TopR(4), setting.options | {"gate_before_norm": True})
    with pytest.raises(ValueError, match=r"another run: options .*gate_before_norm"):
        evaluate(vid(), [other], tmp_path)


def test_a_damaged_result_is_named(vid, tmp_path):
    evaluate(vid(), SETTINGS[:1], tmp_path)
    path = tmp_path / "results/dense/street.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"street.npz is damaged .* delete it"):
        evaluate(vid(), SETTINGS[:1], tmp_path)


def test_a_folder_of_something_else_stays_as_it_is(vid, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/thesis.txt").write_text("precious")
    for fresh in (False, True):
        with pytest.raises(ValueError, match="no results of an evaluation; choose another --out"):
            evaluate(vid(), SETTINGS, tmp_path, fresh=fresh)
    assert (tmp_path / "results/thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (Setting("incremental", TopR(17), {}), r"TopR\(17\) asks for more tokens .* \(16\)"),
        (Setting("full", TopR(4), {"attention": "some"}), "attention must be one of"),
        (Setting("full", TopR(4), {"half_precision": True}), "half_precision=True rounds"),
    ],
)
def test_settings_that_do_not_fit_are_found_before_the_run(vid, tmp_path, setting, message):
    with pytest.raises(ValueError, match=f"{setting.name}: .*{message}"):
        evaluate(vid(), [*SETTINGS, setting], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pooling_needs_a_grid(kinetics, tmp_path):
    pooled = Setting("spatiotemporal", TopR(4), VARIANTS["spatiotemporal"])
    with pytest.raises(ValueError, match="spatiotemporal, top:4: pooling=2 averages over cells"):
        evaluate(kinetics(), [pooled], tmp_path)


def test_summary_of_a_setting(vid, tmp_path):
    dense, top, _ = evaluate(vid(), SETTINGS, tmp_path).settings
    assert dense.ratio == 1
    assert dense.first_share == top.first_share == 2 / 7
    assert dense.operations == dense.dense_operations == top.dense_operations
    assert top.operations == sum(row["operations"] for row in top.videos) / 7
    first = dense.operations
    update = (7 * top.operations - 2 * first) / 5
    assert 0 < update < first
    assert top.milliseconds > 0
    assert top.total("scored") == 7


def test_operations_of_a_video_are_those_of_all_its_views(kinetics, tmp_path):
    """The damaged clip counts as a video nowhere."""
    found = evaluate(kinetics(), SETTINGS[:2], tmp_path)
    dense, top = found.settings
    assert [row["scored"] for row in top.videos] == [1, 1, 1, 1, 0]
    assert top.operations == sum(row["operations"] for row in top.videos) / 4
    assert top.videos[0]["dense_operations"] == dense.videos[0]["operations"]
    assert top.first_share == 1 / 2  # of two pairs of frames a view
    assert [problem.kind for problem in found.problems] == ["video"]


def test_names_of_videos_must_differ(kinetics, tmp_path):
    task = kinetics()
    task.data._clips.append(task.data[0])
    with pytest.raises(ValueError, match="the data set names two videos 'clip0_000000_000001'"):
        evaluate(task, SETTINGS[:1], tmp_path)
