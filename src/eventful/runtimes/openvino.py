"""OpenVINO, on the processor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from eventful.runtimes.int8 import Samples, openvino_int8
from eventful.runtimes.precision import Precision
from eventful.runtimes.runtime import Graph, Runtime, imported, input_shapes, place


class OpenVino(Runtime):
    """Compiles for the CPU, with as many threads as PyTorch has.

    Raises:
        ValueError: bfloat16, on a processor that has no products of it.
        ModuleNotFoundError: OpenVINO is not installed.
    """

    name = "openvino"

    def __init__(self, precision: Precision = "float32") -> None:
        super().__init__(precision)
        self._openvino = imported("openvino", "openvino")
        if precision == "bfloat16":
            known = self._openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            if "BF16" not in known:
                raise ValueError(
                    f"this processor does not compute in bfloat16, OpenVINO finds "
                    f"{', '.join(sorted(known))}; export with precision='float32' or 'int8'"
                )

    def _converted(self, program: ExportedProgram) -> Any:
        """Convert a program with OpenVINO's own converter."""
        model = self._openvino.convert_model(program)
        shapes = input_shapes(program)  # of which the converter keeps some only
        names = [given.any_name for given in model.inputs]
        model.reshape({name: self._openvino.PartialShape(shapes[name]) for name in names})
        return model

    def quantized(self, models: dict[str, Any], samples: Samples | None) -> dict[str, Any]:
        """Quantise with NNCF: weights, and with samples activations too."""
        return openvino_int8(models, samples)

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
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bfloat16" else "f32",
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
