"""`eventful run` on odd sources, and when it is ended or fails: what it leaves."""

import json
import signal
import subprocess
import sys
import time
from itertools import pairwise

import av
import numpy as np
import pytest
from PIL import Image

from eventful.cli.session import Session
from eventful.video import Reader, Writer

FILES = ("overlay.mp4", "report.json", "summary.png")


def test_images_of_several_shapes_take_that_of_the_first(tmp_path, invoke, small, decode):
    folder, out = tmp_path / "shots", tmp_path / "out"
    folder.mkdir()
    for k, size in enumerate(((80, 48), (48, 80), (80, 48), (160, 96))):
        Image.new("RGB", size, "grey").save(folder / f"{k}.png")
    result = invoke("run", folder, *small, "--out", out, "--policy", "skip:2", "--json")
    assert result.exit_code == 0
    (clip,) = json.loads(result.stdout)["clips"]
    assert (clip["frames"], clip["size"], clip["damage"]) == (4, [32, 64], None)
    assert sorted(file.name for file in out.iterdir()) == sorted(FILES)
    assert len(decode(out / "overlay.mp4")) == 4
    wanted = "warning: shots: frames of another aspect than the first, stretched to it: 1"
    assert " ".join(result.stderr.split()) == wanted


def test_recordings_in_one_file_run_to_the_end(tmp_path, invoke, small):
    path, out = tmp_path / "a.vob", tmp_path / "out"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for k in range(5):
            pixels = np.full((64, 96, 3), 40 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(2 * path.read_bytes())
    result = invoke("run", path, *small, "--out", out, "--policy", "skip:2", "--json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["clips"][0]["rows"]
    assert [row["time_s"] for row in rows] == pytest.approx([k / 25 for k in range(10)])
    with Reader(out / "overlay.mp4") as overlay:
        times = [frame.time for frame in overlay]
    assert len(times) == 10
    assert all(before < after for before, after in pairwise(times))


@pytest.mark.parametrize("size", [(20, 400), (400, 20), (3, 4000), (9, 9)])
def test_a_picture_as_narrow_as_a_patch(tmp_path, invoke, small, size):
    Image.new("RGB", size, "grey").save(tmp_path / "a.png")
    options = ("--out", tmp_path / "out", "--policy", "skip:2")
    result = invoke("run", tmp_path / "a.png", *small, *options)
    assert result.exit_code == 0, result.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(FILES)


@pytest.mark.parametrize("failing", ["the model", "the overlay"])
@pytest.mark.parametrize("done", [0, 1, 3])
def test_what_fails_in_the_middle_keeps_the_frames_done(
    tmp_path, invoke, small, clip_file, decode, monkeypatch, done, failing
):
    kind, name = (Session, "step") if failing == "the model" else (Writer, "write")
    method, calls = getattr(kind, name), []

    def fails(*arguments, **named):
        calls.append(1)
        if len(calls) > done:
            raise ValueError("no more")
        return method(*arguments, **named)

    monkeypatch.setattr(kind, name, fails)
    result = invoke("run", clip_file, *small, "--out", tmp_path / "out", "--json")
    assert (result.exit_code, result.stderr) == (2, "error: no more\n")
    if not done and failing == "the model":
        assert not (tmp_path / "out").exists()
        return
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["failure"], report["interrupted"]) == ("no more", False)
    assert (tmp_path / "out" / "summary.png").exists()
    if done:
        assert len(decode(tmp_path / "out" / "overlay.mp4")) == done


def test_a_run_writes_over_an_older_one(tmp_path, invoke, small, clip_file, decode):
    for frames in (5, 2):
        options = ("--frames", frames, "--out", tmp_path, "--json")
        assert invoke("run", clip_file, *small, *options).exit_code == 0
    assert len(decode(tmp_path / "overlay.mp4")) == 2
    assert json.loads((tmp_path / "report.json").read_text())["clips"][0]["frames"] == 2


@pytest.mark.parametrize("done", [0, 1, 3])
def test_an_interrupt_keeps_the_frames_done(
    tmp_path, invoke, small, clip_file, decode, monkeypatch, done
):
    step = Session.step

    def interrupted(session, *arguments):
        if len(session.rows) == done:
            raise KeyboardInterrupt
        return step(session, *arguments)

    monkeypatch.setattr(Session, "step", interrupted)
    result = invoke("run", clip_file, *small, "--out", tmp_path, "--json")
    assert result.exit_code == 130
    report = json.loads(result.stdout)
    assert (report["interrupted"], report["clips"][0]["frames"]) == (True, done)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert sorted(report["files"]) == sorted(file.name for file in tmp_path.iterdir())
    if done:
        assert len(decode(tmp_path / "overlay.mp4")) == done
    assert invoke("run", clip_file, *small, "--out", tmp_path).exit_code == 130  # and for people


def test_a_damaged_video_is_processed_up_to_the_damage(tmp_path, invoke, small, clip_file, decode):
    data = clip_file.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(0.6 * len(data))])
    out = tmp_path / "out"
    result = invoke("run", cut, *small, "--out", out, "--json")
    assert result.exit_code == 0
    (clip,) = json.loads(result.stdout)["clips"]
    assert 2 < clip["frames"] < 20
    assert f"after {clip['frames']} frames of 20 declared" in clip["damage"]
    assert len(decode(out / "overlay.mp4")) == clip["frames"]
    assert "warning: cut.mp4: decoding stopped" in result.stderr.replace("\n", " ")


def test_ctrl_c_leaves_whole_files(command, small, tmp_path, decode):
    program, environment = command
    out = tmp_path / "out"
    arguments = [
        "run",
        *map(str, small),
        "--size",
        "128",
        "--frames",
        "120",
        "--out",
        str(out),
        "--json",
    ]
    heeds = (  # a process in the background is born deaf to it
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", heeds, *program, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (out / ".overlay.part.mp4").exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "no frame within two minutes"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    report = json.loads(stdout)
    assert report == json.loads((out / "report.json").read_text())
    assert report["interrupted"]
    assert sorted(file.name for file in out.iterdir()) == sorted(FILES)
    frames = sum(clip["frames"] for clip in report["clips"])
    # the last frame may have been counted and not yet drawn when the signal came
    assert frames - len(decode(out / "overlay.mp4")) in (0, 1)
