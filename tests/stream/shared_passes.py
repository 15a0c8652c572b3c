"""Streams of one model whose frames are handed in together."""

import torch

import eventful
from tests.laws.frames import COSTS, pixels, scripted
from tests.zoo import clip

DOUBLE = torch.float64
OPTIONS = {"scene_cuts": None, "pixels": pixels, "method": "forward_features", "costs": COSTS}


def streams_of(model, count, **options):
    return [eventful.Stream(model, **OPTIONS | options) for _ in range(count)]


def written(streams, *texts):
    """Give each stream its first frame and what comes then; returns the frames after it."""
    videos = [clip(8, 1, DOUBLE, seed=seed) for seed in range(len(streams))]
    for stream, (first, *_), text in zip(streams, videos, texts, strict=True):
        scripted(stream, first, text)
    return [list(frames) for frames in zip(*(video[1:] for video in videos), strict=True)]


def asked(streams, frames, passes):
    return [stream.ask(passes, frame) for stream, frame in zip(streams, frames, strict=True)]


def rows_run(stream, found):
    """Note how many rows each pass of a stream takes."""
    run = stream._bound.run

    def counted(x, inputs):
        found.append(len(x))
        return run(x, inputs)

    stream._bound.run = counted
    return found


def dense(model, frame):
    with torch.inference_mode():
        return model.forward_features(frame)


def raising(stream, monkeypatch, when=lambda x: True, error=OSError):
    """Make a stream's last block raise."""
    block = list(stream._bound.blocks.values())[-1]
    to_mlp = block.to_mlp

    def broken(x):
        if when(x):
            raise error("broken")
        return to_mlp(x)

    monkeypatch.setattr(block, "to_mlp", broken)
