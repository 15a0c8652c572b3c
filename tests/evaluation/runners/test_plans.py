"""Plans beside gating: run on patch tokens, refused elsewhere."""

import pytest
import timm
import torch
from torch import nn

from eventful import TopR
from eventful.evaluation import combined
from eventful.evaluation.runners.frames import Runner
from eventful.evaluation.runners.tokens import Models, TokenRunner


def test_a_plan_runs_on_patch_tokens():
    class Whole(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.backbone = timm.create_model(
                "vit_tiny_patch16_224", img_size=size, num_classes=0
            ).eval()

    (setting,) = combined(["incremental"], ["skip:2"])
    run = TokenRunner(Models(Whole), setting)
    run.start()
    first, second = (run(frame) for frame in torch.rand(2, 1, 3, 32, 48))
    assert torch.equal(first, second)
    assert [step.first for step in run.steps] == [True, False]
    assert [step.operations > 0 for step in run.steps] == [True, False]


def test_a_plan_is_refused_where_outputs_are_no_patch_tokens():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3).eval()
    (setting,) = combined(["incremental"], ["skip:2"])
    with pytest.raises(ValueError, match="skip:2 is for tasks on patch tokens"):
        Runner(model, setting)
    assert Runner(model, combined(["incremental"], [TopR(2)])[0])
