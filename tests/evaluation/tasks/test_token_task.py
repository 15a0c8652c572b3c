"""Tasks on patch tokens, from files to reports, with a tiny network."""

import json

import numpy as np
import pytest
import torch

from eventful.datasets import CDnet, Davis
from eventful.evaluation import Setting, combined, evaluate
from eventful.evaluation.measures.masks import region_j
from eventful.evaluation.runners.tokens import TokenRunner
from eventful.evaluation.tasks.crowd import Crowd, CrowdTask
from eventful.evaluation.tasks.propagation import DavisPropagation
from eventful.evaluation.tasks.saliency import CDnetSaliency, DavisSaliency
from tests.evaluation import annotated_data as data
from tests.evaluation.annotated_data import davis, make, rows

DENSE = Setting("dense", None)
TASKS = {
    "davis-saliency": (DavisSaliency, Davis, data.write_davis, ({"boat": 6, "camel": 9},)),
    "davis-propagation": (DavisPropagation, Davis, data.write_davis, ({"boat": 4, "camel": 6},)),
    "cdnet-saliency": (CDnetSaliency, CDnet, data.write_cdnet, ()),
    "vtest": (CrowdTask, Crowd, data.write_crowd, ()),
}


@pytest.fixture(params=TASKS)
def task(request, tmp_path):
    kind, dataset, write, given = TASKS[request.param]
    return make(kind, dataset(write(tmp_path / "data", *given)), tmp_path)


def test_reports(task, tmp_path):
    content = rows(task, tmp_path, "top:3", "fraction:0.50", "all")
    assert json.loads(json.dumps(content)) == content
    dense, (three, half, everything) = content["dense"], content["rows"]
    assert [row["policy"] for row in content["rows"]] == ["top:3", "fraction:0.50", "all"]
    assert three["variant"] == "input"
    assert set(dense["quality"]) == set(task.measures)
    assert all(value is not None for value in dense["quality"].values())
    assert three["operations_ratio"] > half["operations_ratio"] > everything["operations_ratio"]
    assert three["relative_error"] > half["relative_error"] > 0.001
    for name in ("relative_error", "relative_error_objects"):
        assert everything[f"{name}_max"] < 1e-5
        mean, rms, most = (three[name + suffix] for suffix in ("", "_rms", "_max"))
        assert 0 < mean < rms < most
    for name, value in everything["quality"].items():
        assert value == pytest.approx(dense["quality"][name], abs=1e-4)
    assert three["time_ratio"] == pytest.approx(dense["milliseconds"] / three["milliseconds"])
    names = [video.id for video in task.data]
    for row in (dense, three):
        assert [video["video"] for video in row["videos"]] == names
        for name, value in row["quality"].items():
            assert value == pytest.approx(np.mean([v["quality"][name] for v in row["videos"]]))


def test_errors_of_a_row_are_those_of_all_its_frames(tmp_path):
    (row,) = rows(davis(tmp_path, {"boat": 2, "camel": 7}), tmp_path, "top:3")["rows"]
    short, long = row["videos"]
    mean = (2 * short["relative_error"] + 7 * long["relative_error"]) / 9
    assert row["relative_error"] == pytest.approx(mean)
    squares = (2 * short["relative_error_rms"] ** 2 + 7 * long["relative_error_rms"] ** 2) / 9
    assert row["relative_error_rms"] == pytest.approx(squares**0.5)
    assert row["relative_error_max"] == long["relative_error_max"]
    (first, second) = row["videos"][0]["frames"], row["videos"][1]["frames"]
    assert (first, second) == (2, 7)


def test_operations_count_first_frames(tmp_path):
    task = davis(tmp_path, {"boat": 1, "camel": 5})
    content = rows(task, tmp_path, "top:3")
    (row,), dense = content["rows"], content["dense"]
    one, five = row["videos"]
    assert one["operations_ratio"] == pytest.approx(1)  # nothing but a first frame
    assert one["time_ratio"] is None
    assert five["operations_ratio"] > row["operations_ratio"] > 1
    runner = task.runner(combined(["input"], ["top:3"])[0])
    task.run(runner, task.data[1])
    used = sum(step.operations for step in runner.steps)
    assert five["operations_ratio"] == pytest.approx(5 * dense["operations"] / used)


def test_the_error_is_that_to_the_dense_model(tmp_path):
    task = davis(tmp_path, {"camel": 4})
    setting = combined(["hold"], ["top:3"])[0]
    found, _ = task.run(task.runner(setting), task.data[0])
    ours, dense = (TokenRunner(data.models(), one) for one in (setting, DENSE))
    for runner in (ours, dense):
        runner.start()
    frames = [
        torch.nn.functional.interpolate(
            sample.image[None], (42, 70), mode="bilinear", antialias=True
        ).clamp(0, 1)
        for sample in task.data[0]
    ]
    errors = []
    for frame in frames:
        one, other = ours(frame)[0], dense(frame)[0]
        errors.append(float((one - other).norm() / other.norm()))
    assert found["error"] == pytest.approx(errors, abs=1e-6)


def test_dense_tokens_are_computed_once(tmp_path, monkeypatch):
    task = davis(tmp_path, {"camel": 4})
    first = combined(["input"], ["top:3"])[0]
    task.run(task.runner(first), task.data[0])  # no dense run has been before
    path = tmp_path / "dense/camel.npy"
    written = path.stat().st_mtime_ns
    task.run(task.runner(combined(["input"], ["top:2"])[0]), task.data[0])
    assert path.stat().st_mtime_ns == written
    assert np.load(path).shape == (4, 15, 24)
    assert [one.name for one in path.parent.iterdir()] == ["camel.npy"]


def test_a_run_goes_on_where_it_was_ended(tmp_path):
    sequences = {"boat": 3, "camel": 4}
    settings = combined(["dense", "input"], ["top:3"])
    whole = evaluate(davis(tmp_path, sequences), settings, tmp_path / "whole")

    class EndedError(Exception):
        pass

    def end(at):
        if (at.setting, at.video, at.step) == ("input, top:3", "camel", 2):
            raise EndedError

    task = make(DavisSaliency, Davis(tmp_path / "data"), tmp_path / "other")
    with pytest.raises(EndedError):
        evaluate(task, settings, tmp_path / "out", progress=end)
    task = make(DavisSaliency, Davis(tmp_path / "data"), tmp_path / "other")
    seen = []
    again = evaluate(task, settings, tmp_path / "out", progress=seen.append)
    assert {(at.setting, at.video) for at in seen if at.step} == {("input, top:3", "camel")}
    assert [one.scores for one in again.settings] == [one.scores for one in whole.settings]


def test_damaged_and_outdated_dense_tokens(tmp_path):
    task, setting = davis(tmp_path, {"camel": 4}), combined(["input"], ["top:3"])[0]
    task.run(task.runner(DENSE), task.data[0])
    path = tmp_path / "dense/camel.npy"
    np.save(path, np.load(path)[:3])
    with pytest.raises(ValueError, match=r"camel had 3 readable frames when .* --fresh"):
        task.run(task.runner(setting), task.data[0])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"camel.npy is damaged .*; delete it"):
        task.run(task.runner(setting), task.data[0])


def test_every_frame_is_run_and_every_fourth_scored(tmp_path):
    task = davis(tmp_path, {"camel": 9})
    runner = task.runner(DENSE)
    found, _ = task.run(runner, task.data[0])
    assert (len(runner.steps), int(found["scored"])) == (9, 3)
    assert int(found["odds"].sum()) == 3 * 40 * 60
    short = davis(tmp_path / "short", {"camel": 9}, frames=5)
    found, _ = short.run(short.runner(DENSE), short.data[0])
    assert (len(found["error"]), int(found["scored"])) == (5, 2)


def test_cdnet_starts_before_the_labels_and_counts_what_is_labelled(tmp_path):
    root = data.write_cdnet(tmp_path / "data")
    task = make(CDnetSaliency, CDnet(root), tmp_path)
    numbers = [sample.number for sample in task.footage(task.data[0])]
    assert numbers == list(range(4, 17))
    found, _ = task.run(task.runner(DENSE), task.data[0])
    assert int(found["scored"]) == 4
    moving = [data.scene(number)[1] for number in range(12, 16)]
    counted = np.zeros((40, 60), bool)
    counted[:30, 6:] = True  # not in rows of unknown and outside, nor left of the region
    other, objects = found["odds"].sum(axis=1)
    still = [counted & ~(mask & (np.arange(40)[:, None] < 26)) for mask in moving]
    assert objects == sum((counted & mask).sum() for mask in moving)
    assert other == sum(mask.sum() for mask in still)
    assert np.isnan(found["error_objects"][:8]).all()  # nobody knows where objects were
    assert (found["error_objects"][8:12] >= 0).all()


def test_propagation_of_a_still_object(tmp_path):
    frames = [data.scene(0, still=True) for _ in range(6)]
    task = davis(tmp_path, {"camel": frames}, DavisPropagation, size=420)
    found, _ = task.run(task.runner(DENSE), task.data[0])
    assert int(found["scored"]) == len(found["j"]) == 4  # neither the first nor the last
    quality = task.quality(found)
    assert quality["j_recall"] == 100
    assert quality["j_mean"] > 80
    assert abs(quality["j_decay"]) < 5


def test_propagation_scores_each_frame_with_its_own_mask(tmp_path):
    """A mask that jumps away on one frame costs that frame alone."""
    frames = [data.scene(0, still=True) for _ in range(6)]
    away = np.zeros(data.SHAPE, bool)
    away[30:, 50:] = True
    frames[3] = (frames[3][0], away)
    task = davis(tmp_path, {"camel": frames}, DavisPropagation, size=420)
    found, _ = task.run(task.runner(DENSE), task.data[0])
    assert found["j"][2] == region_j(away & False, away) == 0
    assert (found["j"][[0, 1, 3]] > 0.8).all()


def test_the_probe_is_trained_on_the_first_part(tmp_path):
    task = make(CrowdTask, Crowd(data.write_crowd(tmp_path / "data")), tmp_path)
    found, _ = task.run(task.runner(DENSE), task.data[0])
    assert int(found["scored"]) == 6  # of 9 frames the first 3 are for training
    assert found["odds"].sum() == 6 * 15
    hits, false, missed = found["found_dense"]
    assert (false, missed) == (0, 0)
    assert task.quality(found)["f1_dense"] == (100 if hits else None)
