"""ONNX Runtime, on the processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from eventful.runtimes.runtime import Graph, Runtime, imported, input_shapes


class OnnxRuntime(Runtime):
    """Compiles for the CPU, with as many threads as PyTorch has.

    Raises:
        ModuleNotFoundError: ONNX Runtime or onnxscript, which writes its graphs, is not installed.
    """

    def __init__(self) -> None:
        self._onnxruntime = imported("onnxruntime", "onnx")
        imported("onnxscript", "onnx")

    def compile(self, program: ExportedProgram) -> Graph:
        """Write a program as ONNX with PyTorch's own exporter, and load it."""
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        written = torch.onnx.export(program, dynamo=True, verbose=False)
        assert written is not None
        model = written.model_proto.SerializeToString()
        providers = ["CPUExecutionProvider"]
        session = self._onnxruntime.InferenceSession(model, options, providers=providers)
        return _Session(session, list(input_shapes(program)))


class _Session(Graph):
    def __init__(self, session: Any, names: Sequence[str]) -> None:
        self._session, self._names = session, names
        self._taken = {given.name for given in session.get_inputs()}

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        named = zip(self._names, inputs, strict=True)
        feed = {name: x.numpy() for name, x in named if name in self._taken}
        return [torch.from_numpy(data) for data in self._session.run(None, feed)]
