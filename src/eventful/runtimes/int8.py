"""Graphs that compute in int8: OpenVINO's through NNCF, ONNX Runtime's by its own tool.

All graphs of a model are quantised alike, so that what is computed in part agrees with what is
computed in full: the same weights give the same integers, and activations of the step are
calibrated on all tokens of the frames that the dense graph is calibrated on, which gives both
graphs the same ranges.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from eventful.runtimes.runtime import Graph, imported, place


class Samples:
    """What each graph of a model is given on a clip, computed when it is asked for.

    Args:
        dense: The dense graph in float32.
        frames: Of a single row (1, channels, height, width), as the model takes them.
        outputs: How many tensors the model returns.
        taps: How many taps it has.
        chosen: What a step is told of the tokens to compute, which are all of them.

    Attributes:
        count: How many samples there are.
    """

    def __init__(
        self,
        dense: Graph,
        frames: Sequence[Tensor],
        outputs: int,
        taps: int,
        chosen: Sequence[Tensor],
    ) -> None:
        self._dense, self._frames, self._chosen = dense, frames, chosen
        self._parts = outputs, outputs + taps
        self.count = len(frames)

    def of(self, name: str) -> Iterator[list[Tensor]]:
        """The inputs of "dense", "show" or "step", frame by frame."""
        for frame in self._frames:
            if name == "dense":
                yield [frame]
                continue
            start, end = self._parts
            found = [x.clone() for x in self._dense([frame])]
            shown, kept = found[start:end], found[end:]
            yield [frame, *(self._chosen if name == "step" else ()), *shown, *kept]


def openvino_int8(models: dict[str, Any], samples: Samples | None) -> dict[str, Any]:
    """Quantise OpenVINO's models.

    Args:
        models: By the name of their graph.
        samples: To calibrate activations on; None for int8 weights alone.

    Returns:
        The same, quantised.

    Raises:
        ModuleNotFoundError: NNCF is not installed; the message has the pip line.
    """
    with _quiet():
        nncf = imported("nncf", "int8")
        if samples is None:
            return {name: nncf.compress_weights(model) for name, model in models.items()}
        return {name: _calibrated(nncf, name, model, samples) for name, model in models.items()}


def _calibrated(nncf: Any, name: str, model: Any, samples: Samples) -> Any:
    places = {given.any_name: place(given.any_name) for given in model.inputs}

    def fed(tensors: list[Tensor]) -> dict[str, Any]:
        return {given: tensors[slot].numpy() for given, slot in places.items()}

    # Smoothing moves the range of activations into weights; on DINOv2's outliers it doubled the
    # error of the outputs. Pixels in int8 cost a fifth of it, and what embeds them is little work.
    none = nncf.AdvancedSmoothQuantParameters(matmul=-1, convolution=-1)
    return nncf.quantize(
        model,
        nncf.Dataset(_Clip(lambda: samples.of(name)), fed),
        subset_size=samples.count,
        ignored_scope=nncf.IgnoredScope(types=["Convolution"], validate=False),
        model_type=nncf.ModelType.TRANSFORMER,
        advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=none),
    )


class _Clip:
    """An iterable that starts over, as NNCF goes through a clip several times."""

    def __init__(self, start: Callable[[], Iterator[list[Tensor]]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[list[Tensor]]:
        return self._start()


def onnx_int8(models: dict[str, bytes]) -> dict[str, bytes]:
    """Quantise ONNX models: weights as int8, activations by the range that each call finds.

    Args:
        models: By the name of their graph.

    Returns:
        The same, quantised.

    Raises:
        ModuleNotFoundError: The tool is not installed; the message has the pip line.
    """
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        tool = imported("onnxruntime.quantization", "onnx")
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        made: dict[str, bytes] = {}
        for name, model in models.items():
            source.write_bytes(model)
            tool.quantize_dynamic(
                source,
                target,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=tool.QuantType.QInt8,
            )
            made[name] = target.read_bytes()
        return made


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the tools say of themselves out of the process's output."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
