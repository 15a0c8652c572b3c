"""ONNX Runtime, on the processor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from eventful.runtimes.runtime import Graph, Runtime, imported, place


class OnnxRuntime(Runtime):
    """Compiles for the CPU, with as many threads as PyTorch has.

    Raises:
        ModuleNotFoundError: ONNX Runtime or onnxscript, which writes its graphs, is not installed.
    """

    name = "onnxruntime"

    def __init__(self) -> None:
        self._onnxruntime = imported("onnxruntime", "onnx")

    def _converted(self, program: ExportedProgram) -> Any:
        """Write a program as ONNX with PyTorch's own exporter."""
        imported("onnxscript", "onnx")
        written = torch.onnx.export(program, dynamo=True, verbose=False)
        assert written is not None
        return written.model_proto.SerializeToString()

    def write(self, model: Any, path: Path) -> None:
        """Write ONNX."""
        path.with_suffix(".onnx").write_bytes(model)

    def read(self, path: Path) -> Any:
        """Read ONNX."""
        return path.with_suffix(".onnx").read_bytes()

    def load(self, model: Any) -> Graph:
        """Load a model for the CPU."""
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        # Threads that wait busily would take the cores from what runs between two frames.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        return _Session(self._onnxruntime.InferenceSession(model, options, providers=providers))


class _Session(Graph):
    def __init__(self, session: Any) -> None:
        self._session = session
        self._places = {given.name: place(given.name) for given in session.get_inputs()}

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        feed = {name: inputs[place].numpy() for name, place in self._places.items()}
        return [torch.from_numpy(data) for data in self._session.run(None, feed)]

    def twin(self) -> Graph:
        """Itself: a session may be run by several threads."""
        return self
