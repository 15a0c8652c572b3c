"""`eventful evaluate folder` on tiny random models in the layout of `save_pretrained`."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tests.families.cases import CASES
from tests.pretrained import folders

HERE = {
    "depth": "Depth Anything",
    "pose": "ViTPose",
    "detect": "OWLv2 detector",
    "segment": "SAM",
    "features": "DINOv2 backbone",
}
PERFECT = {
    "relative_depth": 0,
    "delta1": 1,
    "pck": 1,
    "distance": 0,
    "map50": 1,
    "map": 1,
    "iou": 1,
    "relative_error": 0,
    "cosine": 1,
}


def options(name):
    """What a family's folder is run with."""
    task, *more = folders.TASKS.get(name, ("features",))
    blocks = ("--blocks", "blocks.[01]") if name == "SAM 2 Hiera, one stage" else ()
    threshold = ("--threshold", 0.05) if task in ("detect", "pose") else ()
    return ("--task", task, *more, *threshold, *blocks)


def inputs(folder, task=None):
    """The model and the frames as plain transformers gives them."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    return [processor(frame, return_tensors="pt") for frame in folders.frames(8)]


@pytest.mark.parametrize("name", HERE.values())
def test_all_tokens_give_the_dense_output(evaluate, folder, name):
    report = evaluate(folder(name), *options(name), "--policy", "all")
    (row,) = report["policies"]
    assert report["frames"] == 8
    assert row["kinds"] == {"dense": 1, "gated": 7}
    assert row["tap_error"]["max"] < 1e-4
    assert sorted(row["scores"]) == sorted(report["measures"])
    for measure, score in row["scores"].items():
        assert score == pytest.approx(PERFECT[measure], abs=1e-3), measure


def test_held_depths_are_as_far_off_as_computed_by_hand(evaluate, folder, tmp_path):
    report = evaluate(folder("Depth Anything"), "--policy", "skip:2")
    model = transformers.AutoModelForDepthEstimation.from_pretrained(
        folder("Depth Anything")
    ).eval()
    with torch.inference_mode():
        dense = [model(**x).predicted_depth.numpy() for x in inputs(folder("Depth Anything"))]
    relative, right = [], []
    for t, true in enumerate(dense):
        known = true > 1e-3 * true.max()
        d, o = true[known], dense[t - t % 2][known]
        relative.append(np.mean(np.abs(o - d) / d))
        right.append(np.mean(np.maximum(o / d, d / np.maximum(o, 1e-9)) < 1.25))
    (row,) = report["policies"]
    assert row["kinds"] == {"dense": 4, "held": 4}
    assert row["scores"]["relative_depth"] == pytest.approx(np.mean(relative), rel=1e-3)
    assert row["scores"]["delta1"] == pytest.approx(np.mean(right), abs=2e-3)
    assert 0 < row["scores"]["delta1"] < 0.99


def test_the_error_of_taps_is_that_of_what_readers_see(evaluate, folder):
    report = evaluate(folder("ViT"), "--policy", "skip:3")
    model = transformers.AutoModel.from_pretrained(folder("ViT")).eval()
    with torch.inference_mode():
        dense = [model(**x).last_hidden_state for x in inputs(folder("ViT"))]
    errors = [float((dense[t - t % 3] - y).norm() / y.norm()) for t, y in enumerate(dense)]
    (row,) = report["policies"]
    assert row["tap_error"]["mean"] == pytest.approx(np.mean(errors), rel=1e-3)
    assert row["tap_error"]["max"] == pytest.approx(max(errors), rel=1e-3)
    assert row["scores"]["relative_error"] == pytest.approx(np.mean(errors), rel=1e-3)


def test_skipping_and_carrying_stand_beside_auto(evaluate, folder):
    report = evaluate(folder("ViT"), "--share", 0.3)
    auto, skip, carry = report["policies"]
    every = int(auto["operations_ratio"])
    assert 2 <= every <= 3  # of random weights, it depends on them
    assert [row["policy"] for row in (skip, carry)] == [f"skip:{every}", f"carry:{every}"]
    assert skip["beside"] == carry["beside"] == auto["policy"] == "auto:0.3"
    assert skip["operations_ratio"] <= auto["operations_ratio"] + 1e-6
    alone = evaluate(folder("ViT"), "--share", 0.3, "--no-beside")
    assert [row["policy"] for row in alone["policies"]] == ["auto:0.3"]


def test_what_is_written_and_what_people_read(invoke, folder, video, tmp_path):
    where = ("--model", f"hf:{folder('YOLOS')}", "--video", video, "--out", tmp_path)
    result = invoke("evaluate", "folder", *where, "--threshold", 0.1, "--policy", "carry:3")
    assert result.exit_code == 0, result.stderr
    for text in ("YolosForObjectDetection (detect)", "carry:3", "map50", "8 frames at 80 x 48"):
        assert text in result.stdout
    with Image.open(tmp_path / "summary.png") as picture:
        assert len(set(picture.convert("L").get_flattened_data())) > 20
    assert json.loads((tmp_path / "report.json").read_text())["task"] == "detect"


def test_the_task_is_the_one_that_the_model_was_made_for(evaluate, folder):
    for task, name in HERE.items():
        more = [option for option in options(name) if option not in ("--task", task)]
        assert evaluate(folder(name), *more, "--policy", "skip:4")["task"] == task


def test_a_tower_of_a_language_model_gives_features(evaluate, folder):
    report = evaluate(folder("LLaVA"), "--task", "features", "--policy", "skip:2")
    assert report["taps"][-1] == "vision_tower.encoder.layers.2"
    assert 0 < report["policies"][0]["scores"]["relative_error"] < 1


@pytest.mark.parametrize("name", ["VideoMAE", "SigLIP 2 vision, full grid"])
def test_clips_and_patches_get_a_token_policy_by_default(evaluate, folder, name):
    report = evaluate(folder(name))
    (row,) = report["policies"]
    assert row["policy"] == "fraction:0.25"
    assert report["frames"] * report["clip"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.library == "transformers"])
def test_every_family(evaluate, folder, name):
    policies = ["all", "skip:2"] if CASES[name].patch is None else ["all", "skip:2", "auto:0.8"]
    if name == "SAM 2 Hiera":
        policies = ["all"]  # blocks of several shapes
    if name == "EoMT, DINOv3":
        policies[-1] = "auto:0.9"
    chosen = [part for policy in policies for part in ("--policy", policy)]
    if not json.loads((folder(name) / "config.json").read_text()).get("model_type"):
        pytest.skip("this release cannot load its own folder")
    report = evaluate(folder(name), *options(name), *chosen, "--no-beside")
    everything, *others = report["policies"]
    for measure, score in everything["scores"].items():
        assert score == pytest.approx(PERFECT[measure], abs=1e-2), measure
    assert everything["tap_error"]["max"] < 1e-3
    for row in others:
        assert 0 < row["tap_error"]["mean"] < 1.5
        assert row["operations_ratio"] > 1
