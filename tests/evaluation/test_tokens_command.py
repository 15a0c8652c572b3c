"""`eventful evaluate` on annotated video, from folders to reports."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from eventful.cli.commands import evaluate as command
from eventful.evaluation import Choice, task_kind
from eventful.evaluation.tasks import annotated as building
from tests.evaluation import annotated_data as data

TASKS = ("davis-saliency", "davis-propagation", "cdnet-saliency", "vtest")
LEAST = {"davis-saliency": 0.9, "davis-propagation": 0.6, "cdnet-saliency": 0.55, "vtest": 0.9}


class TestCommand:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch, tmp_path):
        monkeypatch.setattr(building, "saliency_vit", lambda size=70: data.network(size))
        monkeypatch.setattr("eventful.models.saliency.saliency_vit", lambda: data.network(70))
        monkeypatch.delenv("EVENTFUL_DATA", raising=False)
        data.write_davis(tmp_path / "all/davis2016", {"camel": 5})
        data.write_cdnet(tmp_path / "all/cdnet2014")
        data.write_crowd(tmp_path / "all/vtest")

    @pytest.fixture
    def settings(self, tmp_path):
        options = {"variants": ("input-relative",), "out": tmp_path / "out", "device": "cpu"}
        policies = ("top:3", "fraction:0.50")
        return command.Settings(
            "davis-saliency", tmp_path / "all", None, policies, size=70, **options
        )

    @pytest.mark.parametrize("name", TASKS)
    def test_every_task_finds_its_data(self, settings, name, console, monkeypatch, tmp_path):
        monkeypatch.setenv("EVENTFUL_DATA", str(tmp_path / "all"))
        one = replace(settings, task=name, root=None)
        content = command.evaluate(one, console)
        assert content == json.loads((settings.out / f"{name}.json").read_text())
        assert [row["policy"] for row in content["rows"]] == ["top:3", "fraction:0.50"]
        assert content["dense"]["operations"] > 0
        assert content["weights"]["file"] == "vit_s_focus.onnx"
        console.print(command.table(content))
        assert "input-relative, top:3" in console.file.getvalue()

    def test_the_folder_of_the_data_set_itself(self, settings, console, tmp_path):
        one = replace(settings, root=tmp_path / "all/davis2016")
        assert command.evaluate(one, console)["dense"]["videos"][0]["video"] == "camel"

    def test_without_times(self, settings, console):
        content = command.evaluate(replace(settings, times=False), console)
        assert {row["time_ratio"] for row in content["rows"]} == {None}
        assert {row["milliseconds"] for row in content["rows"]} == {None}

    def test_a_sheet_leaves_the_figures_as_they_are(self, settings, console):
        plain = command.evaluate(replace(settings, times=False), console)
        one = replace(settings, times=False, fresh=True, sheet="top:3")
        drawn = command.evaluate(one, console)
        assert (drawn["dense"], drawn["rows"]) == (plain["dense"], plain["rows"])
        *files, sheet = drawn["files"]
        assert files == plain["files"]
        assert Path(sheet) == settings.out / "davis-saliency-sheet.png"
        assert Path(sheet).exists()

    def test_a_sheet_is_of_a_policy_that_is_run(self, settings, console):
        message = "--sheet takes one of the policies, top:3, fraction:0.50; got 'top:4'"
        with pytest.raises(ValueError, match=message):
            command.evaluate(replace(settings, sheet="top:4"), console)

    def test_other_tasks_have_no_sheet(self, vid):
        with pytest.raises(ValueError, match="annotated video, not for vid"):
            command._drawn("top:3", [], vid())

    def test_fresh_forgets_dense_tokens_too(self, settings, console, tmp_path):
        command.evaluate(settings, console)
        data_folder = tmp_path / "all/davis2016"
        shutil.rmtree(data_folder)
        data.write_davis(data_folder, {"camel": 3})
        content = command.evaluate(replace(settings, fresh=True), console)
        assert content["dense"]["videos"][0]["frames"] == 3

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"root": None}, ValueError, "davis-saliency needs --root FOLDER"),
            ({"weights": "random"}, ValueError, "comes with its weights; leave --weights out"),
            ({"split": "val"}, ValueError, "leave --split out"),
            ({"policies": ("topp:3",)}, ValueError, "policy 'topp:3' is not understood"),
            ({"task": "vtest", "root": "nowhere"}, FileNotFoundError, "expected the video at"),
        ],
    )
    def test_mistakes(self, settings, console, changes, error, message):
        with pytest.raises(error, match=message):
            command.evaluate(replace(settings, **changes), console)
        assert not settings.out.exists()


def test_tasks_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected the frames of DAVIS"):
        task_kind("davis-propagation").make(data.network(70), Choice(tmp_path))


@pytest.mark.slow  # the network is built at two sizes each time
@pytest.mark.parametrize("name", TASKS)
def test_real_data(name, tmp_path, console):
    """A few frames with the real network: quality as it should be, and dense beside gated."""
    if "EVENTFUL_DATA" not in os.environ:
        pytest.skip("EVENTFUL_DATA is not set: the folder of davis2016/, cdnet2014/ and vtest/")
    options = {"videos": 1, "frames": 10, "size": 224, "variants": ("input-relative",)}
    settings = command.Settings(name, None, None, ("fraction:0.25",), out=tmp_path, **options)
    content = command.evaluate(settings, console)
    (row,), dense = content["rows"], content["dense"]["quality"]
    main = next(iter(dense))
    assert LEAST[name] < dense[main] < 1
    assert row["quality"][main] > 0.85 * dense[main]
    assert row["operations_ratio"] > 2.5
    assert 0 < row["relative_error"] < 0.6
