"""Vehicles on CDnet's highway: which frames, which boxes, what average precision says of them."""

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from eventful import TopR
from eventful.datasets.regions import Regions, moving_regions
from eventful.evaluation import Setting, evaluate
from eventful.evaluation.measures.boxes import Boxes, average_precision
from eventful.evaluation.measures.patches import fitted_frame
from eventful.evaluation.runners.tokens import Models, TokenRunner
from eventful.evaluation.tasks.vehicles import CDnetVehicles, highway, parts
from eventful.models.saliency import saliency_vit
from eventful.models.vehicles import vehicle_detector
from eventful.models.vitdet import Detections

NONE = torch.zeros(0, 4)
LEFT, RIGHT = (torch.tensor([[x, 0.0, x + 10, 10.0]]) for x in (0.0, 40.0))
DENSE, GATED = Setting("dense", None), Setting("input", TopR(2), {"gating": "input"})


def detections(boxes, *scores):
    return Detections(boxes, torch.tensor(scores), torch.zeros(len(boxes)).long())


def precision(*frames):
    boxes = Boxes()
    for found, there in frames:
        boxes.add(found, there)
    return average_precision(boxes.arrays())


class TestAveragePrecision:
    def test_all_found(self):
        assert precision(
            (detections(LEFT, 0.4), Regions(LEFT, NONE)),
            (detections(RIGHT, 0.6), Regions(RIGHT, NONE)),
        ) == pytest.approx(1)

    def test_a_certain_mistake_halves_it(self):
        """Precision is 1/2 wherever the one vehicle is found."""
        found = detections(torch.cat([RIGHT, LEFT]), 0.9, 0.4)
        assert precision((found, Regions(LEFT, NONE))) == pytest.approx(0.5)

    def test_an_overlap_below_one_half_is_a_mistake(self):
        for shift, value in ((3.0, 1), (3.5, 0)):  # overlaps 7/13 and 6.5/13.5
            found = detections(LEFT + torch.tensor([shift, 0, shift, 0]), 0.9)
            assert precision((found, Regions(LEFT, NONE))) == pytest.approx(value)

    def test_doubtful_places_do_not_count(self):
        both = torch.cat([RIGHT, LEFT])
        there = Regions(LEFT, RIGHT)
        assert precision((detections(both, 0.9, 0.4), there)) == pytest.approx(1)
        assert precision((detections(LEFT, 0.4), there)) == pytest.approx(1)

    def test_frames_without_anything(self):
        nothing = (detections(NONE), Regions(NONE, NONE))
        assert precision(nothing, (detections(LEFT, 0.4), Regions(LEFT, NONE))) == pytest.approx(1)
        assert precision(nothing, (detections(LEFT, 0.4), Regions(NONE, NONE))) is None
        assert precision() is None
        assert precision((detections(NONE), Regions(NONE, LEFT))) is None

    def test_nothing_found(self):
        assert precision((detections(NONE), Regions(LEFT, NONE))) == 0


def test_parts_of_highway():
    training, evaluation = parts(range(470, 1701))
    assert (len(training), len(evaluation)) == (738, 431)
    assert evaluation[0] - training[-1] == 63


def write_video(folder, frames=40, name="in{:06d}.jpg"):
    """A square of 8 x 8 pixels that moves to the right by one in every frame."""
    for number in range(1, frames + 1):
        pixels = np.zeros((24, 60), np.uint8)
        pixels[6:14, number : number + 8] = 255
        for part, file in (("input", name), ("groundtruth", "gt{:06d}.png")):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / part / file.format(number))
    Image.new("L", (60, 24), 255).save(folder / "ROI.bmp")
    (folder / "temporalROI.txt").write_text(f"1 {frames}")
    return folder


class TestHighway:
    def test_found_in_all_of_cdnet(self, tmp_path):
        for name in ("highway", "office"):
            write_video(tmp_path / "baseline" / name, frames=2)
        for root in (tmp_path, tmp_path / "baseline", tmp_path / "baseline" / "highway"):
            assert [video.id for video in highway(root)] == ["highway"]

    def test_other_videos_alone(self, tmp_path):
        write_video(tmp_path / "office", frames=2)
        with pytest.raises(FileNotFoundError, match=r"'highway' alone.*found office"):
            highway(tmp_path)


class Found(nn.Module):
    """Finds the square: the n-th call is for the n-th scored frame."""

    def __init__(self, numbers, shift=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([shift]))
        self.numbers = list(numbers)
        self.calls = []

    def forward(self, tokens, grid):
        assert tokens.shape == (1, grid[0] * grid[1], 192)
        x = self.numbers[len(self.calls) % len(self.numbers)] + float(self.weight)
        self.calls.append(grid)
        box = torch.tensor([[x, 6.0, x + 8, 14.0]]) * torch.tensor([84 / 60, 28 / 24]).repeat(2)
        return [detections(box, 0.9)]


class Tiny(nn.Module):
    def __init__(self, size):
        super().__init__()
        torch.manual_seed(2)
        self.backbone = timm.create_model(
            "vit_tiny_patch16_224", patch_size=14, img_size=size, num_classes=0, depth=2
        ).eval()


class TestTask:
    @pytest.fixture
    def root(self, tmp_path):
        return write_video(tmp_path / "highway")

    @staticmethod
    def task(root, detector, frames=None):
        folder = root.parent / "dense"
        return CDnetVehicles(Models(Tiny), highway(root), folder, 84, frames, detector)

    def test_every_frame_of_the_last_part_runs_and_every_fourth_is_scored(self, root):
        detector = Found((27, 31, 35, 39))
        task = self.task(root, detector)
        found = evaluate(task, [DENSE, GATED], root.parent / "out")
        assert [sample.number for sample in task.footage(task.data[0])] == [*range(27, 41)]
        assert detector.calls == [(2, 6)] * 8  # two settings
        for one in found.settings:
            (row,) = one.videos
            assert (row["steps"], row["scored"]) == (14, 4)
            assert one.scores == {"map50": pytest.approx(100)}

    def test_moved_boxes_are_mistakes(self, root):
        task = self.task(root, Found((27, 31), shift=4.0), frames=8)
        (one,) = evaluate(task, [DENSE], root.parent / "out").settings
        assert one.videos[0]["scored"] == 2
        assert one.scores == {"map50": 0}

    def test_errors_on_what_moves(self, root):
        task = self.task(root, Found((27,)), frames=4)
        found = evaluate(task, [DENSE, GATED], root.parent / "out").settings
        # The square covers 0.25, 0.3, 0.35 and 0.4 of a patch: more than 0.3 on two frames.
        assert [one.videos[0]["error_objects_frames"] for one in found] == [2, 2]
        assert found[0].videos[0]["error_objects_max"] == 0 < found[1].videos[0]["error_max"]

    def test_results_are_of_one_detector(self, root):
        out = root.parent / "out"
        evaluate(self.task(root, Found((27,)), frames=2), [DENSE], out)
        with pytest.raises(ValueError, match="results of another run: detector"):
            evaluate(self.task(root, Found((27,), shift=1.0), frames=2), [DENSE], out)

    def test_a_frame_without_labels_runs_and_is_not_scored(self, root):
        (root / "groundtruth" / "gt000031.png").unlink()
        task = self.task(root, Found((27, 35, 39)))
        (one,) = evaluate(task, [DENSE], root.parent / "out").settings
        assert (one.videos[0]["steps"], one.videos[0]["scored"]) == (14, 3)
        assert one.scores == {"map50": pytest.approx(100)}


@pytest.mark.slow
def test_packaged_weights_on_frames_that_they_have_not_seen():
    """On all 108 scored frames mAP50 is as benchmarks/results/vehicles.json says."""
    if "EVENTFUL_DATA" not in os.environ:
        pytest.skip("EVENTFUL_DATA is not set: the folder that holds cdnet2014/highway")
    root = Path(os.environ["EVENTFUL_DATA"], "cdnet2014", "highway")
    if not root.is_dir():
        pytest.skip("EVENTFUL_DATA holds no cdnet2014/highway")
    numbers, size, boxes = {1290, 1380, 1470, 1560, 1650}, (392, 518), Boxes()
    runner, detector = TokenRunner(Models(saliency_vit), DENSE), vehicle_detector()
    runner.start()
    with torch.inference_mode():
        for sample in highway(root, strict=True)[0]:
            if sample.number in numbers:
                (found,) = detector(runner(fitted_frame(sample.image, size)), (28, 37))
                boxes.add(found.scaled(size, sample.size), moving_regions(sample.target))
    assert average_precision(boxes.arrays()) > 0.8
