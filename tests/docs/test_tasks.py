"""The examples of docs/tasks.md, as they stand there, on tiny models in folders of these names."""

import logging
import re
import shlex
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from eventful.cli.app import app
from eventful.video import Writer
from tests.pretrained import folders

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
if not PAGE.is_file():
    pytest.skip("the documentation is not installed with the package", allow_module_level=True)

MODELS = {
    "Depth": "Depth Anything",
    "Detection": "YOLOS",
    "Pose": "ViTPose",
    "Segmentation": "EoMT",
    "Open vocabulary": "OWLv2 detector",
    "The tower of a vision-language model": "LLaVA",
}
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S))
SHAPES = {
    "Depth": (68, 92),
    "Detection": (5, 4),
    "Pose": (5, 2),
    "Segmentation": (68, 92),
    "Open vocabulary": (25, 4),
    "The tower of a vision-language model": (25, 24),
}


def blocks(section, language):
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], re.M | re.S)


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder with clip.mp4 and a section's model."""
    monkeypatch.chdir(tmp_path)
    with Writer("clip.mp4", rate=Fraction(25)) as writer:
        for frame in folders.frames(6):
            writer.write(frame)

    def there(section):
        (name,) = {*re.findall(r'^name = "(.+)"$', SECTIONS[section], re.M)}
        Path(name).mkdir(parents=True)
        folders.write(MODELS[section], Path(name))

    return there


def test_every_task_has_an_example():
    found = {section for section in SECTIONS if blocks(section, "python")}
    assert found == {*MODELS}


@pytest.mark.parametrize("section", MODELS)
def test_the_code_runs(there, section):
    there(section)
    (code,) = blocks(section, "python")
    names = {}
    exec(compile(code, f"{PAGE.name}, {section}", "exec"), names)
    result = torch.as_tensor(names["result"])
    assert result.isfinite().all()
    assert tuple(result.shape) == SHAPES[section]
    stream = names["stream"]
    assert stream.stats.frames == 6


@pytest.mark.parametrize("section", MODELS)
def test_the_command_runs(there, section, caplog):
    there(section)
    (line,) = blocks(section, "bash")
    with caplog.at_level(logging.ERROR, logger="eventful"):
        command, *arguments = shlex.split(line)
        assert command == "eventful"
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr or result.exception
    assert "6 frames at" in result.stdout
    assert Path("eventful-out", "summary.png").is_file()
