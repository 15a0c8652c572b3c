"""The laws of dense, partial, carried and held frames, for every family."""

import pytest
import torch

import eventful
from tests.laws.frames import (
    GRID,
    PATCH,
    NoMotion,
    WholePatches,
    Written,
    flow_is,
    frame_stream,
    held_bytes,
    kinds,
    scripted,
    shifted,
    still,
    tokens_of,
)
from tests.zoo import build, clip, relative, same

DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def _no_motion(monkeypatch):
    flow_is(monkeypatch, NoMotion)


def dense(name, frame, dtype=DOUBLE):
    with torch.inference_mode():
        return build(name, dtype).forward_features(frame)


@pytest.mark.parametrize("policy", ["auto:0.5", "auto:0.5/0.7", "carry:3", "skip:3"])
def test_the_first_frame_is_dense(family, policy):
    frame = clip(1, dtype=DOUBLE)[0]
    stream = frame_stream(family, eventful.parse(policy), DOUBLE)
    assert relative(stream(frame), dense(family, frame)) < 1e-12
    assert kinds(stream) == ["dense", "dense"]


def test_a_partial_frame_of_all_tokens_is_dense(family):
    first, *video = clip(4, dtype=DOUBLE)
    stream = frame_stream(family, dtype=DOUBLE)
    scripted(stream, first, "p15 p15 p15", "p15 p15 p15")
    for frame in video:
        assert relative(stream(frame), dense(family, frame)) < 1e-12
        assert kinds(stream) == ["partial", "partial"]


def test_partial_frames_are_those_of_the_equations(family, monkeypatch):
    """Rows of their own kinds in one pass: against the original's modules over kept keys."""
    first, *video = clip(9, dtype=DOUBLE)
    stream, written = frame_stream(family, dtype=DOUBLE), Written(family, 2)
    texts = "p3 p5 c p1 d p4 h p2", "p7 c p3 h p2 p2 d p15"
    shown = tokens_of(scripted(stream, first, *texts)).clone()
    prefix = shown.shape[1] - 15
    known = tokens_of(written(first, torch.ones(2, shown.shape[1], dtype=torch.bool), monkeypatch))
    assert relative(shown, known) < 1e-12
    for frame in video:
        output = tokens_of(stream(frame))
        mask = torch.zeros(shown.shape[:2], dtype=torch.bool)
        for row, decision in enumerate(stream.seen[-1]):
            if decision.kind == "dense":
                mask[row] = True
            if decision.kind == "partial":
                mask[row, :prefix] = True
                mask[row, decision.patches + prefix] = True
                assert int(mask[row].sum()) == stream.stats.rows[row].tokens
        fresh = tokens_of(written(frame, mask, monkeypatch))
        shown = torch.where(mask[..., None], fresh, shown)  # nothing moves here
        assert relative(output, shown) < 1e-11
    assert stream.stats.kinds == {"dense": 4, "partial": 10, "carried": 2, "held": 2}


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (-1, 2), (0, -1)])
def test_a_shift_by_whole_patches_moves_the_taps_exactly(family, shift, monkeypatch):
    flow_is(monkeypatch, WholePatches)
    frame = still(1, dtype=DOUBLE)[0]
    moved = torch.stack([shifted(row, shift, PATCH) for row in frame])
    stream = frame_stream(family, dtype=DOUBLE)
    before = tokens_of(scripted(stream, frame, "c c", "c c"))
    prefix = before.shape[1] - 15
    after = tokens_of(stream(moved))
    patches = before[:, prefix:].unflatten(1, GRID)
    expected = torch.stack([shifted(row.permute(2, 0, 1), shift) for row in patches])
    expected = expected.permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(after[:, prefix:], expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(after[:, :prefix], before[:, :prefix], rtol=0, atol=1e-13)
    assert kinds(stream) == ["carried", "carried"]
    assert relative(tokens_of(stream(frame)), before) < 1e-13  # and back


def test_recomputed_tokens_move_too(monkeypatch):
    flow_is(monkeypatch, WholePatches)
    frame = still(1, dtype=DOUBLE)[0]
    changed = frame.clone()
    changed[:, :, 4:8, 8:12] += 2  # patch 7
    stream = frame_stream("no_class_token", dtype=DOUBLE)
    scripted(stream, frame, "p1 c", "p1 c")
    recomputed = stream(changed).unflatten(1, GRID)
    assert [d.patches.tolist() for d in stream.seen[-1]] == [[7], [7]]
    moved = torch.stack([shifted(row, (0, 1), PATCH) for row in changed])
    expected = torch.stack([shifted(row.permute(2, 0, 1), (0, 1)) for row in recomputed])
    output = stream(moved).unflatten(1, GRID).permute(0, 3, 1, 2)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-13)


POLICIES = ["auto:0.3", "auto:0.3/0.6", "error:0.1", "time:0.3", "latency:40", "carry:3", "skip:3"]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_still_video_stays_what_it_was(family, policy):
    stream = frame_stream(family, eventful.parse(policy))
    first, *video = still(8)
    expected = stream(first).clone()
    for frame in video:
        assert relative(stream(frame), expected) < 2e-5


def drifting(frames, dtype=DOUBLE):
    """Three rows: one still, one that changes, one with a cut to something else at frame 4."""
    video = clip(frames, batch=3, dtype=dtype)
    video[:, 0] = video[0, 0]
    video[4:, 2] = -video[4:, 2]
    return video


@pytest.mark.parametrize("name", ["plain", "dinov3", "sam", "vitdet", "grouped"])
@pytest.mark.parametrize("policy", POLICIES)
def test_rows_do_not_see_each_other(name, policy, monkeypatch):
    """Each decides and gives what it does alone; one is reset, one shows a cut, one is held."""
    flow_is(monkeypatch, WholePatches)
    cuts = eventful.SceneCuts(level=0.1, jump=3.0)
    options = {"dtype": DOUBLE, "scene_cuts": cuts}
    if policy.startswith("latency"):  # reads a clock, which no two streams share
        monkeypatch.setattr(eventful.stream.flat.Flat, "clock", lambda self, ms: None)
    together = frame_stream(name, eventful.parse(policy), **options)
    alone = [frame_stream(name, eventful.parse(policy), **options) for _ in range(3)]
    for t, frame in enumerate(drifting(9)):
        if t == 6:
            together.reset([1]), alone[1].reset()
        output = together(frame)
        for row, stream in enumerate(alone):
            if t == 6 and row == 1:
                stream._intake.pending = [0], "requested"  # a row, as in the other stream
            single = stream(frame[row : row + 1])
            if policy.startswith("latency"):
                continue  # rows share a latency
            assert relative(output[row : row + 1], single) < 1e-10
            ours, theirs = together.stats.rows[row], stream.stats.rows[0]
            assert (ours.kind, ours.reason, ours.tokens) == (
                theirs.kind,
                theirs.reason,
                theirs.tokens,
            )
    assert together.stats.flush_reasons["requested"] == 1


def test_kinds_of_all_sorts_in_one_pass_are_those_alone(family):
    texts = ("d p3 c h", "p4 d h c", "c h d p2", "h c p5 d")
    video = clip(5, batch=4, dtype=DOUBLE)
    together = frame_stream(family, dtype=DOUBLE)
    scripted(together, video[0], *texts)
    alone = [frame_stream(family, dtype=DOUBLE) for _ in texts]
    for row, stream in enumerate(alone):
        scripted(stream, video[0][row : row + 1], texts[row])
    for frame in video[1:]:
        output = together(frame)
        assert set(kinds(together)) == {"dense", "partial", "carried", "held"}
        for row, stream in enumerate(alone):
            assert relative(output[row : row + 1], stream(frame[row : row + 1])) < 1e-11


def test_inputs_are_left_alone_and_outputs_never_alias_state(family):
    texts = ("p3 c h h d c", "c p2 h c p4 h")
    stream, twin = frame_stream(family), frame_stream(family)
    video = clip(7)
    video[3] = video[2]
    for t, frame in enumerate(video):
        given, other = frame.clone(), frame.clone()
        if t == 0:
            output, expected = scripted(stream, given, *texts), scripted(twin, other, *texts)
        else:
            output, expected = stream(given), twin(other)
        assert torch.equal(given, frame)
        assert torch.equal(output, expected)
        with torch.inference_mode():  # the holder of either may do so
            output.fill_(torch.nan)
            given.fill_(torch.nan)


@pytest.mark.parametrize("policy", ["auto:0.5", "carry:2", "skip:2"])
def test_state_is_all_that_is_held_and_comes_back_to_the_same(family, policy):
    """From dense frame to dense frame memory is the same; it is what the tensors sum up to."""
    stream = frame_stream(family, eventful.parse(policy))
    round_ = "p3 p2 c h d"
    first, *video = clip(11)
    if policy.startswith("auto"):
        scripted(stream, first, round_ + " " + round_, round_ + " " + round_)
    else:
        stream(first)
    sizes = []
    for frame in video:
        stream(frame)
        sizes.append(stream.stats.state_bytes)
        assert stream.stats.state_bytes == held_bytes(stream)
    period = 5 if policy.startswith("auto") else 2
    assert sizes[period:] == sizes[:-period]


@pytest.mark.parametrize("through", ["memory", "file"])
@pytest.mark.parametrize("policy", [*POLICIES, "auto:0.3333333333333333"])
@pytest.mark.parametrize("name", ["plain", "sam"])
def test_a_snapshot_goes_on_with_the_same(name, policy, through, tmp_path, monkeypatch):
    flow_is(monkeypatch, WholePatches)
    monkeypatch.setattr(eventful.stream.flat.Flat, "clock", lambda self, ms: None)
    cuts = eventful.SceneCuts(level=0.1, jump=3.0)
    make = lambda policy: frame_stream(name, eventful.parse(policy), scene_cuts=cuts)  # noqa: E731
    video = drifting(12, torch.float32)
    for at in (1, 3, 7):
        stream, other = make(policy), make("skip:2")
        for frame in video[:at]:
            stream(frame)
        saved = stream.snapshot(tmp_path / "s" if through == "file" else None)
        kept = stream.snapshot()
        other.load_snapshot(tmp_path / "s" if through == "file" else saved)
        assert other.policy == stream.policy == eventful.parse(policy)
        for frame in video[at:]:
            assert torch.equal(stream(frame), other(frame))
            assert stream.stats.rows == other.stats.rows
            assert stream.stats.operations == other.stats.operations
            assert stream.stats.state_bytes == other.stats.state_bytes
        assert stream.stats.kinds == other.stats.kinds
        assert stream.stats.total_operations == other.stats.total_operations
        assert same(saved, kept)  # a copy both ways
