"""The laws, on tiny models of every family that other libraries bring."""

import copy

import pytest
import torch

import eventful
from eventful.block.block import eventful_blocks
from tests.families.cases import CASES
from tests.families.zoo import build, dense, inputs, stream_of, tensors, video
from tests.laws.frames import NoMotion, WholePatches, flow_is, kinds, scripted, shifted
from tests.zoo import relative, same

DOUBLE = torch.float64
PICTURES = [name for name, case in CASES.items() if case.patch]
TOP = eventful.TopR(4)


@pytest.fixture(autouse=True)
def _no_motion(monkeypatch):
    flow_is(monkeypatch, NoMotion)


@pytest.fixture(params=CASES)
def family(request):
    return request.param


@pytest.fixture(params=PICTURES)
def pictured(request):
    return request.param


def off(ours, theirs):
    """The largest relative error of a list of tensors."""
    return max(relative(a, b) for a, b in zip(ours, theirs, strict=True))


def double(name):
    """The largest error in float64; some compute norms or softmax in float32 whatever comes in."""
    coarse = ("AIMv2 vision", "InternVL vision", "GOT-OCR2 vision")
    return 2e-5 if name in coarse else 1e-11


def run(stream, name, frame):
    return tensors(stream(frame, **inputs(name, len(frame))))


def test_keep_all_is_the_dense_model_and_the_expected_blocks_convert(family):
    model = build(family)
    stream = stream_of(family, model, eventful.KeepAll())
    assert len(stream._bound.blocks) == CASES[family].converted
    for frame in video(family, 3):
        assert off(run(stream, family, frame), dense(family, model, frame)) < CASES[family].single


def test_the_first_frame_after_a_reset_is_the_dense_model(family):
    model = build(family)
    stream = stream_of(family, model, TOP)
    *before, last = video(family, 3)
    for frame in before:
        run(stream, family, frame)
    expected = dense(family, model, last)
    assert off(run(stream, family, last), expected) > 1e-3
    stream.reset()
    assert off(run(stream, family, last), expected) < CASES[family].single


def test_keep_all_in_bfloat16_stays_as_close_as_rounding_takes_the_dense_model(family):
    model, (frame, *_) = build(family), video(family, 1)
    exact = dense(family, model, frame)
    half = build(family, torch.bfloat16)
    rounded = dense(family, half, frame.bfloat16())
    stream = stream_of(family, half, eventful.KeepAll())
    ours = run(stream, family, frame.bfloat16())
    assert off(ours, exact) < 2 * off(rounded, exact) + 1e-3


def test_exact_attention_agrees_with_the_tokenwise_variant(family):
    model = build(family, DOUBLE)
    clip = video(family, 4, dtype=DOUBLE)
    streams = []
    for attention in ("incremental", "dense"):
        where = CASES[family].where
        converted = eventful.convert(copy.deepcopy(model), TOP, attention=attention, where=where)
        method = CASES[family].method
        streams.append(eventful.Stream(converted, scene_cuts=None, method=method))
    for frame in clip:
        ours, theirs = (run(stream, family, frame) for stream in streams)
        assert off(ours, theirs) < double(family)


@pytest.mark.parametrize("policy", ["top:4", "threshold:1.5", "skip:2"])
def test_a_still_video_stays_still(family, policy):
    if policy == "skip:2" and family == "SAM 2 Hiera":
        pytest.skip("its blocks are of several shapes")
    stream = stream_of(family, build(family), eventful.parse(policy))
    (frame, *_) = video(family, 1)
    first = run(stream, family, frame)
    for _ in range(3):
        assert off(run(stream, family, frame), first) < CASES[family].single


def test_rows_do_not_see_each_other(family):
    if family in ("CLIP", "SigLIP", "LLaVA"):
        pytest.skip("rows of its output are not those of the frame; those of its taps are below")
    model, clip = build(family, DOUBLE), video(family, 3, dtype=DOUBLE)
    together = stream_of(family, model, TOP)
    alone = [stream_of(family, model, TOP) for _ in range(2)]
    for frame in clip:
        output = run(together, family, frame)
        for row, stream in enumerate(alone):
            for ours, theirs in zip(output, run(stream, family, frame[row : row + 1]), strict=True):
                if ours.ndim and len(ours) == len(frame) and len(theirs) == 1:
                    assert relative(ours[row : row + 1], theirs) < double(family)


def test_restore_brings_back_the_model_and_copies_are_converted_too(family):
    model = build(family)
    (frame, *_) = video(family, 1)
    keys, blocks = list(model.state_dict()), dict(model.named_modules())
    expected = dense(family, model, frame)
    eventful.convert(model, TOP, where=CASES[family].where)
    assert list(model.state_dict()) == keys
    assert off(dense(family, model, frame), expected) == 0
    other = copy.deepcopy(model)
    assert len(eventful_blocks(other)) == CASES[family].converted
    stream = eventful.Stream(other, scene_cuts=None, method=CASES[family].method)
    assert off(run(stream, family, frame), expected) < CASES[family].single
    assert eventful.restore(model) is model
    assert all(now is blocks[name] for name, now in model.named_modules())
    assert off(dense(family, model, frame), expected) == 0


@pytest.mark.parametrize("policy", ["top:4", "carry:3", "auto:0.5"])
def test_a_snapshot_goes_on_with_the_same(family, policy):
    if policy != "top:4" and not CASES[family].patch:
        pytest.skip("its frames are no pictures")
    model, clip = build(family), video(family, 5)
    stream, other = (stream_of(family, model, eventful.parse(policy)) for _ in range(2))
    for frame in clip[:3]:
        run(stream, family, frame)
    other.load_snapshot(stream.snapshot())
    for frame in clip[3:]:
        assert same(run(stream, family, frame), run(other, family, frame))
        assert stream.stats.operations == other.stats.operations


def test_partial_frames_of_all_patches_and_dense_frames_are_dense(pictured):
    model = build(pictured, DOUBLE)
    stream = stream_of(pictured, model, eventful.Auto(share=0.5))
    first, *clip = video(pictured, 4, dtype=DOUBLE)
    script(stream, pictured, first, "p99 d p99", "d p99 p99")
    for frame in clip:
        assert off(run(stream, pictured, frame), dense(pictured, model, frame)) < double(pictured)


def script(stream, name, frame, *texts):
    """Let rows follow written kinds; 99 patches stand for all."""
    case = CASES[name]
    patches = (case.size[-2] // case.patch) * (case.size[-1] // case.patch)
    filled = [text.replace("99", str(patches)) for text in texts]
    given = inputs(name, len(frame))
    return tensors(scripted(_With(stream, given), frame, *filled))


class _With:
    """A stream whose further inputs stay the same."""

    def __init__(self, stream, given):
        object.__setattr__(self, "stream", stream)
        object.__setattr__(self, "given", given)

    def __call__(self, frame):
        return self.stream(frame, **self.given)

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def __setattr__(self, name, value):
        setattr(self.stream, name, value)


def test_all_kinds_of_frames_keep_a_still_video_still(pictured):
    stream = stream_of(pictured, build(pictured, DOUBLE), eventful.Auto(share=0.5))
    (frame, *_) = video(pictured, 1, dtype=DOUBLE)
    first = script(stream, pictured, frame, "c p3 h d c p2 c", "p2 c h p5 d p3 h")
    for _ in range(7):
        assert off(run(stream, pictured, frame), first) < double(pictured)
    assert sum(stream.stats.kinds[kind] for kind in ("dense", "partial", "carried", "held")) == 16


def test_kinds_of_all_sorts_in_one_pass_are_those_alone(pictured):
    model, clip = build(pictured, DOUBLE), video(pictured, 5, dtype=DOUBLE)
    texts = ("d p3 c h", "p4 d h c")
    together = stream_of(pictured, model, eventful.Auto(share=0.5))
    script(together, pictured, clip[0], *texts)
    alone = [stream_of(pictured, model, eventful.Auto(share=0.5)) for _ in texts]
    for row, stream in enumerate(alone):
        script(stream, pictured, clip[0][row : row + 1], texts[row])
    for frame in clip[1:]:
        run(together, pictured, frame)
        for row, stream in enumerate(alone):
            run(stream, pictured, frame[row : row + 1])
            taps, own = (s._engine._taps.shown for s in (together, stream))
            assert all(relative(taps[name][row], own[name][0]) < double(pictured) for name in own)
            assert kinds(together)[row] == kinds(stream)[0]


@pytest.mark.parametrize("shift", [(0, -1), (1, 0)])
def test_a_shift_by_whole_patches_moves_the_taps_exactly(pictured, shift, monkeypatch):
    flow_is(monkeypatch, WholePatches)
    patch = CASES[pictured].patch
    shift = shift if patch == 4 else (0, 1)  # what `WholePatches` looks for
    stream = stream_of(pictured, build(pictured, DOUBLE), eventful.Auto(share=0.5))
    (frame, *_) = video(pictured, 1, dtype=DOUBLE)
    script(stream, pictured, frame, "c", "c")
    taps = stream._engine._taps
    before = {name: torch.cat(rows) for name, rows in taps.shown.items()}
    moved = torch.stack([shifted(row, shift, patch) for row in frame])
    run(stream, pictured, moved)
    places = slice(taps.prefix, before[next(iter(before))].shape[1] - taps.suffix)
    for name, whole in before.items():
        after = torch.cat(taps.shown[name])
        patches = whole[:, places].unflatten(1, taps.grid).permute(0, 3, 1, 2)
        expected = torch.stack([shifted(row, shift) for row in patches]).flatten(2).mT
        torch.testing.assert_close(after[:, places], expected, rtol=0, atol=1e-12)
        for special in (slice(0, places.start), slice(places.stop, None)):
            torch.testing.assert_close(after[:, special], whole[:, special], rtol=0, atol=1e-12)


def test_auto_computes_less_and_counts_it(pictured):
    stream = stream_of(pictured, build(pictured), eventful.Auto(share=0.6))
    for frame in video(pictured, 6):
        run(stream, pictured, frame)
    assert set(stream.stats.kinds) - {"dense"}
    assert stream.stats.total_operations < stream.stats.total_dense_operations
