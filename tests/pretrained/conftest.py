"""The command, a small video, and folders of tiny models."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from eventful.cli.app import app
from tests.pretrained import folders


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """A folder of 8 images."""
    folder = tmp_path_factory.mktemp("video")
    for number, frame in enumerate(folders.frames(8)):
        Image.fromarray(frame).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The folder of a family's tiny model, written once."""
    known = {}

    def folder(name):
        if name not in known:
            known[name] = folders.write(name, tmp_path_factory.mktemp("model"))
        return known[name]

    return folder


@pytest.fixture
def invoke(tmp_path):
    def invoke(*arguments):
        return CliRunner().invoke(app, [*map(str, arguments)])

    return invoke


@pytest.fixture
def evaluate(invoke, video, tmp_path):
    """Run `eventful evaluate folder` and return its report."""

    def evaluate(model, *options):
        where = ("--model", f"hf:{model}", "--video", video, "--out", tmp_path / "out", "--json")
        result = invoke("evaluate", "folder", *where, *options)
        assert result.exit_code == 0, result.stderr or result.exception
        return json.loads(result.stdout)

    return evaluate


@pytest.fixture
def refuse(invoke, video, tmp_path):
    """Run it with a mistake; give back the one line that says so."""

    def refuse(model, *options, video=video, command=("evaluate", "folder")):
        where = ("--model", model, "--video", video, "--out", tmp_path / "out")
        result = invoke(*command, *where, *options)
        assert result.exit_code == 2, result.stdout
        error = result.stderr.splitlines()[-1]
        assert error.startswith("error: ")
        assert not (tmp_path / "out").exists()
        return error

    return refuse
