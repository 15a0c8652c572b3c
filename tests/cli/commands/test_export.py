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


@pytest.mark.slow
def test_int8_is_calibrated_on_a_video(invoke, clip_file, tmp_path):
    pytest.importorskip("nncf")
    out = tmp_path / "vit"
    options = ("--size", 42, "--out", out, "--json", "--precision", "int8")
    result = invoke("export", "demo", *options, "--calibrate", clip_file)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["precision"] == "int8"
    assert found["error"] == eventful.load(out).error
    assert 0 < found["error"] < 0.2
    assert json.loads((out / "model.json").read_text())["calibrated"] > 2


def test_a_clip_for_float32_or_none_there_is_one_line(invoke, weights, tmp_path):
    options = ("--weights", weights, "--size", 64, "--out", tmp_path / "vit")
    missing = tmp_path / "no.mp4"
    result = invoke("export", "timm:test_vit", *options, "--calibrate", missing)
    assert result.exit_code == 2
    assert "there is nothing at" in result.stderr
    result = invoke("export", "timm:test_vit", *options, "--precision", "int4")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: precision must be one of float32, bfloat16, int8, got 'int4'\n"
    )


def test_what_cannot_be_exported_is_one_line(invoke, weights, tmp_path):
    options = ("--weights", weights, "--size", 64, "--out", tmp_path / "vit")
    result = invoke("export", "timm:test_vit", *options, "--runtime", "torch")
    assert result.exit_code == 2
    assert result.stderr == "error: runtime must be 'openvino' or 'onnxruntime', got 'torch'\n"
