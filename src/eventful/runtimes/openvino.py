"""OpenVINO, on the processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from eventful.runtimes.runtime import Graph, Runtime, imported, input_shapes


class OpenVino(Runtime):
    """Compiles for the CPU: float32 products, as many threads as PyTorch has.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
    """

    def __init__(self) -> None:
        self._openvino = imported("openvino", "openvino")

    def compile(self, program: ExportedProgram) -> Graph:
        """Convert a program with OpenVINO's own converter, and compile it."""
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        model = self._openvino.convert_model(program)
        shapes = input_shapes(program)
        taken = [given.any_name for given in model.inputs]  # the converter drops what nothing reads
        model.reshape({name: self._openvino.PartialShape(shapes[name]) for name in taken})
        compiled = self._openvino.compile_model(model, "CPU", settings)
        return _Compiled(self._openvino, compiled, [list(shapes).index(name) for name in taken])


class _Compiled(Graph):
    def __init__(self, openvino: Any, model: Any, taken: Sequence[int]) -> None:
        self._taken = taken
        self._tensor, self._request = openvino.Tensor, model.create_infer_request()
        self._outputs = range(len(model.outputs))

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        for place, given in enumerate(self._taken):
            shared = self._tensor(inputs[given].numpy(), shared_memory=True)
            self._request.set_input_tensor(place, shared)
        self._request.infer()
        outputs = (self._request.get_output_tensor(place).data for place in self._outputs)
        return [torch.from_numpy(data) for data in outputs]
