"""Exported models that compute in int8 or bfloat16."""

import json
import sys

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import eventful
from eventful.block.state import KeysValues
from eventful.runtimes.openvino import _Compiled
from tests.laws.frames import COSTS, WholePatches, flow_is, kinds, pixels, scripted
from tests.zoo import build, clip, relative

TEXTS = "p3 c p5 h d p4", "c p4 d p2 h p1"
FORMS = {
    "weights": ("openvino", "nncf", None),
    "both": ("openvino", "nncf", 6),
    "onnxruntime": ("onnxruntime", "onnxscript", None),
}


@pytest.fixture(autouse=True)
def _whole_patches(monkeypatch):
    flow_is(monkeypatch, WholePatches)


def exported(path, runtime="openvino", frames=None, name="registers", **options):
    calibrate = frames and clip(frames, seed=3)
    options = {"precision": "int8", "calibrate": calibrate, **options}
    model = eventful.convert(build(name))
    return eventful.export(
        model, path, clip(1)[0], runtime=runtime, method="forward_features", **options
    )


@pytest.fixture(scope="module", params=FORMS)
def folder(request, tmp_path_factory):
    runtime, tool, frames = FORMS[request.param]
    for library in (runtime, tool):
        pytest.importorskip(library)
    return exported(tmp_path_factory.mktemp("int8") / request.param, runtime, frames)


def graphs_of(folder):
    """The dense and the step graph, of a first frame's row."""
    model = eventful.load(folder)
    made = model._graphs()._graphs
    frame = clip(1)[0][:1].contiguous()
    outputs, shown, *kept = (x.clone() for x in made["dense"]([frame]))
    return made["step"], frame, outputs, shown, kept


def test_a_step_of_all_tokens_is_the_dense_frame(folder):
    """The same weights and ranges: keys, values and outputs agree far within int8's rounding.

    ONNX Runtime finds ranges among the tokens of each call, so without one token they can shift.
    """
    step, frame, outputs, shown, kept = graphs_of(folder)
    tokens, found = outputs.shape[1], "onnx" in folder.name
    for left_out in (None, 0, 7, tokens - 1):
        chosen = torch.tensor([token for token in range(tokens) if token != left_out])
        stale = torch.zeros(tokens).index_fill_(0, chosen, -torch.inf)
        again, seen, *new = step([frame, chosen, stale, shown, *kept])
        limit = 0.1 if found and left_out is not None else 1e-3
        assert relative(again, outputs) < limit
        assert relative(seen, shown) < limit
        for pair in zip(kept[::2], kept[1::2], new[::2], new[1::2], strict=True):
            old, fresh = KeysValues(*pair[:2]), KeysValues(*pair[2:])
            for one, two in zip(old, fresh, strict=True):
                assert relative(two, one[0, :, chosen].transpose(0, 1)) < limit


def test_streams_remember_in_float32_what_policies_expect(folder):
    hold(folder, "registers")


def test_so_they_do_with_windows_and_relative_positions(tmp_path):
    pytest.importorskip("nncf")
    hold(exported(tmp_path, frames=6, name="sam"), "sam")


def hold(folder, name):
    """Hold a stream of an export to one of its model, over frames of all kinds."""
    model, first, *video = eventful.load(folder), *clip(7)
    options = {"pixels": pixels, "costs": COSTS, "policy": eventful.Auto(share=0.5)}
    plain, ours = eventful.convert(build(name)), eventful.Stream(model, **options)
    theirs = eventful.Stream(plain, method="forward_features", **options)
    limit = 2 * model.error + 0.05  # each frame has its own error, those since it add up
    assert relative(scripted(ours, first, *TEXTS), scripted(theirs, first, *TEXTS)) < limit
    for frame in video:
        assert relative(ours(frame), theirs(frame)) < limit
        assert kinds(ours) == kinds(theirs)
        assert ours.stats.state_bytes == theirs.stats.state_bytes


def test_the_error_of_int8_weights_is_that_of_their_rounding(tmp_path):
    """Asymmetric int8 for each output: weights are off by at most 1/2 of 1/255 of their range."""
    pytest.importorskip("nncf")
    options = {"img_size": 12, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3}
    torch.manual_seed(0)
    model, twin = (VisionTransformer(**options, num_classes=0).eval() for _ in range(2))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.2)
    twin.load_state_dict(model.state_dict())
    frame = torch.rand(1, 3, 12, 12)
    keys = _first_keys(twin, frame)
    model = eventful.convert(model)
    path = eventful.export(model, tmp_path, frame, method="forward_features", precision="int8")
    found = eventful.load(path)._graphs()._graphs["dense"]([frame])[2]
    qkv, normed = twin.blocks[0].attn.qkv, twin.blocks[0].norm1(_embedded(twin, frame))
    rows = qkv.weight[24:48]
    half_step = (rows.amax(1).clamp_min(0) - rows.amin(1).clamp_max(0)) / 255 / 2
    bound = (normed.abs().sum(-1, keepdim=True) * half_step)[0].view(10, 3, 8).transpose(0, 1)
    off = (found[0] - keys[0]).abs()
    assert off.max() > 1e-5
    assert (off <= 1.05 * bound + 1e-4).all()


def _embedded(model, frame):
    tokens = model._pos_embed(model.patch_embed(frame))
    return model.norm_pre(tokens)


def _first_keys(model, frame):
    block = model.blocks[0]
    qkv = block.attn.qkv(block.norm1(_embedded(model, frame)))
    return qkv.view(1, -1, 3, 3, 8)[:, :, 1].transpose(1, 2)


def test_files_say_what_they_are(folder):
    content = json.loads((folder / "model.json").read_text())
    model = eventful.load(folder)
    assert (model.precision, content["precision"]) == ("int8", "int8")
    assert content["calibrated"] in (0, 12)  # frames of two rows
    assert 0.01 < model.error == content["error"] < 0.5
    with torch.inference_mode():
        expected = build("registers").forward_features(clip(1)[0])
    assert relative(model(clip(1)[0]), expected) == pytest.approx(model.error, rel=1e-4)


def test_weights_are_stored_as_int8(tmp_path):
    pytest.importorskip("nncf")
    model = eventful.convert(VisionTransformer(img_size=48, embed_dim=96, depth=2, num_heads=3))
    frame, sizes = torch.rand(1, 3, 48, 48), {}
    for precision in ("float32", "int8"):
        path = eventful.export(model, tmp_path / precision, frame, precision=precision)
        sizes[precision] = (path / "step.bin").stat().st_size
    assert sizes["int8"] < 0.3 * sizes["float32"]


def test_bfloat16(tmp_path, monkeypatch):
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ValueError, match="this processor does not compute in bfloat16"):
            exported(tmp_path, precision="bfloat16")
        return
    model = eventful.load(exported(tmp_path, precision="bfloat16"))
    assert 1e-4 < model.error < 0.1
    _forget_bfloat16(monkeypatch)
    with pytest.raises(ValueError, match=r"not compute in bfloat16, OpenVINO finds FP32, INT8; ex"):
        eventful.load(tmp_path)


def _forget_bfloat16(monkeypatch):
    """Make OpenVINO say what it says on a processor with AVX2 alone."""
    import openvino  # noqa: PLC0415 - optional

    class Core:
        def get_property(self, device, name):
            return ["INT8", "FP32"]

    monkeypatch.setattr(openvino, "Core", Core)


REFUSED = {
    "precision": ({"precision": "int4"}, "precision must be one of float32, bfloat16, int8"),
    "clip for float32": (
        {"precision": "float32", "frames": 2},
        r"calibrate= is for precision='int8', got precision='float32'",
    ),
    "no frames": ({"calibrate": []}, "calibrate= has no frames; give 8 to 32"),
    "other frames": (
        {"calibrate": [torch.rand(1, 3, 16, 20)]},
        r"must be like frame=, \(batch, 3, 12, 20\) of torch.float32; got one of .*16, 20\)",
    ),
    "torch": ({"runtime": "torch"}, "must be 'openvino' or 'onnxruntime', got 'torch'"),
    "bfloat16 in ONNX": (
        {"runtime": "onnxruntime", "precision": "bfloat16"},
        "ONNX Runtime does not compute in bfloat16.*runtime='openvino'",
    ),
    "clip for ONNX": (
        {"runtime": "onnxruntime", "frames": 2},
        "calibrates on nothing; leave calibrate out, or use runtime='openvino'",
    ),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_is_refused(wrong, tmp_path):
    for library in ("openvino", "onnxruntime", "onnxscript"):
        pytest.importorskip(library)
    options, message = REFUSED[wrong]
    with pytest.raises(ValueError, match=message):
        exported(tmp_path, **options)


def test_without_nncf(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'eventful-transformers\[int8\]'"):
        exported(tmp_path)


def test_a_graph_that_int8_ruins_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("nncf")
    run = _Compiled.__call__
    monkeypatch.setattr(_Compiled, "__call__", lambda self, x: [1.7 * y for y in run(self, x)])
    with pytest.raises(
        ValueError, match=r"in int8 this VisionTransformer is .* off, .*precision='float32'"
    ):
        exported(tmp_path)
