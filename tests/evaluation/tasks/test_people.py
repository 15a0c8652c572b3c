"""People on TUD-Campus: which frames, which boxes, and what the packaged detector finds there."""

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from eventful import TopR
from eventful.evaluation import Setting, evaluate
from eventful.evaluation.measures.patches import fitted_frame
from eventful.evaluation.runners.tokens import Models, TokenRunner
from eventful.evaluation.tasks.found_boxes import BoxJudge, precision
from eventful.evaluation.tasks.people import TABLE, VIDEO, CampusPeople, campus
from eventful.models.people import people_detector
from eventful.models.saliency import saliency_vit
from eventful.models.vitdet import Detections
from eventful.video import Writer

DENSE, GATED = Setting("dense", None), Setting("input", TopR(2), {"gating": "input"})
FRAMES = 5


class Tiny(nn.Module):
    def __init__(self, size):
        super().__init__()
        torch.manual_seed(2)
        self.backbone = timm.create_model(
            "vit_tiny_patch16_224", patch_size=14, img_size=size, num_classes=0, depth=2
        ).eval()


class Found(nn.Module):
    """Finds one person on the n-th call, `shift` pixels of the frame to the right of the truth."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([shift]))
        self.calls = 0

    def forward(self, tokens, grid):
        assert tokens.shape == (1, grid[0] * grid[1], 192)
        x = 4.0 + self.calls % FRAMES + float(self.weight)
        self.calls += 1
        box = torch.tensor([[x, 6.0, x + 10, 26.0]]) * torch.tensor([84 / 60, 56 / 40]).repeat(2)
        return [Detections(box, torch.tensor([0.9]), torch.zeros(1).long())]


@pytest.fixture
def root(tmp_path):
    """A person who walks to the right, and on the third frame one more who does not count."""
    rng = np.random.default_rng(1)
    (tmp_path / "mot").mkdir()
    with Writer(tmp_path / "mot" / VIDEO, rate=25) as writer:
        for _ in range(FRAMES):
            writer.write(rng.integers(0, 255, (40, 60, 3), np.uint8))
    rows = [f"{number + 1},1,{4 + number},6,10,20,1,-1,-1,-1" for number in range(FRAMES)]
    rows.append("3,2,40,6,10,20,0,-1,-1,-1")
    (tmp_path / "mot" / TABLE).write_text("\n".join(rows))
    return tmp_path


def task(root, detector, frames=None):
    return CampusPeople(Models(Tiny), campus(root), root / "dense", 84, frames, detector)


def test_every_frame_is_scored(root):
    detector = Found()
    found = evaluate(task(root, detector), [DENSE, GATED], root / "out")
    assert detector.calls == 2 * FRAMES
    for one in found.settings:
        (row,) = one.videos
        assert (row["steps"], row["scored"]) == (FRAMES, FRAMES)
        assert one.scores == {"map50": pytest.approx(100)}


def test_moved_boxes_are_mistakes(root):
    (one,) = evaluate(task(root, Found(shift=4.0), frames=3), [DENSE], root / "out").settings
    assert (one.videos[0]["scored"], one.scores) == (3, {"map50": 0})


def test_results_are_of_one_detector(root):
    evaluate(task(root, Found(), frames=2), [DENSE], root / "out")
    with pytest.raises(ValueError, match="results of another run: detector"):
        evaluate(task(root, Found(shift=1.0), frames=2), [DENSE], root / "out")


def test_the_folder_itself_or_the_one_above(root):
    assert campus(root).root == campus(root / "mot").root == root / "mot"
    (root / "mot" / TABLE).unlink()
    with pytest.raises(FileNotFoundError, match="expected the boxes of people at"):
        campus(root)


def test_what_counts_is_drawn_in_green(root):
    sample = list(campus(root)[0])[2]
    drawn = task(root, Found()).truth(sample)
    changed = (drawn != sample.image).any(dim=0)
    assert changed[6, 6:16].all()
    assert drawn[1, 6, 6] > 0.8  # green
    assert drawn[2, 6, 40] > 0.8  # blue: does not count


@pytest.mark.slow
def test_packaged_weights_in_a_scene_that_they_have_not_seen():
    """Every 10th frame; on all of them benchmarks/results/people.json says what is found."""
    if "EVENTFUL_DATA" not in os.environ:
        pytest.skip("EVENTFUL_DATA is not set: the folder that holds mot/TUD-Campus.mp4")
    folder = Path(os.environ["EVENTFUL_DATA"])
    if not (folder / "mot" / VIDEO).is_file():
        pytest.skip("EVENTFUL_DATA holds no mot/TUD-Campus.mp4")
    size = (294, 392)
    runner = TokenRunner(Models(saliency_vit), DENSE)
    judge = BoxJudge(people_detector(), (21, 28), (480, 640), lambda target: target)
    runner.start()
    with torch.inference_mode():
        for sample in campus(folder, strict=True)[0]:
            if sample.number % 10 == 0:
                judge.see(0, runner(fitted_frame(sample.image, size))[0], sample)
    assert precision(judge.found())["map50"] > 60
