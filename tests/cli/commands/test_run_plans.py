"""`eventful run` with a plan in place of a policy."""

import csv
import json
import statistics

import numpy as np
import pytest
import timm
import torch

from eventful.cli.commands import run as running
from eventful.cli.engines import spread
from eventful.cli.report import Row, summarize
from eventful.video import Reader

PANEL = 480, 320  # width, height of the clip of 48 x 32 pixels in the overlay


@pytest.fixture
def run(tmp_path, invoke, small, clip_file):
    """Run a plan over the first frames; give back summary, rows and the folder."""

    def run(plan, frames=8, *options):
        arguments = ("--frames", frames, "--out", tmp_path, "--json", "--policy", plan, *options)
        result = invoke("run", clip_file, *small, *arguments)
        assert result.exit_code == 0, result.stderr
        with (tmp_path / "frames.csv").open(newline="") as file:
            return json.loads(result.stdout), list(csv.DictReader(file)), tmp_path

    return run


def panels_of(frame):
    """Input, result, error and updates of a frame of the overlay, without titles."""
    width, height = PANEL
    cell = height + 24
    return [
        frame[y + 24 : y + cell, x : x + width] for y in (0, cell) for x in (0, frame.shape[1] // 2)
    ]


def test_a_skipped_frame_costs_nothing_and_is_dark(run, decode):
    summary, rows, out = run("skip:3")
    assert [row["action"] for row in rows] == ["dense", "held", "held"] * 2 + ["dense", "held"]
    assert [row["flush"] for row in rows] == ["first frame", "", "", "plan", "", "", "plan", ""]
    assert [float(row["updated_share"]) for row in rows] == [1, 0, 0, 1, 0, 0, 1, 0]
    used = [int(row["operations"]) for row in rows]
    assert [a > 0 for a in used] == [True, False, False] * 2 + [True, False]
    assert summary["operations"]["ratio"] == pytest.approx(8 / 3)
    assert summary["actions"] == {"dense": 3, "held": 5}
    assert [flush["frame"] for flush in summary["flushes"]] == [0, 3, 6]
    assert summary["policy"] == "skip:3"
    nothing = ("attention", "gating", "measure", "state_bytes")
    assert [summary[key] for key in nothing] == [None] * 4
    frames = decode(out / "overlay.mp4")
    assert len(frames) == 8
    shown = [panels_of(frame) for frame in frames]
    shares = [updates.mean() / image.mean() for image, _, _, updates in shown]
    assert [share > 0.9 for share in shares] == [row["action"] == "dense" for row in rows]
    assert np.abs(shown[4][1].astype(int) - shown[3][1]).mean() < 1  # the result is held
    assert np.abs(shown[6][1].astype(int) - shown[5][1]).mean() > 2


def test_the_error_is_that_of_the_tokens_held(run, weights, clip_file):
    summary, rows, _ = run("skip:4", 4)
    model = timm.create_model("test_vit").eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.set_input_size(img_size=(64, 64))
    with Reader(clip_file, 64) as reader, torch.inference_mode():
        mean, std = (
            torch.tensor(model.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std")
        )
        frames = [(frame.image - mean) / std for frame, _ in zip(reader, range(4), strict=False)]
        tokens = [model.forward_features(frame)[:, 1:] for frame in frames]
    errors = [float((tokens[0] - x).norm() / x.norm()) for x in tokens]
    assert [float(row["relative_error"]) for row in rows] == pytest.approx(errors, abs=1e-5)
    assert summary["relative_error"]["mean"] == pytest.approx(statistics.fmean(errors), abs=1e-5)


@pytest.mark.parametrize(
    ("plan", "actions"),
    [
        ("skip:2+1", {"dense": 5, "held": 3}),  # the first frame, and every odd one
        ("carry:3", {"dense": 3, "carried": 5}),
        ("lowres:0.5", {"low resolution": 8}),
    ],
)
def test_plans_leave_the_same_files_as_policies(run, decode, plan, actions):
    summary, rows, out = run(plan)
    assert summary["actions"] == actions
    assert summary["policy"] == plan
    assert sorted(summary["files"]) == sorted(file.name for file in out.iterdir())
    assert len(decode(out / "overlay.mp4")) == len(rows) == summary["frames"] == 8
    assert summary["operations"]["ratio"] > 1.5
    assert 0 < summary["relative_error"]["mean"] <= summary["relative_error"]["max"] < 2
    assert summary == json.loads((out / "summary.json").read_text())


def test_auto_keeps_to_its_share(run):
    summary, rows, _ = run("auto:0.4", 20)
    assert summary["operations"]["eventful"] <= 0.45 * summary["operations"]["dense"]
    assert rows[0]["action"] == "dense"
    assert set(summary["actions"]) <= {"dense", "gated", "carried", "held"}
    for row in rows:
        if row["action"] in ("carried", "held"):
            assert float(row["updated_share"]) == 0


def test_the_demo_model_runs_under_a_plan(tmp_path, invoke):
    result = invoke(
        *("run", "--policy", "skip:2", "--size", 56, "--frames", 4, "--out", tmp_path, "--json")
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["actions"] == {"dense": 2, "held": 2}


def test_people_get_a_table(tmp_path, invoke, small, clip_file):
    result = invoke(
        *("run", clip_file, *small, "--frames", 4, "--out", tmp_path, "--policy", "skip:2")
    )
    assert "skip:2" in result.stdout
    assert "dense 2, held 2" in result.stdout
    assert "2 of 4 frames" in result.stdout
    assert "MB" not in result.stdout


@pytest.mark.parametrize("done", [0, 2])
def test_an_interrupt_keeps_the_frames_done(tmp_path, invoke, small, clip_file, monkeypatch, done):
    process = running._Job._process

    def interrupted(job, frame):
        if len(job.rows) == done:
            raise KeyboardInterrupt
        return process(job, frame)

    monkeypatch.setattr(running._Job, "_process", interrupted)
    result = invoke(*("run", clip_file, *small, "--out", tmp_path, "--json", "--policy", "skip:2"))
    assert result.exit_code == 130
    summary = json.loads(result.stdout)
    assert (summary["interrupted"], summary["frames"]) == (True, done)
    assert summary["time_ms"]["speedup"] is None or done


@pytest.mark.parametrize("every", [1, 2, 3, 7, 10])
def test_one_frame_of_every_few_is_checked(every):
    looked = [number for number in range(20 * every) if spread(number, every)]
    assert [number // every for number in looked] == list(range(20))


@pytest.mark.parametrize(("every", "period"), [(10, 5), (10, 10), (2, 2), (4, 8), (10, 3)])
def test_checks_see_all_phases_of_a_plan(every, period):
    looked = [number for number in range(200 * every) if spread(number, every)]
    counts = np.bincount([number % period for number in looked], minlength=period)
    assert counts.min() > 0.7 * counts.mean()
    assert counts.max() < 1.3 * counts.mean()


def row(frame, milliseconds, action="held", dense=None):
    return Row(frame, frame / 25, 0, 7, 0.0, milliseconds, action, "", dense)


def test_times_of_a_plan_are_means_that_dense_frames_belong_to():
    rows = [row(0, 500.0, "dense", 900.0), row(1, 1.0, dense=80.0), row(2, 2.0)]
    rows += [row(3, 90.0, "dense", 100.0)]
    times = summarize(rows, plan=True)["time_ms"]
    assert times == {"dense": 90.0, "eventful": 31.0, "speedup": 90 / 31}
    assert summarize(rows[:1], plan=True)["time_ms"]["speedup"] is None
