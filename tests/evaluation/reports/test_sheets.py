"""Contact sheets: which frames, what stands in each column, and what the judges draw."""

import numpy as np
import pytest
import torch
from PIL import Image

from eventful.datasets import CDnet, Davis
from eventful.evaluation import combined, evaluate
from eventful.evaluation.reports.sheets import sheet, shown, spread
from eventful.evaluation.tasks.crowd import Crowd, CrowdTask
from eventful.evaluation.tasks.joint import Joint
from eventful.evaluation.tasks.pictures import AMBER, boxed, enlarged, tinted
from eventful.evaluation.tasks.propagation import DavisPropagation
from eventful.evaluation.tasks.saliency import CDnetSaliency, DavisSaliency
from tests.evaluation import annotated_data as data

GATED, HELD = combined(["input"], ["top:3", "skip:5"])


def prepared(task, folder):
    """The task with its dense tokens."""
    evaluate(task, combined(["dense"], []), folder / "out")
    return task


@pytest.mark.parametrize(
    ("length", "count", "places"),
    [(11, 3, [1, 5, 9]), (10, 5, [1, 3, 5, 7, 9]), (3, 5, [0, 1, 2]), (1, 1, [0])],
)
def test_frames_are_spread_out(length, count, places):
    assert spread(length, count) == places


def test_frames_of_several_videos(tmp_path):
    names = dict.fromkeys(("a", "b", "c", "d", "e", "f"), 8)
    task = prepared(data.davis(tmp_path, names), tmp_path)
    found = shown(task, GATED)
    assert [(one.video, one.number) for one in found] == [
        *(("b", number) for number in (3, 6)),
        *(("d", number) for number in (3, 6)),
        ("f", 5),
    ]
    assert all(one.error > 0 for one in found)
    assert [one.share for one in found] == pytest.approx([3 / 15] * 5)
    assert {picture.shape for one in found for picture in one.pictures} == {(3, *data.SHAPE)}


def test_pictures_of_a_frame(tmp_path):
    task = prepared(data.davis(tmp_path, {"a": 8}), tmp_path)
    one = shown(task, HELD)[0]  # the third frame: the first one's output
    frame, truth, dense, ours, anew = one.pictures
    mask = torch.from_numpy(data.scene(one.number)[1])
    assert (truth[:, mask] - frame[:, mask]).abs().sum() > 1
    grey = tinted(frame, torch.zeros(1, 1))
    assert torch.equal(truth[:, ~mask], grey[:, ~mask])
    assert not torch.equal(dense, ours)
    assert (one.action, one.share) == ("held", 0)
    assert torch.equal(anew, grey)


def test_a_frame_that_is_computed_is_the_dense_one(tmp_path):
    task = prepared(data.davis(tmp_path, {"a": 8}), tmp_path)
    one = next(one for one in shown(task, HELD) if one.number == 5)
    frame, _, dense, ours, anew = one.pictures
    assert (one.action, one.share) == ("dense", 1)
    assert one.error < 1e-5
    torch.testing.assert_close(dense, ours)
    assert torch.equal(anew, tinted(frame, torch.ones(1, 1), AMBER))


def test_propagation_shows_the_mask_that_it_carries(tmp_path):
    still = [data.scene(0, still=True)] * 6
    task = prepared(data.davis(tmp_path, {"a": still}, DavisPropagation), tmp_path)
    _, truth, dense, _, _ = shown(task, GATED)[-1].pictures
    there, drawn = ((one != one[:1]).any(dim=0) for one in (truth, dense))
    assert (there & drawn).sum() / (there | drawn).sum() > 0.6


def test_other_tasks(tmp_path):
    cdnet = data.make(CDnetSaliency, CDnet(data.write_cdnet(tmp_path / "cdnet")), tmp_path / "a")
    crowd = data.make(CrowdTask, Crowd(data.write_crowd(tmp_path / "crowd")), tmp_path / "b")
    labels = {cdnet: [False, False, True, True, False], crowd: [True] * 5}
    for task, labelled in labels.items():
        found = shown(prepared(task, tmp_path / task.name), GATED)
        assert [one.labelled for one in found] == labelled
        for column in (1, 2):
            assert (found[-2].pictures[column] != found[-2].pictures[0]).any()


@pytest.mark.parametrize("drawn", [0, 1])
def test_tasks_that_run_together_show_the_one_asked_for(tmp_path, drawn):
    davis = Davis(data.write_davis(tmp_path / "data", {"a": 6}))
    tasks = [data.make(kind, davis, tmp_path) for kind in (DavisSaliency, DavisPropagation)]
    joint = prepared(Joint("davis", tasks, drawn), tmp_path)
    for one, other in zip(shown(joint, HELD), shown(tasks[drawn], HELD), strict=True):
        assert all(map(torch.equal, one.pictures, other.pictures))


def test_the_sheet_is_a_picture(tmp_path):
    task = prepared(data.davis(tmp_path, {"a": 4}), tmp_path)
    sheet(task, GATED, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width > 1000
        assert np.asarray(picture).std() > 0


def test_nothing_to_show(tmp_path):
    with pytest.raises(ValueError, match="davis-saliency has no dense tokens; evaluate the dense"):
        shown(data.davis(tmp_path, {"a": 4}), GATED)


def test_tints_and_boxes():
    image = torch.rand(3, 4, 6)
    half = torch.tensor([[True, False, False]])
    colour = tinted(image, half, (1, 0, 0.5), cover=0.25)
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    torch.testing.assert_close(colour[:, :, 2:], grey[:, 2:].expand(3, -1, -1))
    torch.testing.assert_close(colour[0, :, :2], 0.75 * grey[:, :2] + 0.25)
    box = boxed(image, torch.tensor([[1.2, 0.0, 4.9, 3.0]]), (0, 0, 0))
    edge = (box == 0).all(dim=0)
    assert edge.nonzero().tolist() == [
        *([0, x] for x in range(1, 5)),
        *([1, x] for x in (1, 4)),
        *([2, x] for x in range(1, 5)),
    ]
    assert enlarged(torch.tensor([[1, 2]]), (1, 4)).tolist() == [[1, 1, 2, 2]]


def test_boxes_of_none():
    image = torch.rand(3, 4, 6)
    assert torch.equal(boxed(image, torch.empty(0, 4)), image)
