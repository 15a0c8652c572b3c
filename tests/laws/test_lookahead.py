"""The laws of frames that are seen from both sides, for every family."""

import copy

import numpy as np
import pytest
import torch

import eventful
from eventful.stream import schedule
from tests.laws.frames import (
    GRID,
    PATCH,
    NoMotion,
    Script,
    WholePatches,
    Written,
    flow_is,
    frame_stream,
    pixels,
    shifted,
    still,
)
from tests.zoo import build, clip, relative

DOUBLE = torch.float64
PATCHES = GRID[0] * GRID[1]


@pytest.fixture(autouse=True)
def _no_motion(monkeypatch):
    flow_is(monkeypatch, NoMotion)


def as_tokens(output):
    """What a block gives, as (batch, tokens, dim)."""
    return output.flatten(1, 2) if output.ndim == 4 else output


def of_last_block(model, run):
    """What the last block gives while `run` runs."""
    found = []
    handle = model.blocks[-1].register_forward_hook(lambda _, __, y: found.append(as_tokens(y)))
    run()
    handle.remove()
    return found[0].clone()


@torch.inference_mode()
def dense_tap(name, frame):
    model = build(name, DOUBLE)
    return of_last_block(model, lambda: model.forward_features(frame))


@torch.inference_mode()
def rest(name, frame, tokens):
    """What the original model makes of a frame whose last block gives these tokens."""
    model = build(name, DOUBLE)
    model.blocks[-1].register_forward_hook(lambda _, __, y: tokens.view_as(y))
    return model.forward_features(frame)


def missed(picture, expected):
    """Root mean square of what is missed of each patch's pixels, channels summed."""
    wrong = np.square(np.float64(picture) - np.float64(expected)).sum(axis=0)
    cells = wrong.reshape(GRID[0], PATCH, GRID[1], PATCH)
    return torch.from_numpy(np.sqrt(cells.mean(axis=(1, 3)))).flatten()


def share_of_before(before, after, age, ahead):
    one, other = 1 / (age * (before + 0.03)), 1 / (ahead * (after + 0.03))
    return one / (one + other)


def blend(before, after, w, age, ahead):
    """Patches (1, patches, dim) by their own shares, the tokens in front by the distances."""
    front = before.shape[1] - PATCHES
    shares = torch.cat([torch.full((front,), ahead / (age + ahead), dtype=DOUBLE), w.double()])
    return shares[:, None] * before + (1 - shares)[:, None] * after


def planned(monkeypatch, text):
    monkeypatch.setattr(schedule.Schedule, "_plan", lambda self: Script(text))


def test_frames_between_are_those_of_the_equations(family, monkeypatch):
    """Carried and partial ones, against the original's modules over the nearer side's keys."""
    planned(monkeypatch, "c p3 p4 c d p2 d c")
    video = clip(9, batch=1, dtype=DOUBLE)
    stream = frame_stream(family, dtype=DOUBLE)
    outputs = []
    for output in stream.run(video, lookahead=6):
        outputs.append((output, stream.computed[0], stream.stats.rows[0]))
    kinds = [row.kind for _, _, row in outputs]
    assert kinds == [
        "dense",
        "carried",
        "partial",
        "partial",
        "carried",
        "dense",
        "partial",
        "dense",
        "carried",
    ]
    pictures = [pixels(frame[0]) for frame in video]
    sides = {}
    for number in (0, 5, 7):
        written = Written(family, 1)
        everything = torch.ones(1, len(outputs[0][1]), dtype=torch.bool)
        written(video[number], everything, monkeypatch)
        sides[number] = dense_tap(family, video[number]), written
        assert outputs[number][1].all()
    for number, (output, mask, row) in enumerate(outputs[:7]):
        if number in sides:
            assert relative(output, rest(family, video[number], sides[number][0])) < 1e-12
            continue
        assert row.reason == "from both sides"
        a, b = (0, 5) if number < 5 else (5, 7)
        age, ahead = number - a, b - number
        one, other = (missed(pictures[number], pictures[side]) for side in (a, b))
        w = share_of_before(one, other, age, ahead)
        shown = blend(sides[a][0], sides[b][0], w, age, ahead)
        if row.kind == "partial":
            near = copy.copy(sides[a if age <= ahead else b][1])
            near.kept = dict(near.kept)
            fresh = of_last_block(
                near.model,
                lambda near=near, number=number, mask=mask: near(
                    video[number], mask[None], monkeypatch
                ),
            )
            shown = torch.where(mask[:, None], fresh, shown)
            front = len(mask) - PATCHES
            assert mask[:front].all()
            assert int(mask[front:].sum()) == row.tokens - front
        assert relative(output, rest(family, video[number], shown)) < 1e-7  # float32 pictures
    output, _, row = outputs[8]
    assert (row.kind, row.reason) == ("carried", "from one side")
    assert relative(output, rest(family, video[8], sides[7][0])) < 1e-12


def test_the_patches_recomputed_are_those_that_neither_side_explains(monkeypatch):
    planned(monkeypatch, "p1 d")
    video = still(3, batch=1)
    video[1][:, :, 4:8, 8:12] += 2  # patch 7 of the frame between, and of no side
    video[1][:, :, 0:4, 0:4] += 1  # patch 0: one side explains it
    video[2][:, :, 0:4, 0:4] += 1
    stream = frame_stream("no_class_token")
    masks = [stream.computed[0] for _ in stream.run(video, lookahead=2)]
    assert masks[1].nonzero().flatten().tolist() == [7]


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (-1, 1)])
def test_a_shift_by_whole_patches_moves_both_sides_exactly(family, shift, monkeypatch):
    flow_is(monkeypatch, WholePatches)
    planned(monkeypatch, "c d")
    back = tuple(-step for step in shift)
    first = still(1, batch=1, dtype=DOUBLE)[0]
    video = [first]
    for _ in range(2):
        video.append(shifted(video[-1][0], shift, PATCH)[None])
    pictures = [pixels(frame[0]) for frame in video]
    stream = frame_stream(family, dtype=DOUBLE)
    _, output, _ = stream.run(video, lookahead=2)
    before, after = (dense_tap(family, video[number]) for number in (0, 2))

    def moved(tokens, way):
        patches = tokens[0, -PATCHES:].unflatten(0, GRID).permute(2, 0, 1)
        patches = shifted(patches, way).permute(1, 2, 0).flatten(0, 1)
        return torch.cat([tokens[:, :-PATCHES], patches[None]], dim=1)

    one = missed(pictures[1], shifted(pictures[0], shift, PATCH))
    assert one.max() == 0
    other = missed(pictures[1], shifted(pictures[2], back, PATCH))
    w = share_of_before(one, other, 1, 1)
    expected = blend(moved(before, shift), moved(after, back), w, 1, 1)
    assert relative(output, rest(family, video[1], expected)) < 5e-6  # float32 pictures


@pytest.mark.parametrize("policy", ["auto:0.3", "error:0.1", "time:0.3", "carry:3"])
def test_a_still_video_stays_what_it_was(family, policy):
    stream = frame_stream(family, eventful.parse(policy))
    first, *others = stream.run(still(8, batch=1), lookahead=3)
    for output in others:
        assert relative(output, first) < 2e-5


@pytest.mark.parametrize("policy", ["auto:0.3", "auto:0.3/0.6", "error:0.1", "carry:3", "top:3"])
def test_without_lookahead_a_run_is_the_stream_itself(policy):
    one, other = (frame_stream("registers", eventful.parse(policy)) for _ in range(2))
    video = clip(9)
    for output, frame in zip(one.run(video), video, strict=True):
        assert torch.equal(output, other(frame))
        assert one.stats.rows == other.stats.rows
