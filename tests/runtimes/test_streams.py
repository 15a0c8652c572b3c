"""Streams whose frames a runtime runs: the outputs are PyTorch's, whatever the mix of kinds."""

import sys

import pytest
import torch

import eventful
from eventful.runtimes.openvino import _Compiled
from eventful.runtimes.passes import Passes
from tests.laws.frames import WholePatches, flow_is, frame_stream, kinds, scripted
from tests.zoo import build, clip, relative

TEXTS = "p3 c p5 h d p4 c p1 p15", "c p4 d p2 h p1 d p7 c"
ROUNDING = 3e-5  # of float32, over nine frames of three blocks


@pytest.fixture(autouse=True)
def _whole_patches(monkeypatch):
    flow_is(monkeypatch, WholePatches)


@pytest.fixture(params=["openvino", "onnxruntime"])
def runtime(request):
    libraries = {"openvino": ["openvino"], "onnxruntime": ["onnxruntime", "onnxscript"]}
    for library in libraries[request.param]:
        pytest.importorskip(library)
    return request.param


def test_rows_of_any_kinds_are_those_of_pytorch(runtime):
    """And so they are after snapshots from one to the other and back."""
    ours, theirs = frame_stream("registers", runtime=runtime), frame_stream("registers")
    first, *video = clip(10)
    assert torch.equal(scripted(ours, first, *TEXTS), scripted(theirs, first, *TEXTS))
    for frame in video:
        output, expected = ours(frame), theirs(frame)
        assert relative(output, expected) < ROUNDING
        assert kinds(ours) == kinds(theirs)
        assert torch.equal(ours.computed, theirs.computed)
        assert ours.stats.state_bytes == theirs.stats.state_bytes
    other, back = frame_stream("registers"), frame_stream("registers")
    one, two, *rest = clip(8, seed=1)
    other(one), other(two)
    ours.load_snapshot(other.snapshot())
    for frame in rest[:3]:
        assert relative(ours(frame), other(frame)) < ROUNDING
    back.load_snapshot(ours.snapshot())
    for frame in rest[3:]:
        assert relative(ours(frame), back(frame)) < ROUNDING
        assert kinds(ours) == kinds(back)


ON_A_GRID = "sam", "sam_resampled", "sam_no_positions", "vitdet", "vitdet_paper_positions"


@pytest.mark.parametrize(
    ("runtime", "name"),
    [*(("openvino", name) for name in ("dinov3", *ON_A_GRID)), ("onnxruntime", "sam")],
    indirect=["runtime"],
)
def test_rotary_and_relative_positions_and_windows_too(runtime, name):
    ours, theirs = frame_stream(name, runtime=runtime), frame_stream(name)
    first, *video = clip(10, batch=2 if name in ON_A_GRID else 1)
    texts = TEXTS if name in ON_A_GRID else TEXTS[:1]
    assert torch.equal(scripted(ours, first, *texts), scripted(theirs, first, *texts))
    for frame in video:
        assert relative(ours(frame), theirs(frame)) < ROUNDING
        assert kinds(ours) == kinds(theirs)
    assert ours.stats.state_bytes == theirs.stats.state_bytes


def test_what_is_returned_is_nobody_elses(openvino_stream):
    """Nor do frames change."""
    stream, video = openvino_stream
    given = [frame.clone() for frame in video]
    outputs = [stream(frame) for frame in video]
    copies = [output.clone() for output in outputs]
    with torch.inference_mode():
        for output in outputs:
            output.zero_()
    again = frame_stream("plain", eventful.Carry(3), runtime="openvino")
    for frame, before, copy in zip(video, given, copies, strict=True):
        assert torch.equal(frame, before)
        assert relative(again(frame), copy) < ROUNDING


@pytest.fixture
def openvino_stream():
    pytest.importorskip("openvino")
    return frame_stream("plain", eventful.Carry(3), runtime="openvino"), clip(5)


def test_changed_weights_make_other_graphs(openvino_stream):
    stream, (one, two, *rest) = openvino_stream
    stream(one), stream(two)
    with torch.no_grad():
        stream._bound.model.blocks[1].mlp.fc1.weight.mul_(1.5)
        again = frame_stream("plain", eventful.Carry(3))
        again._bound.model.blocks[1].mlp.fc1.weight.mul_(1.5)
    for frame in rest:
        assert relative(stream(frame), again(frame)) < ROUNDING
    assert stream.stats.flush_reasons == {"first frame": 2, "weights changed": 2}


def test_costs_in_time_are_the_runtimes(monkeypatch):
    pytest.importorskip("openvino")
    ran, run = [], Passes.run

    def noted(self, x, inputs, work):
        ran.append(work.index.counts)
        return run(self, x, inputs, work)

    monkeypatch.setattr(Passes, "run", noted)
    stream = frame_stream("plain", eventful.Auto(), costs=None, check=False, runtime="openvino")
    stream(clip(1)[0])
    assert stream.costs is not None
    assert stream.costs.unit == "ms"
    assert set(ran) == {(2, 2), (4, 4), (0, 0), (16, 16)}


def test_a_graph_that_gives_something_else_is_refused(monkeypatch):
    pytest.importorskip("openvino")
    twin = _Compiled.twin

    def broken(self):
        graph = twin(self)
        return lambda inputs: [1.01 * x if x.ndim == 3 else x for x in graph(inputs)]

    monkeypatch.setattr(_Compiled, "twin", broken)
    stream = frame_stream("plain", eventful.Carry(3), runtime="openvino")
    with pytest.raises(ValueError, match=r"dense graph of OpenVino .* 0\.01 off"):
        stream(clip(1)[0])


REFUSED = {
    "narrow state": ("plain", {"state_dtype": torch.bfloat16}, "state_dtype=torch.bfloat16"),
    "dtype": ("plain", {"dtype": torch.float64}, r"torch\.float64 on cpu; call model\.float"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_graphs_cannot_do_is_refused_by_name(wrong):
    pytest.importorskip("openvino")
    name, options, message = REFUSED[wrong]
    stream = frame_stream(name, runtime="openvino", **options)
    with pytest.raises(ValueError, match=message):
        stream(clip(1)[0])


def test_hooks_are_refused():
    pytest.importorskip("openvino")
    model = eventful.convert(build("plain"), eventful.Skip(2))
    model.norm.register_forward_hook(lambda *_: None)
    stream = eventful.Stream(model, method="forward_features", runtime="openvino")
    with pytest.raises(ValueError, match="norm has a hook"):
        stream(clip(1)[0])


@pytest.mark.parametrize("runtime", ["openvino"])
def test_token_policies_are_refused(runtime):
    pytest.importorskip(runtime)
    with pytest.raises(ValueError, match=r"graphs run frame policies.*by default.*in PyTorch"):
        frame_stream("plain", eventful.TopR(3), runtime=runtime)
    stream = frame_stream("plain", eventful.Carry(3), runtime=runtime)
    with pytest.raises(ValueError, match=r"frame policies.*top:3"):
        stream.policy = eventful.TopR(3)
    assert stream.policy == eventful.Carry(3)


def test_an_unknown_or_missing_runtime(monkeypatch):
    with pytest.raises(ValueError, match=r"one of torch, openvino, onnxruntime, got 'tensorrt'"):
        frame_stream("plain", runtime="tensorrt")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"pip install 'eventful-transformers\[openvino\]'"
    ):
        frame_stream("plain", runtime="openvino")
