"""`eventful evaluate`, from files to report."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from eventful import TopR
from eventful.cli.commands import evaluate as command
from eventful.evaluation import TASKS, Choice
from tests.evaluation import data

POLICIES = (TopR(4), TopR(8))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, kind in data.KINDS.items():
        monkeypatch.setitem(TASKS, name, kind)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "vitdet.safetensors"
    save_file(data.detector().state_dict(), path)
    return path


@pytest.fixture
def settings(vid_root, weights, tmp_path):
    options = {"variants": ("dense", "incremental"), "out": tmp_path / "out", "device": "cpu"}
    return command.Settings("vid", vid_root, str(weights), POLICIES, **options)


def shown(thing, console):
    console.print(thing)
    return console.file.getvalue()


def test_report(settings, weights, console):
    report = command.evaluate(settings, console)
    assert report == json.loads((settings.out / "vid.json").read_text())
    assert (report["task"], report["model"], report["per"]) == ("vid", "vitdet_b_vid", "frame")
    assert report["weights"]["file"] == weights.name
    assert len(report["weights"]["sha256"]) == 64
    assert report["data"]["size"] == data.SIZE
    assert {"processor", "threads", "torch", "device"} <= report["machine"].keys()
    assert report["problems"] == []
    dense, four, eight = report["settings"]
    assert dense["setting"] == "dense"
    assert (four["variant"], four["policy"]) == ("incremental", "top:4")
    assert four["operations"] < eight["operations"] < dense["operations"]
    assert dense["operations"] == four["dense_operations"]
    assert four["ratio"] == pytest.approx(dense["operations"] / four["operations"])
    assert four["first_share"] == 2 / 7
    assert (four["videos"], four["steps"], four["scored"]) == (2, 7, 7)
    assert set(four["scores"]) == {"mAP50", "mAP"}
    assert four["milliseconds"] > 0
    text = shown(command.table(report), console)
    assert "incremental, top:8" in text
    assert "28.57%" in text
    assert "7 frames scored" in text
    assert str(settings.out / "vid.csv") in text


def test_files(settings, console):
    command.evaluate(settings, console)
    assert sorted(path.name for path in settings.out.iterdir()) == [
        "results",
        "vid.csv",
        "vid.json",
        "vid.png",
        "vid.svg",
    ]
    with (settings.out / "vid.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["setting"], row["video"]) for row in rows] == [
        (setting, video)
        for setting in ("dense", "incremental, top:4", "incremental, top:8")
        for video in ("beach", "street")
    ]
    assert [row["steps"] for row in rows[:2]] == ["3", "4"]
    assert [row["objects"] for row in rows[:2]] == ["2", "4"]
    assert int(rows[2]["operations"]) < int(rows[2]["dense_operations"])
    assert np.asarray(Image.open(settings.out / "vid.png")).std() > 0


def test_without_times_two_runs_say_the_same(settings, tmp_path, console):
    reports = [
        command.evaluate(replace(settings, times=False, out=tmp_path / out), console)
        for out in ("one", "two")
    ]
    one, two = ({k: v for k, v in report.items() if k != "files"} for report in reports)
    assert one == two
    assert {entry["milliseconds"] for entry in one["settings"]} == {None}
    assert len({(tmp_path / out / "vid.csv").read_text() for out in ("one", "two")}) == 1


def test_ctrl_c_says_that_nothing_is_lost(settings, console, monkeypatch):
    def interrupt(self, at):
        if at.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command.Bar, "__call__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            command.evaluate(settings, console)
    assert "the same command goes on where it was" in console.file.getvalue()
    assert command.evaluate(settings, console)["settings"][0]["videos"] == 2


def test_random_weights_are_named_everywhere(settings, console):
    report = command.evaluate(replace(settings, weights="random"), console)
    assert report["weights"] == {"file": None, "sha256": None, "tuned": None}
    assert "random weights: accuracy means nothing" in shown(command.table(report), console)
    assert "RANDOM WEIGHTS" in (settings.out / "vid.svg").read_text()


def test_random_weights_are_the_same_every_time(settings, console):
    """So that a run that was ended can go on."""
    first = command.evaluate(replace(settings, weights="random", times=False), console)
    assert command.evaluate(replace(settings, weights="random", times=False), console) == first


def test_problems_are_told(settings, vid_root, console):
    path = vid_root / "Data/VID/val/street/000006.JPEG"
    path.write_bytes(path.read_bytes()[:150])
    report = command.evaluate(settings, console)
    (problem,) = report["problems"]
    assert (problem["kind"], problem["path"]) == ("image", str(path))
    text = shown(command.table(report), console)
    assert "1 problems with files" in text
    assert "000006.JPEG" in text


def test_actions(kinetics_root, tmp_path, console):
    settings = command.Settings(
        "kinetics", kinetics_root, "random", (TopR(3),), ("dense", "full"), out=tmp_path
    )
    report = command.evaluate(settings, console)
    dense, full = report["settings"]
    assert full["options"] == {"attention": "cached", "half_precision": True}
    assert (dense["videos"], dense["scored"]) == (5, 4)
    assert set(dense["scores"]) == {"top1", "top5"}
    assert dense["scores"]["top5"] == 100
    assert report["per"] == "video"
    assert "10¹² ops" in shown(command.table(report), console)
    with (tmp_path / "kinetics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows[:5]] == ["0", "1", "2", "0", ""]


def test_a_tuned_temporal_model(kinetics_root, tmp_path, console):
    model = data.recogniser(3)
    model.head.weight.data.zero_()
    model.head.bias.data.copy_(torch.tensor([0.0, 5.0, 0.0]))
    own = {k: v for k, v in model.state_dict().items() if k.startswith(("temporal.", "head."))}
    save_file(own, tmp_path / "epoch-001.safetensors")
    settings = command.Settings(
        "kinetics",
        kinetics_root,
        "random",
        (),
        ("dense",),
        tuned=tmp_path / "epoch-001.safetensors",
        out=tmp_path / "out",
    )
    report = command.evaluate(settings, console)
    assert report["settings"][0]["scores"]["top1"] == 25.0  # one of the four readable clips bowls
    assert report["weights"]["tuned"]["file"] == "epoch-001.safetensors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"weights": None},
            "vid needs --weights FILE: get Eventful Transformers, frcnn_vitdet_final.pth.*"
            "eventful weights vitdet_b_vid CHECKPOINT FILE.safetensors.*--weights random",
        ),
        ({"task": "coco"}, "expected a task out of vid, epic, kinetics, .*, got 'coco'"),
        ({"variants": ("fulll",)}, "do you mean 'full'"),
        ({"policies": ()}, "the variant 'incremental' needs a policy"),
        ({"policies": (TopR(17),)}, r"TopR\(17\) asks for more tokens"),
        ({"device": "nowhere"}, "--device nowhere cannot be used here"),
        ({"size": 70}, "--size must be a multiple of 16"),
    ],
)
def test_mistakes(settings, console, changes, message):
    with pytest.raises(ValueError, match=message):
        command.evaluate(replace(settings, **changes), console)
    assert not settings.out.exists()


def test_weights_that_do_not_fit(settings, tmp_path, console):
    state = data.detector().state_dict()
    state.pop("pos_embed", None)
    state["head.weight"] = state.pop("backbone.pos_embed")
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not fit this ViTDet"):
        command.evaluate(replace(settings, weights=str(tmp_path / "other.safetensors")), console)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        command.evaluate(replace(settings, weights="nowhere.safetensors"), console)
    (tmp_path / "published.pth").write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(ValueError, match="run: eventful weights KIND"):
        command.evaluate(replace(settings, weights=str(tmp_path / "published.pth")), console)


def test_data_that_are_not_there(settings, vid_root, tmp_path, console):
    (vid_root / "Annotations").rename(tmp_path / "hidden")
    with pytest.raises(FileNotFoundError, match="expected the annotations of ImageNet VID"):
        command.evaluate(settings, console)
    with pytest.raises(FileNotFoundError, match="expected the frames of ImageNet VID"):
        command.evaluate(replace(settings, root=tmp_path / "hidden"), console)


def test_folders_without_frames(settings, vid_root, console):
    for path in (vid_root / "Data").rglob("*.JPEG"):
        path.unlink()
    with pytest.raises(ValueError, match="there is no video to evaluate on:\n2 problems"):
        command.evaluate(settings, console)


@pytest.mark.parametrize("option", ["size", "frames"])
def test_options_of_vid_alone(kinetics_root, option, monkeypatch):
    monkeypatch.undo()  # back to the real task, which says it before it reads a table
    with pytest.raises(ValueError, match=f"--{option} is for vid alone"):
        TASKS["kinetics"].make(None, Choice(kinetics_root, **{option: 64}))
