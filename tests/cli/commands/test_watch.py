"""`eventful watch` as people call it."""

import json
import re
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from pyarrow import dataset

pytest.importorskip("av")

from eventful.outputs.lock import Lock


@pytest.fixture
def watch(invoke, small):
    return lambda *arguments: invoke("watch", *small, "--no-page", *arguments)


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


@pytest.mark.parametrize("beside", [True, False], ids=["beside-another", "alone"])
def test_a_file_without_video_is_told_and_fails(watch, clip_file, tmp_path, beside):
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    others = [f"good={clip_file}"] if beside else []
    lines = tmp_path / "out.jsonl"
    found = watch("--fast", "--policy", "skip:5", f"bad={text}", *others, "--json-lines", lines)
    assert found.exit_code == 1
    assert re.fullmatch(r"error: no result of bad: expected a video.*\n", found.stderr)
    assert len(lines.read_text().splitlines()) == 20 * beside  # the others are watched to their end


def test_a_file_that_gave_results_before_and_none_now_fails(watch, clip_file, tmp_path):
    clip, state = tmp_path / "clip.mp4", tmp_path / "state"
    clip.write_bytes(clip_file.read_bytes())
    arguments = "--fast", "--policy", "skip:5", "--state", state, clip
    assert watch(*arguments).exit_code == 0
    clip.write_text("no video")
    assert watch(*arguments).exit_code == 1


def test_standard_output_for_results_has_its_failure_on_standard_error(watch, tmp_path):
    (tmp_path / "notes.mp4").write_text("no video")
    found = watch("--fast", tmp_path / "notes.mp4", "--json-lines", "-")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "no result of notes: expected a video" in found.stderr


def test_a_state_of_a_watch_that_runs_is_refused_in_a_line(watch, clip_file, tmp_path):
    lock = Lock(tmp_path, "another watch")
    found = watch(clip_file, "--state", tmp_path)
    lock.release()
    assert found.exit_code == 2
    assert found.stderr == (
        f"error: another watch is writing to {tmp_path}; wait for it, or name another folder\n"
    )


def until_processed(url, *names, seconds=60):
    """Wait until the page tells that all frames of these cameras have been processed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with urlopen(url + "api/cameras", timeout=20) as answer:
            cameras = {one["name"]: one for one in json.load(answer)["cameras"]}
        if all(name in cameras and cameras[name]["state"] == "ended" for name in names):
            return
        time.sleep(0.1)
    raise AssertionError(f"no end of {names}")


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_signals_end_it_and_save(command, small, clip_file, tmp_path, number):
    program, environment = command
    cameras = [f"a={clip_file}", f"b={clip_file}", "gone=rtsp://127.0.0.1:9/live"]
    state = tmp_path / "state"
    process = subprocess.Popen(
        [
            *(*program, "watch", *map(str, small), *cameras, "--policy=skip:5"),
            *(f"--state={state}", "--port=0"),
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    told = process.stderr.readline().decode()
    url = re.fullmatch(r"page: (http://127\.0\.0\.1:\d+/)\n", told)[1]
    until_processed(url, "a", "b")
    assert process.poll() is None  # a camera that is away is waited for
    with urlopen(url + "api/events", timeout=20) as events:
        assert events.readline() == b"event: status\n"
        process.send_signal(number)
        events.read()  # ends whole
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert err == b""
    assert b"gone" in out
    with pytest.raises(URLError):
        urlopen(url, timeout=5)
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
                "--no-page",
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


# What was expected, what came, and how to mend it.
MISTAKES = [
    (("--host", "0.0.0.0"), "other machines reach 0.0.0.0", "--token-file FILE"),
    (("--token-file", "nowhere"), "nowhere cannot be read: No such file", "holds the token"),
    (("--token-file", "short"), "16 to 1,024 printable ASCII", "got 5 characters"),
    (("--token-file", "spaced"), "no spaces", "others among them"),
    (("--token-file", "open"), "its mode is 644", "chmod 600 open"),
    (("--allow", "rtsp,file"), "rtsp, rtsps, rtmp", "got file"),
    (("--certificate", "nowhere"), "certificate nowhere or its key cannot be read", "No such file"),
    (("--key", "nowhere"), "--key is of a certificate", "--certificate FILE"),
    (("--host", "no such host"), "no address 'no such host'", "to listen at"),
]


@pytest.mark.parametrize(("arguments", "came", "mend"), MISTAKES)
def test_mistakes_with_the_page_are_said_in_a_line(
    invoke, small, clip_file, tmp_path, monkeypatch, arguments, came, mend
):
    monkeypatch.chdir(tmp_path)
    for name, text in (("short", "abcde"), ("spaced", "a b" * 9), ("open", "secret" * 9)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644 if name == "open" else 0o600)
    found = invoke("watch", *small, clip_file, "--port", 0, "--state", "state", *arguments)
    assert found.exit_code == 2
    assert came in found.stderr
    assert mend in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert not (tmp_path / "state" / "current.json").exists()  # nothing was watched


def test_a_port_that_is_taken_is_said_before_a_camera_is_opened(invoke, small):
    with socket.socket() as taken, socket.socket() as camera:
        for each in (taken, camera):
            each.bind(("127.0.0.1", 0))
            each.listen()
        port, place = taken.getsockname()[1], camera.getsockname()[1]
        found = invoke("watch", *small, f"rtsp://127.0.0.1:{place}/live", "--port", port)
        camera.settimeout(0.5)
        with pytest.raises(TimeoutError):
            camera.accept()
    assert found.exit_code == 2
    (line,) = found.stderr.splitlines()
    assert f"cannot listen at 127.0.0.1, port {port}: Address already in use" in line
    assert "--port" in line
    assert "--no-page" in line


@pytest.mark.parametrize("by", ["file", "environment"])
def test_a_token_comes_of_a_file_or_the_environment(
    invoke, small, clip_file, tmp_path, monkeypatch, by
):
    secret = "of-a-file-or-the-environment"
    arguments = ["--port", 0, "--host", "0.0.0.0", "--host-name", "camera-box"]
    if by == "file":
        monkeypatch.setenv("EVENTFUL_TOKEN", "another-token-not-taken")
        (tmp_path / "token").write_text(secret + "\n")
        (tmp_path / "token").chmod(0o600)
        arguments += ["--token-file", tmp_path / "token"]
    else:
        monkeypatch.setenv("EVENTFUL_TOKEN", secret)
    given = {}

    def serve(board, *place, **options):
        given.update(options)
        raise ValueError("far enough")

    monkeypatch.setattr("eventful.live.page.serve", serve)
    found = invoke("watch", *small, clip_file, *arguments)
    assert found.stderr == "error: far enough\n"
    assert given["token"] == secret
    assert given["hosts"] == ("camera-box",)
    assert given["allow"] == ("rtsp", "rtsps")


def test_with_files_alone_it_ends_with_them(invoke, small, clip_file):
    found = invoke("watch", *small, "--fast", f"a={clip_file}", "--port", 0, "--policy", "skip:5")
    assert found.exit_code == 0, found.output
    assert re.fullmatch(r"page: http://127\.0\.0\.1:\d+/\n", found.stderr)


def test_it_goes_on_when_the_last_camera_is_removed_on_the_page(command, small, clip_file):
    program, environment = command
    process = subprocess.Popen(
        [
            *(*program, "watch", *map(str, small), "gone=rtsp://127.0.0.1:9/live"),
            *("--port=0", "--allow=rtsp"),
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    url = process.stderr.readline().decode().split()[1]
    with urlopen(Request(url + "api/cameras/gone", method="DELETE"), timeout=20) as answer:
        assert answer.status == 204
    time.sleep(2)
    assert process.poll() is None
    camera = json.dumps({"name": "more", "source": "rtsp://127.0.0.1:9/more"}).encode()
    sent = Request(url + "api/cameras", camera, {"Content-Type": "application/json"})
    with urlopen(sent, timeout=20) as answer:
        assert answer.status == 201
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert b"more" in out
    assert b"gone" not in out


DOCS = Path(__file__).parents[3] / "docs" / "live.md"


def documented():
    """The arguments of `eventful watch` in the systemd unit and in the container file."""
    if not DOCS.is_file():
        return {}
    text = DOCS.read_text().replace("\\\n", " ")
    unit = re.search(r"^ExecStart=\S+/eventful watch (.*)$", text, re.M)[1]
    container = json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.M)[1])
    assert container[:2] == ["eventful", "watch"]
    return {"unit": shlex.split(unit), "container": container[2:]}


@pytest.mark.parametrize("arguments", documented().values(), ids=documented())
def test_the_services_of_the_documentation_run(invoke, small, clip_file, tmp_path, arguments):
    root = {
        "/etc/eventful/cameras.yaml": tmp_path / "cameras.yaml",
        "%d/page-token": tmp_path / "token",
        "/run/secrets/page-token": tmp_path / "token",
    }
    (tmp_path / "cameras.yaml").write_text(f"cameras: {{a: '{clip_file}'}}")
    (tmp_path / "token").write_text("a-token-for-the-tests\n")
    (tmp_path / "token").chmod(0o600)
    given = [
        root.get(one, one.replace("/var/lib/eventful", str(tmp_path / "kept"))) for one in arguments
    ]
    assert sum(one in root for one in arguments) == 2
    found = invoke("watch", *given, *small, "--port", 0)
    assert found.exit_code == 0, found.output
    assert re.search(
        r"^page: http://127\.0\.0\.1:\d+/, which asks for the token$", found.stderr, re.M
    )
    assert (tmp_path / "kept" / "state" / "current.json").exists()
