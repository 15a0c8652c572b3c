"""Exported models: the same outputs, without the model's own modules."""

import pytest
import torch

import eventful
from tests.laws.frames import COSTS, WholePatches, flow_is, frame_stream, kinds, pixels, scripted
from tests.zoo import build, clip, relative

TEXTS = "p3 c p5 h d p4", "c p4 d p2 h p1"
ROUNDING = 3e-5  # of float32, over six frames of three blocks


@pytest.fixture(autouse=True)
def _whole_patches(monkeypatch):
    flow_is(monkeypatch, WholePatches)


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def folder(request, tmp_path_factory):
    libraries = {"openvino": ["openvino"], "onnxruntime": ["onnxruntime", "onnxscript"]}
    for library in libraries[request.param]:
        pytest.importorskip(library)
    path = tmp_path_factory.mktemp("exported") / request.param
    model = eventful.convert(build("registers"))
    return eventful.export(
        model, path, clip(1)[0], runtime=request.param, method="forward_features"
    )


def stream_of(folder):
    options = {"pixels": pixels, "costs": COSTS, "scene_cuts": None}
    return eventful.Stream(eventful.load(folder), policy=eventful.Auto(share=0.5), **options)


def test_frames_of_any_kinds_are_those_of_the_model(folder):
    hold(stream_of(folder), frame_stream("registers"))


@pytest.mark.parametrize("name", ["sam", "vitdet"])
def test_so_they_are_with_windows_and_relative_positions(name, tmp_path):
    pytest.importorskip("openvino")
    model = eventful.convert(build(name))
    folder = eventful.export(model, tmp_path, clip(1)[0], method="forward_features")
    hold(stream_of(folder), frame_stream(name))


def hold(ours, theirs):
    """Hold a stream to another over frames of all kinds."""
    first, *video = clip(7)
    assert relative(scripted(ours, first, *TEXTS), scripted(theirs, first, *TEXTS)) < ROUNDING
    assert ours.layout == theirs.layout
    for frame in video:
        assert relative(ours(frame), theirs(frame)) < ROUNDING
        assert kinds(ours) == kinds(theirs)
        assert ours.stats.operations.total == theirs.stats.operations.total
    for one, two in zip(ours.stats.rows, theirs.stats.rows, strict=True):
        assert one.tokens == two.tokens


def test_snapshots_resume_in_another_stream(folder):
    model, video = eventful.load(folder), clip(6)
    options = {"pixels": pixels, "costs": COSTS, "policy": eventful.Auto(share=0.5)}
    one, two = (eventful.Stream(model, **options) for _ in range(2))
    for frame in video[:3]:
        one(frame)
    two.load_snapshot(one.snapshot())
    for frame in video[3:]:
        assert torch.equal(one(frame), two(frame))


def test_without_a_stream_a_model_runs_dense(folder):
    frame = clip(1)[0]
    with torch.inference_mode():
        expected = build("registers").forward_features(frame)
        assert relative(eventful.load(folder)(frame), expected) < ROUNDING


def test_a_model_that_ran_alone_streams(folder):
    """Its graphs are its own: those of a stream's copy read what the stream remembers."""
    frame, model = clip(1)[0], eventful.load(folder)
    alone = model(frame)
    policy = eventful.Auto(share=0.5)  # which keeps keys and values
    stream = eventful.Stream(model, policy=policy, pixels=pixels, costs=COSTS)
    assert torch.equal(stream(frame), alone)


def test_token_policies_are_refused(folder):
    with pytest.raises(ValueError, match=r"graphs run frame policies.*got top:3"):
        eventful.Stream(eventful.load(folder), policy=eventful.TopR(3))


def test_another_size_is_refused(folder):
    with pytest.raises(ValueError, match=r"exported for frames .*3, 12, 20.*export it"):
        stream_of(folder)(torch.rand(1, 3, 16, 20))


def test_what_is_not_exported(tmp_path):
    with pytest.raises(FileNotFoundError):
        eventful.load(tmp_path)
    model = eventful.convert(build("plain"))
    with pytest.raises(ValueError, match="'openvino' or 'onnxruntime', got 'torch'"):
        eventful.export(model, tmp_path, clip(1)[0], runtime="torch")


def test_parts_of_its_blocks_cannot_be_called(folder):
    block = eventful.load(folder).blocks[0]
    with pytest.raises(TypeError, match=r"blocks\.0 was exported: graphs run it"):
        block.norm_1(torch.rand(3, 24))
    with pytest.raises(TypeError, match="was exported"):
        _ = block.scale
