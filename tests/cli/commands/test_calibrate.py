"""`eventful calibrate`: the file, what it says, and what it refuses before the long work."""

import json

import numpy as np
import pytest
from PIL import Image

from eventful.cli.commands import calibrate


@pytest.fixture
def calibrated(invoke, small, clip_file, tmp_path):
    """Runs the command on three frames; the result of the call and the file."""
    path = tmp_path / "street.json"

    def calibrated(*options, video=clip_file, out=path):
        return invoke("calibrate", video, *small, "--frames", 3, "--out", out, *options), out

    return calibrated


@pytest.fixture
def idle(monkeypatch):
    """Fails if the long work begins."""

    def begin(*_, **__):
        raise AssertionError("the work has begun")

    monkeypatch.setattr(calibrate, "Trials", begin)


def test_a_file_that_run_takes(calibrated, invoke, small, clip_file, tmp_path):
    result, path = calibrated("--share", 0.5, "--kind", "top", "--json")
    assert result.exit_code == 0, result.stderr
    told, held = json.loads(result.stdout), json.loads(path.read_text())
    assert told == held | {"file": str(path)}
    assert held["about"]["model"] == "timm:test_vit"
    assert held["about"]["size"] == [64, 64]
    assert held["about"]["gating"] == "paper"
    assert held["measured"]["share"] <= 0.5
    assert held["about"]["frames"] == 3
    options = ("--frames", 3, "--check-every", 1, "--square", "--out", tmp_path / "out", "--json")
    result = invoke("run", clip_file, *small, *options, "--policy", path)
    assert result.exit_code == 0, result.stderr
    (clip,) = json.loads(result.stdout)["clips"]
    after_the_first = clip["error"]["measured"]["mean"] * 3 / 2
    assert after_the_first == pytest.approx(held["measured"]["error"], rel=1e-3)


def test_a_target_out_of_reach_is_said(calibrated):
    result, path = calibrated("--share", 0.01, "--gating", "input")
    assert result.exit_code == 1
    assert "0.01 of the dense operations was not reached" in " ".join(result.stderr.split())
    assert "not reached" in result.stdout
    assert json.loads(path.read_text())["reached"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give one of --error, such as 0.1, and --share"),
        (("--share", 0.5, "--error", 0.1), "give one of --error, such as 0.1, and --share"),
        (("--share", 25), "share must lie between 0 and 1, such as 0.25, a quarter; got 25.0"),
        (("--share", "nan"), "share must lie between 0 and 1, such as 0.25, a quarter; got nan"),
        (("--error", 0), "the target error must lie between 0 and 1, such as 0.1; got 0.0"),
        (("--share", 0.5, "--frames", 1), "Invalid value for '--frames'"),
        (("--share", 0.5, "--frames", -3), "Invalid value for '--frames'"),
        (("--share", 0.5, "--kind", "topp"), "--kind is one of threshold, top, got 'topp'; do you"),
        (("--share", 0.5, "--size", 65), "--size 65 is no multiple of the patch of 16"),
        (("--share", 0.5, "--gating", "all"), "--gating is one of paper, hold, input"),
    ],
)
def test_options_are_refused_before_the_work(calibrated, idle, options, message):
    result, path = calibrated(*options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("street.txt", "is written to a .json file"),
        ("none/street.json", "cannot be written: No such file or directory; name a file in"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    calibrated, idle, tmp_path, name, message
):
    result, _ = calibrated("--share", 0.5, out=tmp_path / name)
    assert result.exit_code == 2
    assert message in result.stderr


def test_clips_that_say_nothing_are_refused(calibrated, tmp_path):
    folder = tmp_path / "stills"
    folder.mkdir()
    for i in range(3):
        pixels = np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    result, path = calibrated("--share", 0.5, video=folder)
    assert result.exit_code == 2
    assert "nothing changes in this clip" in result.stderr
    result, path = calibrated("--share", 0.5, video=folder / "0.png")
    assert result.exit_code == 2
    assert "at least two frames, got 1" in result.stderr
    assert not path.exists()


def test_a_damaged_clip_is_said(calibrated, clip_file, tmp_path):
    cut = tmp_path / "cut[red].mp4"
    whole = clip_file.read_bytes()
    cut.write_bytes(whole[: len(whole) // 3])
    result, path = calibrated("--share", 0.5, "--kind", "top", "--frames", 20, video=cut)
    assert result.exit_code == 0, result.stderr
    assert "warning: cut[red].mp4: decoding stopped after" in " ".join(result.stderr.split())
    assert "cut[red].mp4" in " ".join(result.stdout.split())
    assert 2 <= json.loads(path.read_text())["about"]["frames"] < 20


@pytest.fixture
def written(tmp_path):
    """Writes a file with a policy for each gate of the small model, as the command does."""

    def written(**about):
        path = tmp_path / "street.json"
        gates = [f"blocks.{i}.{stage}" for i in range(6) for stage in ("qkv", "proj", "mlp")]
        told = {"model": "timm:test_vit", "attention": "incremental", "gating": "paper"}
        content = {
            "format": "eventful calibration",
            "version": 1,
            "about": told | {"measure": "error"} | about,
            "policies": dict.fromkeys(gates, "top:3"),
        }
        path.write_text(json.dumps(content))
        return path

    return written


def test_run_refuses_a_file_for_another_model(written, invoke, small, clip_file, tmp_path):
    path = written(model="demo")
    line = ("--frames", 2, "--policy", path, "--out", tmp_path / "out")
    result = invoke("run", clip_file, *small, *line)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {path} was calibrated with --model demo, and this run")
    assert not (tmp_path / "out").exists()
