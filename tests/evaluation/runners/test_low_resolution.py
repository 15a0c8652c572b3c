"""The dense model on smaller frames: its share, its size, its tokens."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from eventful.block.block import eventful_blocks
from eventful.evaluation import Setting
from eventful.evaluation.baselines import LowResolution
from eventful.evaluation.runners.low_resolution import LowResolutionRunner
from eventful.evaluation.runners.tokens import patch_runner

GRID, PATCH = (6, 9), 8
SIZE = (GRID[0] * PATCH, GRID[1] * PATCH)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = VisionTransformer(
        img_size=SIZE, patch_size=PATCH, embed_dim=24, depth=2, num_heads=3, num_classes=0
    ).eval()
    made.pretrained_cfg = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    return made


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_it_keeps_to_its_share(model, share):
    run, seen = LowResolutionRunner(model, LowResolution(share)), []
    run.watch = seen.append
    outputs = [run(frame) for frame in torch.rand(3, 1, 3, *SIZE)]
    assert outputs[0].shape == (1, GRID[0] * GRID[1], 24)
    assert all(share / 3 < s.operations / s.dense_operations <= share for s in run.steps)
    assert [step.first for step in run.steps] == [True, False, False]
    assert {step.action for step in run.steps} == {"low resolution"}
    assert seen == [1, 2, 3]
    assert run.updated.shape == (1, *GRID)
    assert run.updated.all()
    assert not eventful_blocks(model)
    run.start()
    assert run.steps == []


def test_full_resolution_is_the_dense_model(model):
    policy, frame = LowResolution(1.0), torch.rand(1, 3, *SIZE)
    dense = patch_runner(model, Setting("dense", None))(frame)
    assert torch.allclose(patch_runner(model, Setting("lowres", policy))(frame), dense, atol=1e-4)


def test_too_low_a_resolution_is_refused(model):
    with pytest.raises(ValueError, match=r"lowres:0\.001 leaves no patch"):
        LowResolutionRunner(model, LowResolution(0.001))
