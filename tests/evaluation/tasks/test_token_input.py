"""Tasks on patch tokens where data, policies or sizes are not what they should be."""

import numpy as np
import pytest
from PIL import Image

from eventful.datasets import Davis
from eventful.evaluation import Setting, combined, evaluate, report
from eventful.evaluation.tasks.crowd import Crowd, CrowdTask
from eventful.evaluation.tasks.propagation import DavisPropagation
from eventful.evaluation.tasks.saliency import DavisSaliency
from tests.evaluation import annotated_data as data
from tests.evaluation.annotated_data import davis, make, rows

DENSE = Setting("dense", None)


def test_masks_that_are_missing_or_of_another_size(tmp_path):
    task = davis(tmp_path, {"camel": 9})
    masks = tmp_path / "data/Annotations/480p/camel"
    (masks / "00004.png").unlink()
    Image.new("L", (30, 20)).save(masks / "00008.png")
    found = evaluate(task, combined(["dense", "input"], ["top:3"]), tmp_path / "out")
    assert sorted((one.kind, one.path.name) for one in found.problems) == [
        ("annotation", "00008.png"),
        ("missing", "00004.png"),
    ]
    assert [one.total("scored") for one in found.settings] == [1, 1]
    assert [one.total("steps") for one in found.settings] == [9, 9]
    content = report(task, found, {"title": "DAVIS"})
    assert len(content["problems"]) == 2
    strict = make(DavisSaliency, Davis(tmp_path / "data", strict=True), tmp_path / "strict")
    with pytest.raises(FileNotFoundError, match=r"00004\.png: there is no such mask"):
        evaluate(strict, [DENSE], tmp_path / "other")


def test_a_first_mask_that_is_missing_leaves_a_sequence_without_a_score(tmp_path):
    task = davis(tmp_path, {"boat": 5, "camel": 5}, DavisPropagation)
    (tmp_path / "data/Annotations/480p/boat/00000.png").unlink()
    found = evaluate(task, [DENSE], tmp_path / "out")
    (dense,) = found.settings
    assert [video["scored"] for video in dense.videos] == [0, 3]
    assert dense.videos[0]["j_mean"] is None
    assert dense.scores["j_mean"] == dense.videos[1]["j_mean"]
    assert [one.kind for one in found.problems] == ["missing"]


@pytest.mark.parametrize("kind", [DavisSaliency, DavisPropagation])
def test_a_sequence_of_one_frame(tmp_path, kind):
    task = davis(tmp_path, {"camel": 1}, kind)
    content = rows(task, tmp_path, "top:3")
    (row,) = content["rows"]
    assert (row["operations_ratio"], row["time_ratio"]) == (pytest.approx(1), None)
    assert row["relative_error_max"] < 1e-5
    expected = kind is DavisSaliency
    assert all((value is not None) == expected for value in row["quality"].values())


def test_a_video_without_change(tmp_path):
    """Whatever is left out keeps its value: no error, and the quality of the dense model."""
    frames = [data.scene(0, still=True)] * 5
    content = rows(davis(tmp_path, {"camel": frames}), tmp_path, "top:3", "threshold:1.0")
    for row in content["rows"]:
        assert row["relative_error_max"] < 1e-5
        assert row["quality"] == pytest.approx(content["dense"]["quality"], abs=1e-4)
        assert row["operations_ratio"] > 1.5


def test_an_object_that_is_never_there(tmp_path):
    """Nothing to rank: no AUC, and no error of the objects' patches."""
    frames = [(data.scene(number)[0], np.zeros(data.SHAPE, bool)) for number in range(3)]
    (row,) = rows(davis(tmp_path, {"camel": frames}), tmp_path, "top:3")["rows"]
    assert row["quality"]["auc"] is row["quality"]["f_beta"] is None
    assert row["quality"]["mae"] > 0
    assert row["relative_error_objects"] is row["relative_error_objects_max"] is None


def test_videos_may_differ_in_size(tmp_path):
    tall = [data.scene(number, (60, 40)) for number in range(3)]
    task = davis(tmp_path, {"boat": tall, "camel": 3})
    runner = task.runner(combined(["input"], ["top:3"])[0])
    for video, grid in zip(task.data, ((5, 3), (3, 5)), strict=True):
        task.run(runner, video)
        assert task.grid(next(iter(video)).image.shape[1:]) == grid
        assert [step.first for step in runner.steps] == [True, False, False]


def test_frames_of_one_video_may_not(tmp_path):
    frames = [data.scene(0), data.scene(1, (60, 40))]
    task = davis(tmp_path, {"camel": frames})
    with pytest.raises(ValueError, match=r"frames differ in size: \(42, 70\), then \(70, 42\)"):
        task.run(task.runner(DENSE), task.data[0])


def test_a_video_of_which_nothing_can_be_read(tmp_path):
    task = davis(tmp_path, {"boat": 2, "camel": 3})
    for path in (tmp_path / "data/JPEGImages/480p/boat").iterdir():
        path.write_bytes(b"no image")
    (row,) = rows(task, tmp_path, "top:3")["rows"]
    assert row["videos"][0]["quality"]["auc"] is row["videos"][0]["relative_error"] is None
    assert row["quality"]["auc"] == row["videos"][1]["quality"]["auc"]


def test_people_that_are_not_there(tmp_path):
    root = data.write_crowd(tmp_path / "data")
    (root / "det.txt").write_text("9,-1,4,8,20,18,0.9,-1,-1,-1\n")
    task = make(CrowdTask, Crowd(root), tmp_path)
    with pytest.raises(ValueError, match="a probe needs patches on and off objects; all 15 are"):
        task.run(task.runner(DENSE), task.data[0])


def test_boxes_that_cannot_be_read(tmp_path):
    root = data.write_crowd(tmp_path / "data")
    with (root / "det.txt").open("a") as file:
        file.write("\nthree,-1,4,8\n5,-1,-4,-2,10,9,0.9,-1,-1,-1\n")
    crowd = Crowd(root)
    frames = list(crowd[0])
    assert [one.kind for one in crowd.problems] == ["row"]
    assert "line 11 is no box" in next(iter(crowd.problems)).reason
    assert frames[4].target[:7, :6].all()  # the part inside of a box over the edge
    assert int(frames[4].target.sum()) == 7 * 6 + 18 * 20
    (root / "det.txt").unlink()
    with pytest.raises(FileNotFoundError, match="expected the boxes of people at"):
        Crowd(root)


def test_policies_that_do_not_fit(tmp_path):
    task = davis(tmp_path, {"camel": 2})
    with pytest.raises(ValueError, match=r"input, top:16: TopR\(16\) asks for more"):
        evaluate(task, combined(["input"], ["top:16"]), tmp_path / "out")
    with pytest.raises(ValueError, match="--size must be at least 14 pixels"):
        make(DavisSaliency, task.data, tmp_path, size=9)
