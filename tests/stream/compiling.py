"""What the tests of compiled streams share: a stream that compiles beside one that does not."""

import torch

import eventful
from tests.zoo import TOLERANCE, build, clip

POLICY = eventful.TopR(3)
CUTS = eventful.SceneCuts(level=0.9)
LIMIT = TOLERANCE[torch.float64]


def twins(name, policy=POLICY, scene_cuts=None, dtype=torch.float64, **options):
    """A stream that compiles and one that does not, on one model."""
    streams = {"scene_cuts": scene_cuts, "method": "forward_features"}
    streams |= {key: options.pop(key) for key in ("state_dtype",) if key in options}
    model = eventful.convert(build(name, dtype), policy, **options)
    return eventful.Stream(model, compile=True, **streams), eventful.Stream(model, **streams)


def assert_same_work(ours, theirs):
    """Up to rounding, and with the same tokens updated and the same operations counted."""
    assert ours.stats.updated == theirs.stats.updated
    assert ours.stats.operations == theirs.stats.operations
    assert list(ours.stats.flushes) == list(theirs.stats.flushes)


def spoilt(frame, value=torch.nan):
    """With one value that is no number."""
    frame = frame.clone()
    frame[1, 2, 5, 7] = value
    return frame


def with_cuts(rows):
    """Some rows show another scene from frame 5 on."""
    video, other = (clip(9, dtype=torch.float64, seed=seed) for seed in (0, 9))
    video[5:, rows] = other[5:, rows]
    return video
