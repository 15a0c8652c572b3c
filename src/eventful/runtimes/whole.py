"""A whole model that is not converted, in an inference runtime: what there is to beat."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor, nn

from eventful.runtimes.runtime import Graph, Runtime
from eventful.runtimes.written import WrittenOut

_NEEDS = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnxscript")}


def installed() -> tuple[str, ...]:
    """The names of the runtimes that can be used here.

    Example:
        >>> set(installed()) <= {"openvino", "onnxruntime"}
        True
    """
    return tuple(name for name, needs in _NEEDS.items() if all(map(find_spec, needs)))


@torch.inference_mode(False)
@torch.no_grad()
def whole_graph(runtime: Runtime, model: nn.Module, method: str, frame: Tensor) -> Graph:
    """Compile a model that is not converted, for frames of one size.

    Args:
        runtime: Where it is to run.
        model: In eval mode, float32, on the CPU.
        method: Its method that takes a frame and returns a tensor.
        frame: (batch, channels, height, width), an example.

    Raises:
        ValueError: The runtime does not know all of the model's operators, or `torch.export` cannot
            trace it.

    Example:
        >>> from eventful.runtimes import runtime_named
        >>> runtime, frame = runtime_named("openvino"), torch.ones(1, 3, 4, 4)
        >>> graph = whole_graph(runtime, nn.AvgPool2d(4), "forward", frame)
        >>> graph([frame])[0].shape
        torch.Size([1, 3, 1, 1])
    """
    given = (torch.zeros_like(frame),)
    try:
        program = torch.export.export(_Method(model, method), given, strict=False)
    except Exception as error:
        name = type(model).__name__
        raise ValueError(f"torch.export cannot trace this {name}: {error}") from error
    return runtime.compile(program)


class _Method(nn.Module):
    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model, self._method = model, method

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        with WrittenOut():
            return [getattr(self.model, self._method)(*tensors)]
