"""Contenders that run a whole model on one frame after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from eventful.attention import AttentionName
from eventful.bench.equality import attention_error
from eventful.bench.subjects import Subject
from eventful.convert import convert
from eventful.policies import Policy
from eventful.runtimes import Name, runtime_named, whole_graph
from eventful.stream import Stream


@dataclass(frozen=True)
class Style:
    """How a contender runs the model.

    Attributes:
        dense: The original model; otherwise a stream on a converted copy.
        compile: Each block compiled.
        runtime: What runs it, "torch" or an inference runtime.
        attention: The stream's attention form.
        first: Every frame is computed in full, as a stream's first frame is.
    """

    dense: bool = False
    compile: bool = False
    attention: AttentionName = "incremental"
    first: bool = False
    runtime: Name = "torch"


STYLES = {
    "dense eager": Style(dense=True),
    "dense compiled": Style(dense=True, compile=True),
    "dense openvino": Style(dense=True, runtime="openvino"),
    "dense onnxruntime": Style(dense=True, runtime="onnxruntime"),
    "eventful eager": Style(),
    "eventful compiled": Style(compile=True),
    "linears only eager": Style(attention="dense"),
    "linears only compiled": Style(attention="dense", compile=True),
    "eventful first frame eager": Style(first=True),
    "eventful first frame compiled": Style(first=True, compile=True),
}


@dataclass
class Racer:
    """A contender at work.

    Attributes:
        style: How it runs the model.
        call: Runs a frame.
        stream: Behind `call`, unless the model is dense.
        output: Of the latest frame.
    """

    style: Style
    call: Callable[[Tensor], Tensor]
    stream: Stream | None = None
    output: Tensor | None = None
    _before: tuple[int, int, int] = field(default=(0, 0, 0))

    @classmethod
    def of(
        cls, style: Style, model: nn.Module, subject: Subject, policy: Policy, frame: Tensor
    ) -> Racer:
        """Set up a contender on a copy of the model.

        Raises:
            ValueError: Its runtime cannot run the model.
        """
        if (runtime := runtime_named(style.runtime)) is not None:
            graph = whole_graph(runtime, model, subject.method, frame)
            return cls(style, lambda x: graph([x])[0])
        twin = copy.deepcopy(model)
        if style.dense:
            for block in twin.get_submodule("blocks").children() if style.compile else ():
                block.compile(dynamic=False)
            return cls(style, getattr(twin, subject.method))
        stream = Stream(
            convert(twin, policy, attention=style.attention),
            scene_cuts=None,
            method=subject.method,
            compile=style.compile,
        )
        return cls(style, stream, stream)

    def run(self, frame: Tensor) -> None:
        """Run one frame."""
        if self.stream is not None and self.style.first:
            self.stream.reset()
        self.output = self.call(frame)

    def begin(self) -> None:
        """Count operations from here."""
        self._before = self._counts()

    def operation_ratio(self) -> float:
        """Dense operations over those used, since `begin`."""
        if self.stream is None:
            return 1.0
        dense, used, _ = self._since()
        return dense / used

    def figures(self) -> dict[str, float]:
        """What else is worth knowing about the frames since `begin`."""
        if self.stream is None:
            return {}
        figures: dict[str, float] = {"state_bytes": self.stream.stats.state_bytes}
        return figures | ({"fallbacks": self._since()[2]} if self.style.compile else {})

    def attention_error(self) -> float | None:
        """The worst block's, on the latest frame."""
        return None if self.stream is None else attention_error(self.stream)

    def _since(self) -> tuple[int, ...]:
        return tuple(now - then for now, then in zip(self._counts(), self._before, strict=True))

    def _counts(self) -> tuple[int, int, int]:
        if self.stream is None:
            return 0, 0, 0
        stats = self.stream.stats
        return stats.total_dense_operations, stats.total_operations, stats.fallbacks
