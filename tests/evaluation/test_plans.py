"""Plans beside gating in `eventful evaluate`: by text, on patch tokens, refused elsewhere."""

import pytest
import timm
import torch
from torch import nn

from eventful import TopR
from eventful.evaluation import combined
from eventful.evaluation.runners.frames import Runner
from eventful.evaluation.runners.tokens import Models, TokenRunner
from eventful.reuse import Auto, Skip


def test_plans_come_once_whatever_the_variants():
    found = combined(["input", "dense", "paper"], ["skip:5", "top:3", "auto:0.20"])
    names = [one.name for one in found]
    assert names == ["input, top:3", "dense", "paper, top:3", "skip:5", "auto:0.2"]
    assert [one.policy for one in found[-2:]] == [Skip(5), Auto(0.2)]
    assert found[-1].text == "auto:0.20"
    assert found[-1].as_dict() == {"variant": "auto", "policy": "auto:0.2", "options": {}}


def test_plans_alone_need_no_policy():
    assert [one.name for one in combined(["incremental", "dense"], ["skip:5"])] == [
        "dense",
        "skip:5",
    ]


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
