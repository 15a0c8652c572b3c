"""`eventful watch` as people call it."""

import json
import signal
import subprocess
import time

import pytest
from pyarrow import dataset

pytest.importorskip("av")


@pytest.fixture
def watch(invoke, small):
    return lambda *arguments: invoke("watch", *small, *arguments)


def test_files_to_their_end(watch, clip_file, tmp_path):
    lines, folder = tmp_path / "out.jsonl", tmp_path / "parquet"
    found = watch(
        *("--fast", f"a={clip_file}", f"b={clip_file}", "--json", "--policy", "skip:5"),
        *("--json-lines", lines, "--parquet", folder, "--state", tmp_path / "state"),
    )
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert report["policy"] == "skip:5"
    assert {name: one["processed"] for name, one in report["cameras"].items()} == {"a": 20, "b": 20}
    assert len(lines.read_text().splitlines()) == 40
    assert dataset.dataset(folder).count_rows() == 40
    assert (tmp_path / "state" / "current.json").exists()


def test_lines_to_standard_output_and_nothing_else(watch, clip_file):
    found = watch("--fast", clip_file, "--json-lines", "-", "--policy", "skip:5")
    assert found.exit_code == 0
    assert [json.loads(line)["frame"] for line in found.stdout.splitlines()] == list(range(20))


def test_a_table_for_people(watch, clip_file):
    found = watch("--fast", f"door={clip_file}", "--policy", "skip:5")
    assert "door" in found.stdout
    assert "ended" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no camera is given"),
        (("nowhere.mp4",), "nothing at nowhere.mp4"),
        (("--config", "nowhere.yaml"), "no file of cameras nowhere.yaml"),
        (("file:///etc/passwd",), "expected rtsp"),
        (("a=rtsp://me:s3cr3t@h/1", "a=rtsp://h/2"), "two cameras are called a"),
        (("a=rtsp://h/1", "--outputs", "boxes"), "outputs of this model are"),
        (("a=rtsp://h/1", "--policy", "top:3"), "frame policy"),
        (("a=rtsp://h/1", "--share", "0.2", "--max-error", "0.1"), "give one of"),
        (("a=rtsp://h/1", "--runtime", "fast"), "runtime"),
    ],
)
def test_mistakes_are_said_in_a_line(watch, arguments, said):
    found = watch(*arguments)
    assert found.exit_code == 2
    assert said in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert "s3cr3t" not in found.output


def test_a_camera_without_any_result_is_told_and_fails(watch, clip_file):
    found = watch("--fast", f"door={clip_file}", "--time", "0.0001")
    assert found.exit_code == 1
    assert "door: ValueError: time:0.0001 asks for a share" in found.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_and_save(command, small, clip_file, tmp_path, number):
    program, environment = command
    cameras = [f"a={clip_file}", f"b={clip_file}", "gone=rtsp://127.0.0.1:9/live"]
    state = tmp_path / "state"
    process = subprocess.Popen(
        [*program, "watch", *map(str, small), *cameras, "--policy=skip:5", f"--state={state}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(8)
    assert process.poll() is None  # a camera that is away is waited for
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert err == b""
    assert b"gone" in out
    saved = json.loads((tmp_path / "state" / "current.json").read_text())
    assert saved["cameras"].keys() == {"a", "b", "gone"}


def test_standard_input(command, small, clip_file):
    program, environment = command
    with clip_file.open("rb") as clip:
        found = subprocess.run(
            [
                *program,
                "watch",
                *map(str, small),
                "-",
                "--policy",
                "skip:5",
                "--lossless",
                "--json",
            ],
            env=environment,
            stdin=clip,
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["cameras"]["input"]["processed"] == 20
