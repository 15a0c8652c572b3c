"""`eventful export`: what it writes is what `eventful.load` reads."""

import json

import pytest
import torch

import eventful


def test_export(invoke, weights, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = tmp_path / "vit"
    options = ("--weights", weights, "--size", 64, "--out", out, "--json")
    result = invoke("export", "timm:test_vit", *options, "--runtime", "onnxruntime")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {"dense.onnx", "step.onnx", "show.onnx", "model.json"} <= set(found["files"])
    assert found["grid"] == [4, 4]
    stream = eventful.Stream(eventful.load(out), policy=eventful.Skip(2), normalize=True)
    assert stream(torch.rand(1, 3, 64, 64)).shape == (1, 17, 64)


def test_what_cannot_be_exported_is_one_line(invoke, weights, tmp_path):
    options = ("--weights", weights, "--size", 64, "--out", tmp_path / "vit")
    result = invoke("export", "timm:test_vit", *options, "--runtime", "torch")
    assert result.exit_code == 2
    assert result.stderr == "error: runtime must be 'openvino' or 'onnxruntime', got 'torch'\n"
