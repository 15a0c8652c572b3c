"""Streams of one model in passes that they share, against the same streams run one by one."""

import pytest
import torch

import eventful
from eventful.block.bindings import binding
from eventful.stream.together import Together
from tests.laws.frames import (
    COSTS,
    WINDOWED,
    NoMotion,
    WholePatches,
    flow_is,
    kinds,
    pixels,
    scripted,
)
from tests.zoo import build, clip, relative

DOUBLE = torch.float64
SCRIPTS = (
    "p3 p5 c  p1 d  p4 h p2 p15 c  p2 p6 p15",
    "p7 c  p3 h  p2 p2 d p15 p15 h p4 c  p15",
    "c  p2 p2 d  h  p1 p9 c p15 p3 p1 h  p15",
    "h  h  p4 p4 p3 c  p1 d p15 p1 c  p1 p15",
)


@pytest.fixture(autouse=True)
def _patches_move(monkeypatch):
    flow_is(monkeypatch, WholePatches)


def streams_of(model, count, **options):
    options = {"scene_cuts": None, "method": "forward_features", "pixels": pixels} | options
    return [eventful.Stream(model, costs=COSTS, **options) for _ in range(count)]


def converted(name, dtype=DOUBLE, policy=None):
    return eventful.convert(build(name, dtype), policy or eventful.Auto(share=0.5))


def videos(count, frames, dtype=DOUBLE):
    """A video each, (frames, 1, 3, height, width)."""
    return [clip(frames, 1, dtype, seed=number) for number in range(count)]


def passes_of(streams):
    """The number of rows of each pass that any of the streams' models takes."""
    found = []
    for stream in streams:

        def counted(x, inputs, run=stream._bound.run):
            found.append(len(x))
            return run(x, inputs)

        stream._bound.run = counted
    return found


def remembered(stream):
    """Keys and values by block, and the taps."""
    states = {name: binding(block).state for name, block in stream._bound.blocks.items()}
    kept = {f"{n}.{k}": x for n, s in states.items() if s.kv for k, x in s.kv._asdict().items()}
    return kept | stream._engine.taps.tensors()


def assert_alike(stream, own):
    assert stream.stats.rows == own.stats.rows
    assert torch.equal(stream.computed, own.computed)
    ours, theirs = remembered(stream), remembered(own)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.shape == theirs[name].shape
        assert tensor.dtype == theirs[name].dtype
        assert relative(tensor, theirs[name]) < 1e-10, name


def hand_over(streams, frames):
    passes = Together()
    tickets = [stream.ask(passes, x) for stream, x in zip(streams, frames, strict=True)]
    waited = [ticket.waits for ticket in tickets]
    passes.run()
    return [ticket.output for ticket in tickets], waited


@pytest.mark.parametrize("state_dtype", [None, torch.float16], ids=str)
def test_streams_give_what_each_gives_alone(family, state_dtype):
    # alone, a frame of all tokens reads keys and values before they are rounded
    texts = [text.replace("p15", "p15" if state_dtype is None else "p14") for text in SCRIPTS]
    model, count, written = converted(family), len(texts), [text.split() for text in texts]
    joined, alone = (streams_of(model, count, state_dtype=state_dtype) for _ in range(2))
    first, *rest = zip(*videos(count, 14), strict=True)
    for streams in (joined, alone):
        for stream, frame, text in zip(streams, first, texts, strict=True):
            scripted(stream, frame, text)
    sizes = passes_of(joined)
    for t, frames in enumerate(rest):
        sizes.clear()
        outputs, waited = hand_over(joined, frames)
        now = [text[t][0] for text in written]
        assert waited == [kind in "pc" for kind in now]  # a held frame gives the last output
        assert sorted(sizes) == [1] * now.count("d") + [n for n in [waited.count(True)] if n]
        for stream, own, output, frame in zip(joined, alone, outputs, frames, strict=True):
            expected = own(frame)
            assert output.shape == expected.shape
            assert relative(output, expected) < 1e-10
            assert_alike(stream, own)
    assert {kind for stream in joined for kind in stream.stats.kinds} == {
        *("dense", "partial", "carried", "held")
    }


@pytest.mark.parametrize("name", ["plain", "dinov3", *WINDOWED[-2:]])
@pytest.mark.parametrize("policy", ["auto:0.4", "auto:0.4/0.7", "error:0.9", "carry:3", "skip:3"])
def test_policies_decide_as_they_do_alone(name, policy, monkeypatch):
    flow_is(monkeypatch, NoMotion)
    model = converted(name, policy=eventful.parse(policy))
    joined, alone = (streams_of(model, 3) for _ in range(2))
    for frames in zip(*videos(3, 12), strict=True):
        outputs, _ = hand_over(joined, frames)
        for stream, own, output, frame in zip(joined, alone, outputs, frames, strict=True):
            assert relative(output, own(frame)) < 1e-10
            assert kinds(stream) == kinds(own)
            assert_alike(stream, own)
    assert len(joined[0].stats.kinds) > 1


@pytest.mark.parametrize("name", WINDOWED)
def test_no_stream_writes_where_another_reads(name):
    """One stream computes tokens; beside it the other's keys and values stay to the bit."""
    still, busy = streams_of(converted(name), 2)
    (a, *_), (b, *more) = videos(2, 4)
    scripted(still, a, "c c c"), scripted(busy, b, "p4 p15 p6")
    for frame in more:
        kept = remembered(still)
        before = {key: kept[key].clone() for key in kept if key.endswith((".k", ".v"))}
        (_, output), _ = hand_over([still, busy], [a, frame])
        after = remembered(still)
        assert before
        assert all(torch.equal(x, after[key]) for key, x in before.items())
        assert output.isfinite().all()
