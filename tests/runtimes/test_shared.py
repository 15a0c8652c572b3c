"""Streams of one model share graphs, and nothing else."""

import gc
import threading
import weakref

import pytest
import torch

import eventful
from eventful.runtimes import shared
from eventful.runtimes.openvino import OpenVino
from tests.laws.frames import COSTS, WholePatches, flow_is, pixels
from tests.zoo import build, clip, relative

pytest.importorskip("openvino")


@pytest.fixture
def loads(monkeypatch):
    """How many graphs have been compiled."""
    flow_is(monkeypatch, WholePatches)
    made, load = [], OpenVino.load
    monkeypatch.setattr(OpenVino, "load", lambda self, model: made.append(0) or load(self, model))
    return made


def stream_of(model, runtime="openvino", **options):
    fixed = {"pixels": pixels, "costs": COSTS, "scene_cuts": None, "method": "forward_features"}
    policy = eventful.Auto(share=0.5)
    return eventful.Stream(model, policy=policy, runtime=runtime, **fixed | options)


def test_streams_of_a_model_compile_once_and_give_what_each_alone_gives(loads):
    model = eventful.convert(build("plain"))
    videos = [clip(6, batch=1, seed=seed) for seed in range(3)]
    ours, theirs = ([stream_of(model, r) for _ in videos] for r in ("openvino", "torch"))
    for frames in zip(*videos, strict=True):
        for one, other, frame in zip(ours, theirs, frames, strict=True):
            assert relative(one(frame), other(frame)) < 3e-5
    assert len(loads) == 3  # dense, step, show


def test_streams_in_threads_share_them_too(loads):
    model = eventful.convert(build("plain"))
    videos = [clip(12, batch=1, seed=seed) for seed in range(4)]
    found = {}

    def run(number):
        stream = stream_of(model)
        found[number] = [stream(frame) for frame in videos[number]]

    threads = [threading.Thread(target=run, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 3
    for number, video in enumerate(videos):
        alone = stream_of(model, "torch")
        for frame, output in zip(video, found[number], strict=True):
            assert relative(output, alone(frame)) < 3e-5


def test_other_weights_methods_and_models_make_their_own(loads):
    model, frame = eventful.convert(build("plain")), clip(1)[0]
    stream_of(model)(frame)
    stream_of(model, method="forward")(frame)
    assert len(loads) == 6
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight.mul_(1.5)
    changed = stream_of(model)(frame)
    assert len(loads) == 9
    assert len(shared._compiled[model][1]) == 1  # none of the weights before
    assert relative(changed, stream_of(model, "torch")(frame)) < 3e-5
    stream_of(eventful.convert(build("plain")))(frame)
    assert len(loads) == 12


def test_hooks_are_refused_although_others_made_the_graphs(loads):
    model, frame = eventful.convert(build("plain")), clip(1)[0]
    stream_of(model)(frame)
    model.norm.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="norm has a hook"):
        stream_of(model)(frame)


def test_they_go_with_the_model_and_few_are_kept(loads, monkeypatch):
    monkeypatch.setattr(shared, "KEPT", 1)
    model, frame = eventful.convert(build("plain")), clip(1)[0]
    for method in ("forward", "forward_features", "forward"):
        stream_of(model, method=method)(frame)
    assert len(loads) == 9
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_streams_of_an_exported_model_share_them_too(loads, tmp_path):
    model, frame = eventful.convert(build("plain")), clip(1)[0]
    eventful.export(model, tmp_path, frame, method="forward_features")
    loads.clear()
    exported = eventful.load(tmp_path)
    one, two = (stream_of(exported, "torch", method="forward") for _ in range(2))
    assert torch.equal(one(frame), two(frame))
    assert len(loads) == 3 + ("norm-0" in exported._loaded)
