"""Plans on a small ViT: which frames run dense, what they cost, and what is handed out."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

from eventful.block.block import eventful_blocks
from eventful.motion.flow import Motion
from eventful.reuse import Auto, LowResolution, Skip, carry, parse, runner

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


def video(frames, moving=False):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, 2 * SIZE[0], 2 * SIZE[1], generator=generator)
    found = []
    for t in range(frames):
        start = 5 * t % SIZE[1] if moving else 0
        frame = image[:, :, : SIZE[0], start : start + SIZE[1]].clone()
        x = 4 * t % (SIZE[1] - 10)
        frame[:, :, 10:20, x : x + 10] = 1.0
        found.append(frame)
    return found


def dense(model, frame):
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        return model.forward_features((frame - mean) / std)[:, 1:]


def spent(run):
    return sum(step.operations for step in run.steps) / sum(s.dense_operations for s in run.steps)


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_skipping_runs_every_kth_frame_and_holds_the_last(model, phase):
    run, frames = runner(model, Skip(3, phase=phase)), video(7)
    outputs = [run(frame) for frame in frames]
    last = None
    for t, frame in enumerate(frames):
        if t == 0 or (t + phase) % 3 == 0:
            last = dense(model, frame)
        assert torch.allclose(outputs[t], last, atol=1e-5)
        assert run.steps[t].first == (t == 0 or (t + phase) % 3 == 0)
    assert run.steps[0].operations == run.steps[0].dense_operations
    assert [step.operations for step in run.steps if not step.first] == [0] * (
        7 - sum(step.first for step in run.steps)
    )


def test_carrying_moves_the_dense_output_along_the_motion(model):
    run, frames = runner(model, Skip(4, carried=True)), video(3, moving=True)
    outputs = [run(frame) for frame in frames]
    tokens = dense(model, frames[0]).unflatten(1, GRID)
    expected = carry(tokens, Motion(GRID)(frames[0], frames[2])).flatten(1, 2)
    assert torch.allclose(outputs[2], expected, atol=1e-5)


def test_a_video_begins_anew(model):
    run, frames = runner(model, Skip(5)), video(3)
    for frame in frames:
        run(frame)
    run.start()
    assert run.steps == []
    assert torch.allclose(run(frames[1]), dense(model, frames[1]), atol=1e-5)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_low_resolution_keeps_to_its_share(model, share):
    run = runner(model, LowResolution(share))
    outputs = [run(frame) for frame in video(3)]
    assert outputs[0].shape == (1, GRID[0] * GRID[1], 24)
    assert share / 3 < spent(run) <= share
    assert [step.first for step in run.steps] == [True, False, False]


def test_full_resolution_is_the_dense_model(model):
    run, frame = runner(model, LowResolution(1.0)), video(1)[0]
    assert torch.allclose(run(frame), dense(model, frame), atol=1e-4)


def test_too_low_a_resolution_is_refused(model):
    with pytest.raises(ValueError, match="leaves no patch"):
        runner(model, LowResolution(0.001))


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.4])
def test_auto_keeps_to_its_share_in_the_mean(model, moving, share):
    run = runner(model, Auto(share))
    for frame in video(60, moving):
        assert run(frame).isfinite().all()
    assert run.steps[0].first
    assert abs(spent(run) - share) < 0.1 * share + 1 / 60
    assert (
        {"dense", "gated"} <= {step.action for step in run.steps} <= {"dense", "gated", "carried"}
    )


def test_auto_computes_what_moves_where_the_rest_is_still(model):
    """The tokens of the square are fresher than those that a held output has."""
    auto, held = runner(model, Auto(0.3)), runner(model, Skip(20))
    worse = 0
    for t, frame in enumerate(video(18)):
        a, b, truth = auto(frame), held(frame), dense(model, frame)
        worse += t > 2 and not auto.steps[t].first and (a - truth).norm() > (b - truth).norm()
        if auto.steps[t].action == "gated":
            moved = (frame - video(18)[t - 1]).abs().sum(dim=1)
            moved = F.max_pool2d(moved, PATCH)[0] > 0  # where the square is, and where it was
            assert (auto.updated[0] & moved).sum() > auto.updated[0].sum() / 2
    assert worse <= 3


def test_a_still_video_stays_as_it_is(model):
    run, frame = runner(model, Auto(0.3)), video(1)[0]
    for _ in range(6):
        assert torch.allclose(run(frame), dense(model, frame), atol=1e-4)


def test_dense_frames_come_evenly(model):
    run = runner(model, Auto(0.2))
    for frame in video(25):
        run(frame)
    assert [t for t, step in enumerate(run.steps) if step.first] == [0, 7, 14, 21]


def with_a_cut(at):
    dark = [0.05 * frame for frame in video(at)]
    return dark + video(40)


def test_a_dense_frame_comes_at_a_cut_and_is_paid_back(model):
    run = runner(model, Auto(0.2))
    for frame in with_a_cut(8):
        run(frame)
    dense_frames = [t for t, step in enumerate(run.steps) if step.first]
    assert dense_frames[:3] == [0, 7, 8]
    assert dense_frames[3] > 16
    assert abs(spent(run) - 0.2) < 0.03


@pytest.mark.parametrize("frames", [video(30), video(30, moving=True), with_a_cut(8)])
def test_no_frame_costs_more_than_the_worst(model, frames):
    run, share, worst = runner(model, Auto(0.2, worst=0.4)), [], []
    for frame in frames:
        run(frame)
        step = run.steps[-1]
        share.append(step.operations / step.dense_operations)
        worst.append(run.updated.float().mean().item())
    assert share[0] == 1
    assert max(worst[1:]) <= 0.4
    assert max(share[1:]) < 0.45  # the class token is computed on every frame
    assert abs(sum(share) / len(share) - 0.2) < 0.03


def test_below_the_worst_share_all_is_computed_anew_soon_after_a_cut(model):
    run = runner(model, Auto(0.2, worst=0.4))
    seen = []
    for frame in with_a_cut(8)[:11]:
        run(frame)
        seen.append(run.updated)
    assert torch.stack(seen[8:]).any(dim=0).all()


@pytest.mark.parametrize("plan", [Skip(2), Skip(2, carried=True), LowResolution(0.5), Auto(0.3)])
def test_the_model_is_left_as_it_was(model, plan):
    run = runner(model, plan)
    frame = video(1)[0]
    before = frame.clone()
    seen = []
    run.watch = seen.append
    run(frame)
    assert torch.equal(frame, before)
    assert not eventful_blocks(model)
    assert seen == [1]
    assert run.steps[0].milliseconds > 0


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("plan", [Skip(3), Skip(3, carried=True), LowResolution(0.5), Auto(0.3)])
def test_nothing_of_the_caller_is_kept_and_nothing_kept_is_handed_out(model, plan, moving):
    """One buffer for all frames, as cameras give, and outputs that are overwritten."""
    run, twin = runner(model, plan), runner(model, plan)
    buffer = torch.empty(1, 3, *SIZE)
    for frame in video(8, moving):
        output = run(buffer.copy_(frame))
        assert torch.equal(output, twin(frame.clone()))
        with torch.inference_mode():
            output.fill_(torch.nan)


@pytest.mark.parametrize("text", ["skip:5", "carry:3", "lowres:0.25", "auto:0.2", "auto:0.2/0.5"])
def test_plans_have_a_text(text):
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("skip:0", "a whole number K of at least 1, got 0"),
        ("skip:1.5", "'skip:1.5' is not understood .* K of at least 1, got '1.5'.; write skip:5"),
        ("lowres:much", "above 0 and at most 1, got 'much'"),
        ("carry:", "write carry:5"),
        ("lowres:0", "a share F above 0 and at most 1, got 0"),
        ("auto:2", "at most 1, got 2"),
        ("auto:0.2/0.1", "a worst share W from F = 0.2 to 1, got 0.1"),
        ("auto:0.2/", "write auto:0.2"),
        ("auto:nan", "at most 1, got nan"),
    ],
)
def test_plans_that_make_no_sense_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_runners_say_what_they_did_and_where(model):
    run, frames = runner(model, Skip(2, carried=True)), video(2)
    run(frames[0])
    assert run.steps[0].action == "dense"
    assert run.updated.all()
    run(frames[1])
    assert run.steps[1].action == "carried"
    assert not run.updated.any()
    assert run.updated.shape == (1, *run.grid)


def test_a_phase_is_part_of_the_text():
    assert parse("skip:5+2") == Skip(5, phase=2)
    assert parse("carry:5+2") == Skip(5, carried=True, phase=2)
    with pytest.raises(ValueError, match=r"needs a phase P of 0 to 2, got 3"):
        parse("skip:3+3")
