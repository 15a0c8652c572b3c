"""Inference runtimes that run a stream's frames in place of PyTorch."""

from __future__ import annotations

from typing import Literal

from eventful.runtimes.onnx import OnnxRuntime
from eventful.runtimes.openvino import OpenVino
from eventful.runtimes.runtime import Runtime
from eventful.runtimes.whole import installed as installed
from eventful.runtimes.whole import whole_graph as whole_graph

Name = Literal["torch", "openvino", "onnxruntime"]
NAMES: tuple[Name, ...] = ("torch", "openvino", "onnxruntime")


def runtime_named(name: str) -> Runtime | None:
    """The runtime of a name; None for PyTorch itself.

    Raises:
        ValueError: There is none of this name.
        ModuleNotFoundError: It is not installed; the message has the pip line.
    """
    if name not in NAMES:
        raise ValueError(f"runtime must be one of {', '.join(NAMES)}, got {name!r}")
    made = {"openvino": OpenVino, "onnxruntime": OnnxRuntime}.get(name)
    return None if made is None else made()
