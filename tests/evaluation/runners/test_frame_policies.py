"""Frame policies as settings: what each frame was, and what it took."""

import pytest
import timm
import torch
from torch import nn

from eventful import TopR
from eventful.block.block import eventful_blocks
from eventful.evaluation import combined, evaluate
from eventful.evaluation.runners.frames import Runner
from eventful.evaluation.runners.tokens import Models, TokenRunner

SIZE = (64, 96)


class Whole(nn.Module):
    def __init__(self, size):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = timm.create_model(
            "vit_tiny_patch16_224", img_size=size, num_classes=0
        ).eval()


def video(frames, seed=1):
    """A bright square over noise, further right on every frame."""
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) / 2
    found = []
    for t in range(frames):
        frame = image.clone()
        frame[:, :, 16:40, 4 * t : 4 * t + 24] = 1.0
        found.append(frame)
    return found


def runner(text):
    (setting,) = combined(["incremental"], [text])
    run = TokenRunner(Models(Whole), setting)
    run.start()
    return run


def test_skipped_frames_hold_the_last_output():
    run = runner("skip:2")
    first, second, third = (run(frame) for frame in video(3))
    assert torch.equal(first, second)
    assert not torch.equal(second, third)
    assert [step.action for step in run.steps] == ["dense", "held", "dense"]
    assert [step.first for step in run.steps] == [True, False, True]
    assert [step.operations / step.dense_operations for step in run.steps] == [1, 0, 1]
    assert all(step.milliseconds > 0 for step in run.steps)


def test_which_patches_were_computed_is_known():
    run = runner("auto:0.4")
    for frame in video(12):
        run(frame)
        assert run.updated.shape == (1, 4, 6)
        share = run.updated.float().mean().item()
        match run.steps[-1].action:
            case "dense":
                assert share == 1
            case "partial":
                assert 0 < share < 1
                assert run.steps[-1].operations < run.steps[-1].dense_operations
            case action:
                assert (action, share) == ("carried", 0)
    assert {"dense", "carried"} <= {step.action for step in run.steps}


def test_a_video_begins_with_a_dense_frame():
    run, frames = runner("carry:5"), video(3)
    found = [run(frame) for frame in frames]
    assert [step.action for step in run.steps] == ["dense", "carried", "carried"]
    run.start()
    assert run.steps == []
    again = [run(frame) for frame in frames]
    assert all(map(torch.equal, found, again))


@pytest.mark.parametrize(("text", "expected"), [("carry:9", "carried"), ("auto:0.5", "dense")])
def test_scene_cuts_belong_to_auto_alone(text, expected):
    """As before: `skip` and `carry` are what they are without a look at the picture."""
    run = runner(text)
    (picture,) = video(1)
    for frame in [picture] * 4 + [1 - picture]:
        run(frame)
    assert run.steps[-1].action == expected


def test_frame_policies_run_on_any_model():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3).eval()
    skip, held = (combined(["incremental"], [text])[0] for text in ("skip:2", "lowres:0.5"))
    run, frame = Runner(model, skip), torch.rand(1, 3, 32, 32)
    run.start()
    assert torch.equal(run(frame), run(torch.rand(1, 3, 32, 32)))
    assert not eventful_blocks(model)
    with pytest.raises(ValueError, match=r"lowres:0.5 is for tasks on patch tokens"):
        Runner(model, held)
    assert Runner(model, combined(["incremental"], [TopR(2)])[0])


@pytest.mark.parametrize("text", ["skip:3", "carry:3", "auto:0.3", "lowres:0.5"])
def test_nothing_of_the_caller_is_kept_and_nothing_kept_is_handed_out(text):
    """One buffer for all frames, as cameras give, and outputs that are overwritten."""
    run, twin = runner(text), runner(text)
    buffer = torch.empty(1, 3, *SIZE)
    for frame in video(5):
        output = run(buffer.copy_(frame))
        assert torch.equal(output, twin(frame.clone()))
        with torch.inference_mode():
            output.fill_(torch.nan)


def test_skipping_runs_on_detection_and_on_clips(vid, kinetics, tmp_path):
    for make in (vid, kinetics):
        found = evaluate(make(), combined(["dense"], ["skip:2"]), tmp_path / make().name)
        dense, skip = found.settings
        assert dense.ratio == 1 < skip.ratio < 2.5


@pytest.mark.parametrize("text", ["carry:2", "auto:0.2", "error:0.2"])
def test_what_follows_motion_is_refused_for_pairs_of_frames(kinetics, text):
    with pytest.raises(ValueError, match=f"{text} follows the motion of pictures"):
        kinetics().runner(combined([], [text])[0])
