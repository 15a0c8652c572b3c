"""The commands of docs/live-page.md, as they stand there, and what its tables say."""

import json
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from eventful.live.page import Limits, dashboard
from eventful.live.page.refusals import KINDS
from tests.live.page.conftest import TOKEN

FOLDER = Path(__file__).parents[3] / "docs"
if not (FOLDER / "live-page.md").is_file():
    pytest.skip("the documentation is not installed with the package", allow_module_level=True)
PAGE, THREATS = ((FOLDER / name).read_text() for name in ("live-page.md", "threats.md"))
COMMANDS = [
    command
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)
    for command in block.replace("\\\n", " ").splitlines()
]


def run(command, page, folder):
    command = command.replace("http://127.0.0.1:8008", page.url.rstrip("/"))
    command = command.replace("curl ", "curl --silent --fail-with-body ", 1)
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "TOKEN": TOKEN}, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_do_what_is_said(page, closed, board, tmp_path):
    done = {}
    for command in (command for command in COMMANDS if command.startswith("curl")):
        code, done[command] = run(command, closed if "$TOKEN" in command else page, tmp_path)
        assert code == (28 if "--max-time" in command else 0), (
            command,
            done[command],
        )  # 28: in time
        if "POST" in command:
            assert board.cameras["porch"].source == "rtsp://10.0.0.8/live"
        if "-N" in command:
            assert done[command].startswith(": results follow")
    assert len(done) == 8
    assert board.policies == ["error:0.1"]
    assert "porch" not in board.cameras
    assert (tmp_path / "front.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    assert (tmp_path / "grafana.json").read_text() == dashboard()
    history = next(text for command, text in done.items() if "history" in command)
    assert len(json.loads(history)["time"]) == 11


def test_every_type_of_refusal_has_its_status_there():
    told = {}
    for names, status in re.findall(r"^\| (`[a-z_`, ]+`) \| (\d{3}) \|", PAGE, re.M):
        told |= dict.fromkeys(re.findall(r"\w+", names), int(status))
    assert told == KINDS


def test_the_limits_are_those_of_the_code():
    limits = {field.name: getattr(Limits(), field.name) for field in fields(Limits)}
    for kind, text in (
        ("too_slow", f"within {limits['seconds']:g} seconds"),
        ("too_many_cameras", f"{limits['cameras']}"),
        ("body_too_large", f"{limits['body'] // 1024} KiB"),
        ("target_too_long", f"{limits['target'] // 1024} KiB"),
        ("too_many_streams", f"{limits['streams']}"),
        ("headers_too_large", f"{limits['headers'] // 1024} KiB"),
    ):
        row = re.search(rf"^\| `{kind}` \|.*$", PAGE, re.M)[0]
        assert text in row
    assert f"ends after {limits['session_hours'] / 24:g} days" in THREATS


def test_the_paths_are_those_of_the_api(ask):
    told = set()
    for requests in re.findall(r"^\| (`(?:GET|POST|DELETE|PUT).*?) \|", PAGE, re.M):
        for method, path in re.findall(r"(GET|POST|DELETE|PUT) (/[^?`]*)", requests):
            told.add((method, path))
    there = {
        (method.upper(), path.replace("{name}", "NAME"))
        for path, methods in ask("GET", "/api/openapi.json").json["paths"].items()
        for method in methods
    }
    assert told == (there | {("GET", "/api/openapi.json")}) - {
        ("POST", "/api/session"), ("DELETE", "/api/session")  # the page's own
    }  # fmt: skip


def test_the_tests_that_threats_names_are_there():
    folder = Path(__file__).parent
    rows = re.findall(r"^\| .*? \| .*? \| (.*`test_\w+`.*) \|$", THREATS, re.M)
    assert len(rows) > 15
    for row in rows:
        for file, names in re.findall(r"`(test_\w+)`(?:: ((?:`\w+`(?:, )?)+))?", row):
            text = (folder / f"{file}.py").read_text()
            for name in re.findall(r"\w+", names):
                assert re.search(rf"^def test_\w*{name}", text, re.M), (file, name)
