"""The command as it is installed, and what it says of itself."""

from importlib.metadata import entry_points

import pytest

import eventful
from eventful.cli import main


def test_the_installed_command_is_main():
    (script,) = entry_points(group="console_scripts", name="eventful")
    assert script.load() is main


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_commands_are_listed_in_two_groups(invoke, arguments):
    text = invoke(*arguments).output
    _, _, listed = text.partition("\nRun:\n")
    run, _, research = listed.partition("\nResearch:\n")
    assert [line.split("  ")[1] for line in run.splitlines() if line] == [
        "run",
        "advise",
        "watch",
        "archive",
        "export",
        "inspect",
        "bench",
        "evaluate folder",
    ]
    names = {line.split()[0] for line in research.splitlines() if line}
    assert names == {"evaluate", "calibrate", "weights", "finetune", "paper"}


def test_a_command_lists_its_options(invoke):
    assert "--max-error" in invoke("run", "--help").stdout


def test_version(invoke):
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"eventful {eventful.__version__}\n")
