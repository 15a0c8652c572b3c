"""A thousand frames of real video through real weights, without a flush."""

import itertools
import os
from pathlib import Path

import pytest

import eventful
from eventful.attention import Dense
from eventful.models import saliency_vit
from eventful.video import Reader

FRAMES = 1000


def looped(path):
    while True:
        with Reader(path, 154) as reader:
            yield from (frame.image for frame in reader)


@pytest.mark.slow
@pytest.mark.skipif("EVENTFUL_DATA" not in os.environ, reason="EVENTFUL_DATA is not set")
def test_memory_stays_and_attention_stays_exact():
    path = Path(os.environ["EVENTFUL_DATA"]) / "vtest" / "vtest.avi"
    model = eventful.convert(saliency_vit(154).backbone, eventful.TopFraction(0.25))
    stream = eventful.Stream(model, normalize=True, scene_cuts=None, method="forward_features")
    held = set()
    for frame in itertools.islice(looped(path), FRAMES):
        stream(frame)
        states = [block.binding.state for block in stream._bound.blocks.values()]
        held.add(sum(t.nbytes for state in states for t in state.tensors().values()))
    assert held == {stream.stats.state_bytes}
    assert dict(stream.stats.flush_reasons) == {"first frame": 1}
    for block, state in zip(stream._bound.blocks.values(), states, strict=True):
        qkv = state.buffers["qkv"].tokens.double()
        full, _ = Dense(block.heads, block.scale).start(qkv)
        kept = state.attention.tensors["output"].flatten(2)
        assert ((kept - full).norm() / full.norm()).item() < 1e-4
