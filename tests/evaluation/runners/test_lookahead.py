"""Settings whose frames wait for those after them."""

import pytest
import torch

import eventful
from eventful.datasets import Davis
from eventful.evaluation import Setting, combined, evaluate, report, write_report
from eventful.evaluation.runners.tokens import TokenRunner
from eventful.evaluation.tasks.saliency import DavisSaliency
from tests.evaluation import annotated_data as data
from tests.evaluation.annotated_data import make

LATE = Setting("carry, lookahead", eventful.Carry(3), {}, "carry:3", 4)


@pytest.fixture
def task(tmp_path):
    root = data.write_davis(tmp_path / "data", {"boat": 6, "camel": 9})
    return make(DavisSaliency, Davis(root), tmp_path, size=112)


def test_tokens_are_those_of_a_run_with_lookahead(task):
    runner, video = TokenRunner(task.models, LATE), task.data[1]
    outputs = list(task.outputs(runner, video))
    assert [step.action for step in runner.steps] == ["dense", "carried", "carried"] * 3
    size = task.input_size(next(iter(video)).image.shape[1:])
    frames = [eventful.evaluation.measures.patches.fitted_frame(s.image, size) for s in video]
    backbone = task.models(size).backbone
    stream = eventful.Stream(
        eventful.convert(backbone, LATE.policy), normalize=True, method="forward_features"
    )
    expected = list(stream.run(frames, lookahead=4))
    eventful.restore(backbone)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert torch.equal(ours, theirs[:, backbone.num_prefix_tokens :])


def test_both_are_reported_side_by_side(task, tmp_path):
    settings = combined(["dense"], ["carry:3", "skip:3"], lookahead=4)
    found = evaluate(task, settings, tmp_path / "out")
    again = evaluate(task, settings, tmp_path / "out")  # from what is kept
    assert [one.scores for one in found.settings] == [one.scores for one in again.settings]
    rows = task.further(found.settings)["rows"]
    assert [(row["variant"], row["policy"], row["lookahead"]) for row in rows] == [
        ("carry", "carry:3", 0), ("carry, lookahead", "carry:3", 4), ("skip", "skip:3", 0)
    ]  # fmt: skip
    about = {"title": "boats", "weights": {"file": None}}
    content = report(task, found, about)
    write_report(content, found, tmp_path / "out")
    lines = (tmp_path / "out" / f"{task.name}.csv").read_text().splitlines()
    assert {line.count(",") for line in lines if '"' not in line} == {lines[0].count(",")}
    assert lines[0].startswith("setting,variant,policy,lookahead,")
    assert rows[0]["operations_ratio"] == rows[1]["operations_ratio"]
    assert rows[0]["relative_error"] != rows[1]["relative_error"]


def test_frames_of_a_video_have_one_size(task):
    runner = TokenRunner(task.models, LATE)
    runner.start()
    frames = [torch.rand(1, 3, 70, 98), torch.rand(1, 3, 70, 112)]
    with pytest.raises(ValueError, match="frames differ in size"):
        list(runner.through(frames))
    assert list(TokenRunner(task.models, LATE).through([])) == []
