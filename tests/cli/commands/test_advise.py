"""`eventful advise`: what it says before anything is built, and what it refuses."""

import json
from fractions import Fraction

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from eventful.video import Writer
from tests.pretrained import folders

RNG = np.random.default_rng(0)
GROUND = np.kron(RNG.integers(0, 255, (16, 60, 3)), np.ones((6, 6, 1))).astype(np.uint8)


def write(path, frames):
    with Writer(path, rate=Fraction(25)) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def panning(tmp_path_factory):
    """The camera moves by two pixels a frame, and to another place after thirty."""
    places = [*range(0, 60, 2), *range(200, 228, 2)]
    frames = [GROUND[:, place : place + 128] for place in places]
    return write(tmp_path_factory.mktemp("advise") / "pan.mp4", frames)


@pytest.fixture(scope="module")
def resting(tmp_path_factory):
    """A square of a tenth of the width moves before a ground that rests."""
    frames = []
    for number in range(50):
        frame = GROUND[:, :128].copy()
        frame[40:52, number : number + 12] = 250
        frames.append(frame)
    return write(tmp_path_factory.mktemp("advise") / "rest.mp4", frames)


@pytest.fixture
def advised(invoke, small):
    """Ask about a video; what is said of it as JSON."""

    def advised(video, *options):
        result = invoke("advise", video, *small[:4], "--size", 96, "--json", *options)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return advised


def test_it_tells_moving_cameras_and_cuts_from_resting_ones(advised, panning, resting):
    moves, rests = advised(panning), advised(resting)
    assert (moves["camera"]["moving"], rests["camera"]["moving"]) == (1, 0)
    wanted = 2 * 25 / 128  # pixels, frames a second, pixels of the width
    assert moves["camera"]["widths_a_second"] == pytest.approx(wanted, rel=0.1)
    assert (moves["camera"]["cuts"], rests["camera"]["cuts"]) == ([30], [])
    assert moves["camera"]["cuts_a_minute"] == pytest.approx(60 * 25 / 44)
    assert moves["changing"] > 0.9 > 0.3 > rests["changing"] > 0.01
    assert moves["unexplained"] < 0.6 * moves["changing"]


def test_more_error_costs_less_and_a_resting_camera_less_than_a_moving_one(
    advised, panning, resting
):
    costs = {}
    for video in (panning, resting):
        report = advised(video)
        shares = [one["operations"] for one in report["expected"]]
        assert [one["error"] for one in report["expected"]] == [0.1, 0.15, 0.2]
        assert all(0 < one["low"] < one["value"] <= one["high"] <= 1 for one in shares)
        values = [one["value"] for one in shares]
        assert values == sorted(values, reverse=True)
        assert all(sum(one["kinds"].values()) == report["frames"] for one in report["expected"])
        skipped = [one["skipping"]["every"] for one in report["expected"]]
        assert skipped == sorted(skipped)
        costs[video] = values[1]
    assert costs[resting] < 0.5 * costs[panning]


def test_what_to_type_next_is_the_same_model_and_runs(invoke, advised, resting, weights):
    report = advised(resting)
    assert report["next"] is None or "--policy" in report["next"]
    assert report["verdict"]["use"] in ("auto", "skip", "nothing")
    if report["next"] is not None:
        words = report["next"].split()
        assert words[:3] == ["eventful", "run", str(resting)]
        assert words[3:-2] == [
            "--model",
            "timm:test_vit",
            "--weights",
            str(weights),
            *("--size", "96"),
        ]
        assert words[-2:] == ["--policy", report["verdict"]["policy"]]


def test_it_looks_at_no_more_frames_than_asked(advised, resting):
    assert advised(resting, "--frames", 20)["frames"] == 20
    report = advised(resting, "--seconds", 0.8)
    assert (report["frames"], report["seconds"]) == (20, 0.8)
    assert report["dense_frames"] < 20
    assert advised(resting)["frames"] == 50


def test_people_read_the_same_and_nothing_is_written(invoke, small, resting, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("advise", resting, *small[:4], "--size", 96)
    text = " ".join(result.stdout.split())
    for said in (
        "50 frames (2 s)",
        "camera stands still; 0.0 cuts",
        "0.15",
        "1 of ",
        "how much its",
    ):
        assert said in text
    assert ("next: eventful run" in text) != ("do not use this, it would not pay" in text)
    assert not list(tmp_path.iterdir())


def test_models_of_transformers_are_advised_on_too(invoke, panning, tmp_path):
    folders.write("Depth Anything", tmp_path / "depth")
    result = invoke("advise", panning, "--model", f"hf:{tmp_path / 'depth'}", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["frames"] == 44
    assert all(one["operations"]["value"] > 0 for one in report["expected"])


@pytest.mark.parametrize("count", [1, 5])
def test_a_video_of_a_few_frames_is_refused(invoke, small, tmp_path, count):
    video = write(tmp_path / "short.mp4", [GROUND[:, :128]] * count)
    result = invoke("advise", video, *small[:4], "--size", 96)
    assert result.exit_code == 2
    assert f"short.mp4: {count} frame" in result.stderr
    assert "it takes 12 at least" in result.stderr


def test_a_video_that_never_changes_is_refused(invoke, small, tmp_path):
    black = write(tmp_path / "black.mp4", [np.zeros((96, 128, 3), np.uint8)] * 30)
    result = invoke("advise", black, *small[:4], "--size", 96)
    assert result.exit_code == 2
    assert "black.mp4: the picture does not change in 30 frames" in result.stderr


def test_other_mistakes_say_what_was_expected(invoke, small, panning, tmp_path):
    picture = tmp_path / "one.png"
    Image.fromarray(GROUND[:, :128]).save(picture)
    network = tmp_path / "network.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), network)
    mistakes = {
        "is a picture; advise looks at how": ("advise", picture),
        "there is nothing at": ("advise", tmp_path / "none.mp4"),
        "Missing argument": ("advise",),
        "has no square patches": (
            *("advise", panning, "--model", "timm:test_resnet", "--weights", network),
        ),
        "timm has no model": ("advise", panning, "--model", "timm:vit_tinny"),
        "there is no folder": ("advise", panning, "--model", "hf:none"),
        "--task, --text, --point and --blocks are for": (
            *("advise", panning, *small[:4], "--task", "depth"),
        ),
        "too small for motion": ("advise", panning, *small[:4], "--size", 32),
    }
    for said, arguments in mistakes.items():
        result = invoke(*arguments)
        assert result.exit_code == 2, said
        assert said in result.stderr


def test_a_model_that_resists_says_why(invoke, small, panning, monkeypatch):
    def resists(*arguments, **options):
        raise ValueError("block 3 differs from its original")

    monkeypatch.setattr("eventful.cli.choices.convert", resists)
    result = invoke("advise", panning, *small[:4], "--size", 96)
    assert result.exit_code == 2
    assert result.stderr == "error: pan.mp4: block 3 differs from its original\n"
