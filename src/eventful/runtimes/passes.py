"""A stream's passes, run by an inference runtime."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from eventful.block.bindings import Blocks, binding
from eventful.block.state import KeysValues, Pass
from eventful.ops import Index
from eventful.runtimes.export import Programs, Subject, Tree, trace
from eventful.runtimes.runtime import Runtime

TOLERANCE = 1e-3  # relative, of the first frame's check: some hundred roundings of float32


class Passes:
    """Runs a model's passes in a runtime. Each size of frames makes graphs once.

    Args:
        runtime: Where they run.
        subject: The model.
    """

    def __init__(self, runtime: Runtime, subject: Subject) -> None:
        self._runtime, self._subject = runtime, subject
        self._made: dict[Any, Graphs] = {}

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
        given, tensors = Tree.of(dict(inputs))
        shapes = [(tensor.shape[1:], tensor.dtype) for tensor in (x, *tensors)]
        key = str((shapes, given, sorted(work.taps or ()), sorted(work.linked), work.keep))
        if key not in self._made:
            programs = trace(self._subject, x, inputs, work)
            self._made[key] = Graphs(self._runtime, programs, self._subject.blocks)
        return self._made[key].run(x, tensors, work)

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
            pairs = zip(_floats(ours), _floats(output), strict=True)
            taps = ((again.outputs or again.shown)[name] for name in work.outputs)
            off = [_off(a, b) for a, b in (*pairs, *zip(taps, work.outputs.values(), strict=True))]
            if not max(off) <= TOLERANCE:
                raise ValueError(
                    f"the {kind} graph of {type(self._runtime).__name__} does not compute what "
                    f"PyTorch does: it is {max(off):.2g} off, relative, on the first frame; use "
                    f"runtime='torch', and please report the model"
                )


class Graphs:
    """A model's graphs for frames of one size. Rows of a batch run one after the other.

    Args:
        runtime: Compiles them.
        programs: What to compile.
        blocks: Whose kept keys and values are read and written.
    """

    def __init__(self, runtime: Runtime, programs: Programs, blocks: Blocks) -> None:
        self._blocks, self._output = blocks, programs.output
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the runtimes, about themselves
            self._dense, self._show = map(runtime.compile, (programs.dense, programs.show))
            self._step = None if programs.step is None else runtime.compile(programs.step)

    def run(self, x: Tensor, tensors: Sequence[Tensor], work: Pass) -> Any:
        """Run a pass; see `Passes.run`."""
        index, taps = work.index, [name for name in self._blocks if name in (work.taps or ())]
        assert index is not None
        given = [_rows(tensor, len(x)) for tensor in (x, *tensors)]
        outputs: list[list[Tensor]] = []
        shown: list[list[Tensor]] = []
        for row, chosen in enumerate(index.rows()):
            own = [rows[row] for rows in given]
            before = [work.shown[name][row : row + 1] for name in taps if name in work.shown]
            output, after = self._row(row, chosen, index.tokens, own, before, work.keep)
            outputs.append(output)
            shown.append(after)
        whole = [torch.cat(rows) for rows in zip(*shown, strict=True)]
        joined = dict(zip(taps, whole, strict=True))
        if index.is_everything:
            work.outputs = joined
        else:
            work.shown = joined
        return self._output.filled([torch.cat(rows) for rows in zip(*outputs, strict=True)])

    def _row(
        self,
        row: int,
        chosen: Tensor,
        tokens: int,
        inputs: list[Tensor],
        shown: list[Tensor],
        keep: bool,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What the model returns of one row, and what its taps show."""
        if not len(chosen):
            return [x.clone() for x in self._show([*inputs, *shown])], shown
        kept = [self._kept(name, row) for name in self._blocks] if keep else []
        if len(chosen) == tokens:
            found = self._dense(inputs)
        else:
            assert self._step is not None
            stale = torch.zeros(tokens).index_fill_(0, chosen, -torch.inf)
            found = self._step([*inputs, chosen, stale, *shown, *(x for kv in kept for x in kv)])
        outputs, rest = _cut(found, len(self._output.places))
        after, new = _cut(rest, len(shown) or len(rest) - 2 * len(kept))
        for old, k, v in zip(kept, new[::2], new[1::2], strict=True):
            if len(chosen) == tokens:
                old.k.copy_(k)
                old.v.copy_(v)
            else:
                old.write_(chosen, KeysValues(k, v))
        return [x.clone() for x in outputs], [x.clone() for x in after]

    def _kept(self, name: str, row: int) -> KeysValues:
        kept = binding(self._blocks[name]).state.kv
        assert kept is not None  # the first frame is whole
        return kept.row(row)


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
    if ours.shape != theirs.shape:
        return torch.inf
    size = theirs.norm().clamp_min(torch.finfo(torch.float32).tiny)
    return ((ours - theirs).norm() / size).item()
