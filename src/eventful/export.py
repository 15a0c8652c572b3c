"""Models as files for inference runtimes: written once, run without the model's own code."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eventful.block.bindings import binding
from eventful.block.block import EventfulBlock, TokenOperations
from eventful.block.options import Options
from eventful.block.state import Grid, Pass, Stage
from eventful.ops import Index
from eventful.policies import Auto, Skip
from eventful.runtimes import runtime_named
from eventful.runtimes.export import step_inputs, trace, trace_norm
from eventful.runtimes.int8 import Samples
from eventful.runtimes.passes import Graphs, hold
from eventful.runtimes.precision import LIMITS
from eventful.runtimes.runtime import Graph, Runtime
from eventful.stream import Stream, snapshots
from eventful.stream.inputs import known_normalization
from eventful.stream.layout import Layout, StatedModel, reader_norm

FILE = "model.json"
GRAPHS = "dense", "show", "step"


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    frame: Tensor,
    *,
    runtime: str = "openvino",
    method: str = "forward",
    precision: str = "float32",
    calibrate: Iterable[Tensor] | None = None,
) -> Path:
    """Write a converted model as graphs for an inference runtime.

    Args:
        model: A model that `eventful.convert` has converted, float32 on the CPU.
        path: A folder, which is made. Files of an earlier export in it are replaced.
        frame: (batch, channels, height, width) a frame as the model takes it, normalised. Graphs
            are for frames of its size, a row at a time.
        runtime: "openvino" (OpenVINO IR) or "onnxruntime" (ONNX).
        method: The model's method to run, such as "forward_features".
        precision: What the graphs compute with. "float32"; "bfloat16", in OpenVINO, on processors
            that do; or "int8", for the weights: with `calibrate`, and in ONNX Runtime always, for
            activations too. What a stream remembers stays in float32.
        calibrate: Frames like `frame` of a short clip, 8 to 32 of them, like those that the
            model will see. For "int8" in OpenVINO.

    Returns:
        The folder; `load` reads it.

    Raises:
        ValueError: The model is not converted, or has something that graphs cannot do; the message
            names it; or the graphs do not give what PyTorch does for this frame; or the runtime,
            or this processor, does not have this precision.
        ModuleNotFoundError: The runtime, or the tool that quantises, is not installed; the message
            has the pip line.

    Example:
        >>> import tempfile, timm, eventful
        >>> options = {"img_size": 32, "depth": 1, "num_classes": 5}
        >>> model = eventful.convert(timm.create_model("vit_tiny_patch16_224", **options))
        >>> frame, folder = torch.rand(1, 3, 32, 32), tempfile.TemporaryDirectory()
        >>> with folder as path:
        ...     exported = eventful.load(eventful.export(model, path, frame))
        ...     stream = eventful.Stream(exported, policy=eventful.Skip(2))
        ...     stream(frame).shape
        torch.Size([1, 5])
    """
    made = runtime_named(runtime, precision)
    if made is None:
        raise ValueError("runtime must be 'openvino' or 'onnxruntime', got 'torch'")
    clip = None if calibrate is None else _clip(calibrate, frame, precision)
    stream = Stream(model, policy=Skip(2), method=method)
    output, layout, bound = stream(frame), stream.layout, stream._bound
    assert layout is not None
    tokens = stream.computed.shape[1]
    whole = Index.everything(1, tokens)
    form = Pass(whole, keep=True, linked=layout.linked, taps=frozenset(layout.taps))
    programs, _ = trace(bound.subject, frame, {}, form)
    for place, name in enumerate(layout.taps):
        norm = reader_norm(bound, name)
        if isinstance(norm, nn.Module):
            programs[f"norm-{place}"] = trace_norm(norm, tokens, bound.blocks[name].dim)
    tensors: dict[str, Tensor] = {}
    structure = snapshots.packed(output, tensors)
    if structure is None:
        raise ValueError(
            f"export needs a method that returns tensors in dictionaries, lists or tuples; "
            f"{method} of {type(model).__name__} returns a {type(output).__name__}"
        )
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    models = {name: made.convert(program) for name, program in programs.items()}
    if made.precision == "int8":
        parts = len(tensors), len(layout.taps), step_inputs(bound.blocks, whole)
        samples = None if clip is None else Samples(made.load(models["dense"]), clip, *parts)
        models |= made.quantized({name: models[name] for name in GRAPHS}, samples)
    for name, converted in models.items():
        made.write(converted, folder / name)
    known = known_normalization(model)
    content = {
        "runtime": runtime,
        "precision": precision,
        "calibrated": len(clip or ()),
        "frame": list(frame.shape[1:]),
        "tokens": tokens,
        "layout": {**layout._asdict(), "linked": sorted(layout.linked)},
        "blocks": {name: _numbers(block) for name, block in bound.blocks.items()},
        "outside": bound.account.outside // len(frame),
        "graphs": list(programs),
        "output": structure,
        "normalization": known and [x.flatten().tolist() for x in known],
        "weights": snapshots.digest(model.state_dict().values()),
    }
    (folder / FILE).write_text(json.dumps(content, indent=1))
    what, exact = f"the exported {type(model).__name__}", precision == "float32"
    limit = LIMITS[made.precision]
    error = hold(load(folder)(frame), output, what, limit if exact else torch.inf)
    if not error <= limit:
        raise ValueError(
            f"in {precision} this {type(model).__name__} is {error:.2g} off, relative, on this "
            f"frame, more than {limit}; use precision='float32', or calibrate on frames like it"
        )
    content["error"] = error
    (folder / FILE).write_text(json.dumps(content, indent=1))
    return folder


def load(path: str | os.PathLike[str]) -> ExportedModel:
    """Read what `export` wrote.

    Args:
        path: The folder.

    Returns:
        A converted model, for `Stream` with any frame policy.

    Raises:
        FileNotFoundError: The folder holds no exported model.
        ModuleNotFoundError: The runtime is not installed; the message has the pip line.

    Example: see `export`.
    """
    return ExportedModel(Path(path)).eval()


def _clip(calibrate: Iterable[Tensor], frame: Tensor, precision: str) -> list[Tensor]:
    """The rows of a clip to calibrate on.

    Raises:
        ValueError: There are none, or they are not like the frame, or of no use.
    """
    if precision != "int8":
        raise ValueError(f"calibrate= is for precision='int8', got precision={precision!r}")
    rows: list[Tensor] = []
    for other in calibrate:
        if other.shape[1:] != frame.shape[1:] or other.dtype != frame.dtype:
            raise ValueError(
                f"frames of calibrate= must be like frame=, (batch, "
                f"{', '.join(map(str, frame.shape[1:]))}) of {frame.dtype}; got one of shape "
                f"{tuple(other.shape)} of {other.dtype}"
            )
        rows += [row.contiguous() for row in other.split(1)]
    if not rows:
        raise ValueError("calibrate= has no frames; give 8 to 32 of a short clip")
    return rows


def _numbers(block: EventfulBlock) -> dict[str, Any]:
    """What a stream needs to know of a block that it does not run itself."""
    return {
        "heads": block.heads,
        "head_dim": block.head_dim,
        "special": [block.prefix_tokens, block.suffix_tokens],
        "grid": binding(block).grid,
        "window": block.window_size,
        "lines": block.bias_grid(binding(block).grid),
        "linears": block.linears(),
    }


class ExportedModel(StatedModel):
    """A converted model that lies in files; its blocks are known by their numbers only.

    Args:
        folder: Of an export.

    Attributes:
        precision: What its graphs compute with.
        error: How far its output was off PyTorch's, relative, on the frame it was exported with.
        weights: A digest of the model's weights, so that snapshots of others are refused.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._content = content = json.loads((folder / FILE).read_text())
        runtime = runtime_named(content["runtime"], content["precision"])
        assert runtime is not None
        files = {name: runtime.read(folder / name) for name in content["graphs"]}
        self._loaded = _Loaded(runtime, files)
        self.precision = runtime.precision
        self.error: float | None = content.get("error")
        layout = content["layout"]
        self.layout = Layout(
            tuple(layout["grid"]),
            layout["prefix"],
            tuple(layout["taps"]),
            frozenset(layout["linked"]),
            layout["suffix"],
        )
        self.outside = content["outside"]
        digest = torch.tensor(list(bytes.fromhex(content["weights"])), dtype=torch.float32)
        self.weights = nn.Parameter(digest, requires_grad=False)
        if content["normalization"]:
            mean, std = content["normalization"]
            self.pretrained_cfg = {"mean": mean, "std": std}
        self.blocks = nn.ModuleList(
            _Numbers(name, numbers) for name, numbers in content["blocks"].items()
        )
        self._made: tuple[int, Graphs] | None = None  # of the model of this id

    def norm_of(self, tap: str) -> Any:
        """The final norm behind a tap, as a graph."""
        name = f"norm-{self.layout.taps.index(tap)}"
        if name not in self._loaded:
            return None
        graph = self._loaded.twin(name)
        return lambda x: torch.cat([graph([row.contiguous()])[0].clone() for row in x.split(1)])

    def forward(self, frame: Tensor) -> Any:
        """What the exported method returns.

        Raises:
            ValueError: The frame is of another size than the graphs.
        """
        if list(frame.shape[1:]) != self._content["frame"]:
            raise ValueError(
                f"this model was exported for frames (batch, {self._content['frame']}), got "
                f"{tuple(frame.shape)}; export it for this size"
            )
        work = Pass()  # without a stream, a dense one
        for block in self._numbers.values():
            if (tie := block.binding) is not None:
                work, tie.runs, tie.grid = tie.frame.work or work, 1, block.grid
        work.index = work.index or Index.everything(len(frame), self._content["tokens"])
        tensors = self._graphs().run([frame.contiguous()], work)
        named = {str(place): tensor for place, tensor in enumerate(tensors)}
        return snapshots.unpacked(self._content["output"], named)

    def _graphs(self) -> Graphs:
        """This stream's own graphs."""
        if self._made is None or self._made[0] != id(self):  # a stream has a copy of the model
            count = _tensors_in(self._content["output"])
            twins = {name: self._loaded.twin(name) for name in GRAPHS}
            self._made = id(self), Graphs(twins, self.layout.taps, self._numbers, count)
        return self._made[1]

    @property
    def _numbers(self) -> dict[str, _Numbers]:
        blocks = (block for block in self.blocks if isinstance(block, _Numbers))
        return {block.name: block for block in blocks}


class _Loaded:
    """Graphs that all streams of an exported model share, each compiled when it is asked for."""

    def __init__(self, runtime: Runtime, files: Mapping[str, Any]) -> None:
        self._runtime, self._files = runtime, files
        self._graphs: dict[str, Graph] = {}
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def twin(self, name: str) -> Graph:
        """A graph for one stream."""
        with self._lock:
            if name not in self._graphs:
                self._graphs[name] = self._runtime.load(self._files[name])
            return self._graphs[name].twin()


def _tensors_in(structure: Any) -> int:
    if structure[0] in ("tensor", "value"):
        return int(structure[0] == "tensor")
    return sum(map(_tensors_in, structure[1]))


def _grid(sides: Sequence[int] | None) -> Grid | None:
    """A grid as JSON has it."""
    return None if sides is None else (sides[0], sides[1])


class _Numbers(EventfulBlock):
    """A block that graphs run."""

    def __init__(self, name: str, numbers: Mapping[str, Any]) -> None:
        prefix, suffix = numbers["special"]
        super().__init__(nn.Identity(), name, prefix, Options(), {}, Auto(), None, suffix)
        self._numbers = numbers
        self.grid: Grid | None = _grid(numbers["grid"])

    @staticmethod
    def account(original: nn.Module, name: str) -> None:
        """There is nothing to check."""

    @property
    def heads(self) -> int:
        """H, the number of heads."""
        return self._numbers["heads"]

    @property
    def head_dim(self) -> int:
        """d, the size of one head."""
        return self._numbers["head_dim"]

    @property
    def window_size(self) -> int:
        """Side of the windows that attention stays within; 0 where it spans the frame."""
        return self._numbers["window"]

    def bias_grid(self, grid: Grid | None) -> Grid | None:
        """Height and width of the grid of relative positions, for the operation count."""
        return _grid(self._numbers["lines"])

    def linears(self) -> dict[Stage, list[TokenOperations]]:
        """The linear layers that each gate guards, for the operation count."""
        layers = self._numbers["linears"]
        return {stage: [TokenOperations(*layer) for layer in layers[stage]] for stage in layers}

    def _in_graphs(self, *args: Any, **kwargs: Any) -> Any:
        """Raise: what a block computes is in the graphs."""
        raise TypeError(f"{self.name} was exported: graphs run it, and its parts cannot be called")

    @property
    def scale(self) -> float:
        """Factor on the scores, which graphs know."""
        return self._in_graphs()

    norm_1 = to_qkv = mix = to_out = norm_2 = to_mlp = _in_graphs
