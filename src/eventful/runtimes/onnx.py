"""ONNX Runtime, on the processor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from eventful.runtimes.int8 import Samples, onnx_int8
from eventful.runtimes.precision import Precision
from eventful.runtimes.runtime import Graph, Runtime, imported, place


class OnnxRuntime(Runtime):
    """Compiles for the CPU, with as many threads as PyTorch has.

    Raises:
        ValueError: bfloat16, which it has no operators for on a processor.
        ModuleNotFoundError: ONNX Runtime or onnxscript, which writes its graphs, is not installed.
    """

    name = "onnxruntime"

    def __init__(self, precision: Precision = "float32") -> None:
        super().__init__(precision)
        if precision == "bfloat16":
            raise ValueError(
                "ONNX Runtime does not compute in bfloat16 on a processor; use "
                "runtime='openvino', or precision='float32' or 'int8'"
            )
        self._onnxruntime = imported("onnxruntime", "onnx")

    def _converted(self, program: ExportedProgram) -> Any:
        """Write a program as ONNX with PyTorch's own exporter."""
        imported("onnxscript", "onnx")
        written = torch.onnx.export(program, dynamo=True, verbose=False)
        assert written is not None
        return written.model_proto.SerializeToString()

    def quantized(self, models: dict[str, Any], samples: Samples | None) -> dict[str, Any]:
        """Quantise weights, and activations by the range that each call finds."""
        if samples is not None:
            raise ValueError(
                "ONNX Runtime's int8 finds the range of activations on every call, and calibrates "
                "on nothing; leave calibrate out, or use runtime='openvino'"
            )
        return onnx_int8(models)

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
