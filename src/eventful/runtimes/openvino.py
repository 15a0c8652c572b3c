"""OpenVINO, on the processor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from eventful.runtimes.runtime import Graph, Runtime, imported, input_shapes, place


class OpenVino(Runtime):
    """Compiles for the CPU: float32 products, as many threads as PyTorch has.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
    """

    name = "openvino"

    def __init__(self) -> None:
        self._openvino = imported("openvino", "openvino")

    def _converted(self, program: ExportedProgram) -> Any:
        """Convert a program with OpenVINO's own converter."""
        model = self._openvino.convert_model(program)
        shapes = input_shapes(program)  # of which the converter keeps some only
        names = [given.any_name for given in model.inputs]
        model.reshape({name: self._openvino.PartialShape(shapes[name]) for name in names})
        return model

    def write(self, model: Any, path: Path) -> None:
        """Write OpenVINO IR: an .xml and a .bin file."""
        self._openvino.save_model(model, path.with_suffix(".xml"), compress_to_fp16=False)

    def read(self, path: Path) -> Any:
        """Read OpenVINO IR."""
        return self._openvino.Core().read_model(path.with_suffix(".xml"))

    def load(self, model: Any) -> Graph:
        """Compile a model for the CPU."""
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        taken = [place(given.any_name) for given in model.inputs]
        compiled = self._openvino.compile_model(model, "CPU", settings)
        return _Compiled(self._openvino.Tensor, compiled, taken)


class _Compiled(Graph):
    def __init__(self, tensor: Any, compiled: Any, taken: Sequence[int]) -> None:
        self._tensor, self._compiled, self._taken = tensor, compiled, taken
        self._request = compiled.create_infer_request()
        self._outputs = range(len(compiled.outputs))

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        for slot, given in enumerate(self._taken):
            shared = self._tensor(inputs[given].numpy(), shared_memory=True)
            self._request.set_input_tensor(slot, shared)
        self._request.infer()
        outputs = (self._request.get_output_tensor(slot).data for slot in self._outputs)
        return [torch.from_numpy(data) for data in outputs]

    def twin(self) -> Graph:
        """A request of its own."""
        return _Compiled(self._tensor, self._compiled, self._taken)
