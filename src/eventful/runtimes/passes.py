"""A stream's passes, run by an inference runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from eventful.block.bindings import Blocks, binding, windows_of
from eventful.block.state import KeysValues, Pass
from eventful.ops import Index
from eventful.runtimes.export import (
    Subject,
    Tree,
    all_windows,
    check,
    kept_shape,
    step_inputs,
    trace,
)
from eventful.runtimes.precision import LIMITS
from eventful.runtimes.runtime import Graph, Runtime
from eventful.runtimes.shared import Compiled, shared


class Passes:
    """Runs a model's passes in a runtime. Each size of frames makes graphs once.

    Args:
        runtime: Where they run.
        subject: The model.
    """

    def __init__(self, runtime: Runtime, subject: Subject) -> None:
        self._runtime, self._subject = runtime, subject
        self._made: dict[str, tuple[Graphs, Tree]] = {}

    def forget(self) -> None:
        """Let go of all graphs: the model's weights have changed."""
        self._made.clear()

    def run(self, x: Tensor, inputs: Mapping[str, Any], work: Pass) -> Any:
        """Run a pass, as the blocks would in PyTorch.

        Args:
            x: The frame (batch, ...).
            inputs: What else the model takes.
            work: The pass; gets what its taps show.

        Returns:
            What the model returns.

        Raises:
            ValueError: The model cannot be traced; the message says what cannot.
        """
        for name, value in inputs.items():
            if "attention_mask" in name and isinstance(value, Tensor) and not value.bool().all():
                raise ValueError(
                    f"{name} hides something, which graphs of eventful blocks cannot; leave it "
                    f"out, or use runtime='torch'"
                )
        given, tensors = Tree.of(dict(inputs))
        shapes = [(tensor.shape[1:], tensor.dtype) for tensor in (x, *tensors)]
        key = str((shapes, given, sorted(work.taps or ()), sorted(work.linked), work.keep))
        if key not in self._made:
            self._made[key] = self._make(key, x, inputs, work)
        graphs, output = self._made[key]
        return output.filled(graphs.run([x, *tensors], work))

    def _make(
        self, key: str, x: Tensor, inputs: Mapping[str, Any], work: Pass
    ) -> tuple[Graphs, Tree]:
        subject, runtime = self._subject, self._runtime
        check(subject, work)  # whatever was allowed when others made the graphs

        def compiled() -> Compiled:
            programs, output = trace(subject, x, inputs, work)
            return Compiled({name: runtime.compile(p) for name, p in programs.items()}, output)

        everything = runtime.name, subject.method, tuple(subject.blocks), key
        graphs, output = shared(subject.model, subject.weights(), everything, compiled)
        taps = [name for name in subject.blocks if name in (work.taps or ())]
        twins = {name: graph.twin() for name, graph in graphs.items()}
        return Graphs(twins, taps, subject.blocks, len(output.places)), output

    def check(self, x: Tensor, inputs: Mapping[str, Any], work: Pass, output: Any) -> None:
        """Hold the graphs to a frame that PyTorch has just computed in full.

        Args:
            x: The frame.
            inputs: What else the model takes.
            work: The pass, its outputs noted.
            output: What the model returned.

        Raises:
            ValueError: A graph gives something else.
        """
        assert work.index is not None
        batch, tokens = len(work.index.counts), work.index.tokens
        kinds = {"dense": tokens, "show": 0} | ({"step": max(2, tokens // 8)} if work.keep else {})
        for kind, count in kinds.items():
            chosen = torch.arange(count).expand(batch, -1)
            shown = {name: tap.clone() for name, tap in work.outputs.items()}
            again = replace(work, index=Index.from_positions(chosen, tokens), shown=shown)
            again.outputs = {}
            ours = self.run(x, inputs, again)
            hold(
                (ours, again.outputs or again.shown),
                (output, work.outputs),
                f"the {kind} graph of {type(self._runtime).__name__}",
            )


class Graphs:
    """A model's graphs for frames of one size. Rows of a batch run one after the other.

    Args:
        graphs: "dense", "show" and, where keys and values are kept, "step", this stream's own.
        taps: Blocks whose outputs something else than the next block reads, in order.
        blocks: Whose kept keys and values are read and written.
        outputs: How many tensors the model returns.
    """

    def __init__(
        self,
        graphs: Mapping[str, Graph],
        taps: Sequence[str],
        blocks: Blocks,
        outputs: int,
    ) -> None:
        self._taps, self._blocks, self._outputs = taps, blocks, outputs
        self._slots = {windows: windows.slots() for windows in all_windows(blocks)}
        self._graphs = graphs

    def run(self, tensors: Sequence[Tensor], work: Pass) -> list[Tensor]:
        """Run a pass, as the blocks would in PyTorch.

        Args:
            tensors: The frame (batch, ...) and what else the model takes.
            work: The pass; gets what its taps show.

        Returns:
            The tensors that the model returns.
        """
        index = work.index
        assert index is not None
        if work.keep and work.beside is None:
            self._make_room(len(index.counts), index.tokens)
        given = [_rows(tensor, len(index.counts)) for tensor in tensors]
        outputs: list[list[Tensor]] = []
        shown: list[list[Tensor]] = []
        for row, chosen in enumerate(index.rows()):
            own = [rows[row] for rows in given]
            before = [work.shown[name][row : row + 1] for name in self._taps if work.shown]
            before = [tap.contiguous() for tap in before]  # some models' are channels first
            output, after = self._row(row, chosen, own, before, work)
            outputs.append(output)
            shown.append(after)
        whole = [torch.cat(rows) for rows in zip(*shown, strict=True)]
        joined = dict(zip(self._taps, whole, strict=True))
        if index.is_everything:
            work.outputs = joined
        else:
            work.shown = joined
        return [torch.cat(rows) for rows in zip(*outputs, strict=True)]

    def _row(
        self,
        row: int,
        chosen: Tensor,
        inputs: list[Tensor],
        shown: list[Tensor],
        work: Pass,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What the model returns of one row, and what its taps show."""
        if not len(chosen):
            return [x.clone() for x in self._graphs["show"]([*inputs, *shown])], shown
        assert work.index is not None
        tokens = work.index.tokens
        kept = [self._kept(name, row, work) for name in self._blocks] if work.keep else []
        if len(chosen) == tokens:
            found = self._graphs["dense"](inputs)
        else:
            told = step_inputs(self._blocks, Index(chosen, (len(chosen),), tokens))
            pairs = (x for kv in kept for x in kv)
            found = self._graphs["step"]([*inputs, *told, *shown, *pairs])
        outputs, rest = _cut(found, self._outputs)
        after, new = _cut(rest, len(self._taps))
        if work.keep and work.beside is None:
            pairs = zip(self._blocks, kept, new[::2], new[1::2], strict=True)
            for name, old, k, v in pairs:
                self._write(name, old, KeysValues(k, v), chosen, tokens)
        return [x.clone() for x in outputs], [x.clone() for x in after]

    def _write(
        self, name: str, kept: KeysValues, new: KeysValues, chosen: Tensor, tokens: int
    ) -> None:
        """Write a block's new keys and values over those kept of one row."""
        if len(chosen) == tokens:
            kept.copy_(new)
            return
        windows = windows_of(self._blocks[name])
        kept.write_(chosen if windows is None else self._slots[windows][chosen], new)

    def _make_room(self, rows: int, tokens: int) -> None:
        """Let blocks that have computed nothing yet keep keys and values."""
        for block in self._blocks.values():
            state, size = binding(block).state, kept_shape(block, tokens, rows)
            state.kv = state.kv or KeysValues(torch.empty(size), torch.empty(size))

    def _kept(self, name: str, row: int, work: Pass) -> KeysValues:
        if work.beside is not None:
            return work.beside[row][name]
        kept = binding(self._blocks[name]).state.kv
        assert kept is not None
        assert work.index is not None
        return kept.split(len(work.index.counts))[row]


def hold(ours: Any, theirs: Any, what: str, limit: float = LIMITS["float32"]) -> float:
    """Hold what graphs gave to what PyTorch did.

    Args:
        ours: Tensors in any structure.
        theirs: The same.
        what: Of which graphs, for the message.
        limit: The largest relative error that rounding explains.

    Returns:
        The relative error.

    Raises:
        ValueError: It is larger.
    """
    pairs = list(zip(_floats(ours), _floats(theirs), strict=True))
    for a, b in pairs:
        if a.shape != b.shape:
            raise ValueError(
                f"{what} gives {tuple(a.shape)} where PyTorch gives {tuple(b.shape)}: rows of a "
                f"batch run one by one, and this model compares or joins them; give each a stream "
                f"of its own, or use runtime='torch'"
            )
    error = max(_off(a, b) for a, b in pairs)
    if not error <= limit:
        raise ValueError(
            f"{what} does not compute what PyTorch does: it is {error:.2g} off, relative, on "
            f"the first frame; use runtime='torch', and please report the model"
        )
    return error


def _cut(tensors: list[Tensor], place: int) -> tuple[list[Tensor], list[Tensor]]:
    return tensors[:place], tensors[place:]


def _rows(x: Tensor, batch: int) -> list[Tensor]:
    """The rows of a batch, as graphs take them."""
    if len(x) != batch:
        raise ValueError(
            f"a runtime runs the rows of a batch one by one, so every input needs {batch} of "
            f"them; got one of shape {tuple(x.shape)}; use runtime='torch'"
        )
    return [row.contiguous() for row in x.split(1)]


def _floats(output: Any) -> list[Tensor]:
    leaves = tree_leaves(output)
    return [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]


def _off(ours: Tensor, theirs: Tensor) -> float:
    """Relative error."""
    size = theirs.norm().clamp_min(torch.finfo(torch.float32).tiny)
    return ((ours - theirs).norm() / size).item()
