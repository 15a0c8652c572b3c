"""Inference runtimes that run a stream's frames in place of PyTorch."""

from __future__ import annotations

from typing import Literal

from eventful.runtimes.onnx import OnnxRuntime
from eventful.runtimes.openvino import OpenVino
from eventful.runtimes.precision import precision_named
from eventful.runtimes.runtime import Runtime
from eventful.runtimes.whole import installed as installed
from eventful.runtimes.whole import whole_graph as whole_graph

Name = Literal["torch", "openvino", "onnxruntime"]
NAMES: tuple[Name, ...] = ("torch", "openvino", "onnxruntime")


def runtime_named(name: str, precision: str = "float32") -> Runtime | None:
    """The runtime of a name; None for PyTorch itself.

    Args:
        name: "torch", "openvino" or "onnxruntime".
        precision: "float32", "bfloat16" or "int8": what its graphs compute with.

    Raises:
        ValueError: There is none of this name, or it does not run this precision here.
        ModuleNotFoundError: It is not installed; the message has the pip line.
    """
    if name not in NAMES:
        raise ValueError(f"runtime must be one of {', '.join(NAMES)}, got {name!r}")
    made = {"openvino": OpenVino, "onnxruntime": OnnxRuntime}.get(name)
    return None if made is None else made(precision_named(precision))
