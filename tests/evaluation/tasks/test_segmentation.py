"""Segmentation on DAVIS: which sequences, which scores, and what the packaged head gives."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from eventful.datasets import Davis
from eventful.evaluation import Choice, Setting, evaluate, task_kind
from eventful.evaluation.tasks.annotated import davis
from eventful.evaluation.tasks.segmentation import DavisSegmentation, unseen
from tests.evaluation import annotated_data as data

DENSE = Setting("dense", None)


class Half(nn.Module):
    """Takes everything on the left of the middle for an object."""

    def __init__(self, above=True):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.above = above

    def forward(self, tokens, grid):
        assert tokens.shape == (1, grid[0] * grid[1], 24)
        logits = -torch.ones(1, 1, 14 * grid[0], 14 * grid[1])
        logits[..., : 7 * grid[1]] = 1
        return logits if self.above else -torch.ones_like(logits)


def task(root, head):
    found = unseen(Davis(root))
    return DavisSegmentation(data.models(), found, root / "dense", data.SIZE, head=head)


def frames(*masks):
    return [(data.scene(0)[0], mask) for mask in masks]


def half(share):
    """The left part of a frame."""
    mask = np.zeros(data.SHAPE, bool)
    mask[:, : int(share * data.SHAPE[1])] = True
    return mask


def test_scores_of_all_frames(tmp_path):
    """The first and last frame count too: half is found, of a half, a whole, and a quarter."""
    root = data.write_davis(tmp_path, {"camel": frames(half(0.5), half(1), half(0.25))})
    (one,) = evaluate(task(root, Half()), [DENSE], tmp_path / "out").settings
    assert one.scores["j_mean"] == pytest.approx(100 * (1 + 0.5 + 0.5) / 3, abs=2)
    assert one.videos[0]["scored"] == 3


def test_nothing_found_and_nothing_there(tmp_path):
    root = data.write_davis(tmp_path, {"camel": frames(half(0), half(0.5))})
    (one,) = evaluate(task(root, Half(above=False)), [DENSE], tmp_path / "out").settings
    assert one.scores["j_mean"] == pytest.approx(50)


def test_a_frame_without_a_mask_runs_and_is_not_scored(tmp_path):
    root = data.write_davis(tmp_path, {"camel": 4})
    (root / "Annotations/480p/camel/00001.png").unlink()
    (one,) = evaluate(task(root, Half()), [DENSE], tmp_path / "out").settings
    assert (one.videos[0]["steps"], one.videos[0]["scored"]) == (4, 3)


def test_only_what_the_head_has_not_seen(tmp_path):
    root = data.write_davis(tmp_path, {"blackswan": 2, "camel": 2, "parkour": 2})
    assert [video.id for video in unseen(Davis(root))] == ["camel", "parkour"]
    with pytest.raises(FileNotFoundError, match=r"one of the sequences camel, .*found blackswan$"):
        unseen(Davis(root, ["blackswan"]))


def test_strict_stays(tmp_path):
    root = data.write_davis(tmp_path, {"camel": 2})
    (root / "Annotations/480p/camel/00001.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"00001\.png"):
        list(unseen(davis(root, strict=True))[0])


def test_results_are_of_one_head(tmp_path):
    root = data.write_davis(tmp_path, {"camel": 2})
    evaluate(task(root, Half()), [DENSE], tmp_path / "out")
    other = Half()
    other.weight.data += 1
    with pytest.raises(ValueError, match="results of another run: head"):
        evaluate(task(root, other), [DENSE], tmp_path / "out")


@pytest.mark.slow
def test_packaged_weights_on_sequences_that_they_have_not_seen(tmp_path):
    """The first frames, the hardest; benchmarks/results/segmentation.json has means of all."""
    if "EVENTFUL_DATA" not in os.environ:
        pytest.skip("EVENTFUL_DATA is not set: the folder that holds davis2016")
    kind, root = task_kind("davis-segmentation"), Path(os.environ["EVENTFUL_DATA"])
    task = kind.make(kind.model(), Choice(root, frames=2, out=tmp_path))
    (one,) = evaluate(task, [DENSE], tmp_path / "out").settings
    assert len(one.videos) == 4
    assert one.scores["j_mean"] > 50
