"""A converted model's passes as programs: functions of tensors only, traced by `torch.export`.

There are three, each for one row of a batch and frames of one size. Arguments and results are
tensors in this order:

    dense:  frame, inputs                                      -> outputs, taps, keys and values
    step:   frame, inputs, chosen, stale, seats, shown, kept   -> outputs, taps, new keys and values
    show:   frame, inputs, shown                               -> outputs

`outputs` are the tensors that the model returns, `taps` and `shown` what is to be seen at each tap
(1, tokens, dim), `chosen` the positions of the tokens to compute, `stale` (tokens,) -inf at these
and 0 elsewhere. `kept` has k and v (1, heads, tokens, head_dim) of each block, and a step gives new
ones (chosen, heads, head_dim) of the chosen tokens only. Blocks that attend within windows keep
theirs (windows, heads, places, head_dim), padding among them, and `seats` has the four tensors of
`eventful.attention.Seats` for each kind of windows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from eventful.attention import Seats, Windows
from eventful.backbones.capturing import is_capturing
from eventful.block.bindings import Blocks, binding, windows_of
from eventful.block.block import EventfulBlock
from eventful.block.state import BlockState, Frame, KeysValues, Pass
from eventful.ops import Index
from eventful.runtimes.written import WrittenOut

PLAIN = Tensor | bool | int | float | str | None


class Subject(NamedTuple):
    """What is traced.

    Attributes:
        module: A stream's copy of a converted model.
        call: Its method that a frame runs through.
        blocks: Its eventful blocks.
        frame: What they share.
        model: What the stream was made for; streams of one model share graphs.
        method: The name of `call`.
        weights: Tells the state of its weights.
    """

    module: nn.Module
    call: Callable[..., Any]
    blocks: Blocks
    frame: Frame
    model: nn.Module
    method: str
    weights: Callable[[], Hashable]


@dataclass(frozen=True)
class Tree:
    """A structure of tensors and plain values, the tensors apart.

    Attributes:
        spec: The structure.
        leaves: Its plain values, and None for each tensor.
        places: Where tensors belong among the leaves.
    """

    spec: TreeSpec
    leaves: tuple[Any, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, tree: Any) -> tuple[Tree, list[Tensor]]:
        """Take a structure apart.

        Raises:
            ValueError: It holds something else.
        """
        leaves, spec = tree_flatten(tree)
        odd = {type(leaf).__name__ for leaf in leaves if not isinstance(leaf, PLAIN)}
        if odd:
            raise ValueError(
                f"a runtime gives and takes tensors and plain values, this model also "
                f"{', '.join(sorted(odd))}; use runtime='torch', or another method="
            )
        places = tuple(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
        plain = tuple(None if i in places else leaf for i, leaf in enumerate(leaves))
        return cls(spec, plain, places), [leaves[i] for i in places]

    def filled(self, tensors: Sequence[Tensor]) -> Any:
        """The structure with tensors in it."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        return tree_unflatten(leaves, self.spec)


@torch.inference_mode(False)
@torch.no_grad()
def trace(
    subject: Subject, x: Tensor, inputs: Mapping[str, Any], form: Pass
) -> tuple[dict[str, ExportedProgram], Tree]:
    """Trace a model's passes.

    Args:
        subject: The model, in eval mode, its blocks having run a first frame.
        x: A frame (batch, ...), of which the first row is taken.
        inputs: What else the model takes; what is no tensor becomes part of the programs.
        form: Any pass, as the stream asks for them.

    Returns:
        The programs "dense", "show" and, where keys and values are kept, "step"; and what the
        model returns.

    Raises:
        ValueError: The model has something that cannot be traced; the message says what.
    """
    check(subject, form)
    assert form.index is not None
    assert form.taps is not None
    tokens = form.index.tokens
    blocks = subject.blocks.values()
    states = {name: binding(block).state for name, block in subject.blocks.items()}
    kept = [torch.zeros(kept_shape(block, tokens)) for block in blocks for _ in range(2)]
    given, tensors = Tree.of(dict(inputs))
    first = [_zeros(x), *map(_zeros, tensors)]
    taps = [torch.zeros(1, tokens, subject.blocks[name].dim) for name in form.taps]
    work, trees = subject.frame.work, list[Tree]()
    try:
        for block in blocks:
            binding(block).state = BlockState()
        args = subject, given, form, trees.append
        programs = {
            "dense": _program(_Dense(*args), first),
            "show": _program(_Show(*args), [*first, *taps]),
        }
        if form.keep:
            chosen, stale = torch.arange(_CHOSEN), torch.zeros(tokens)
            sizes = _Sizes(len(first), tokens, all_windows(subject.blocks))
            some = [*first, chosen, stale, *sizes.seats(), *taps, *kept]
            programs["step"] = _program(_Step(*args), some, sizes)
    finally:
        subject.frame.work = work
        for name, block in subject.blocks.items():
            binding(block).state = states[name]
    return programs, trees[-1]


def all_windows(blocks: Blocks) -> list[Windows]:
    """The kinds of windows that blocks attend within, each once."""
    found = map(windows_of, blocks.values())
    return list(dict.fromkeys(windows for windows in found if windows is not None))


def step_inputs(blocks: Blocks, index: Index) -> list[Tensor]:
    """What a step is told of the tokens to compute: `chosen`, `stale` and `seats`.

    Args:
        blocks: The model's.
        index: The tokens, of a single row.
    """
    chosen = index.positions
    stale = torch.zeros(index.tokens).index_fill_(0, chosen, -torch.inf)
    seats = (x for windows in all_windows(blocks) for x in windows.seats(index))
    return [chosen, stale, *seats]


def kept_shape(block: EventfulBlock, tokens: int, rows: int = 1) -> tuple[int, ...]:
    """The shape of a block's kept keys, and of its values, in frames of so many tokens."""
    windows = windows_of(block)
    if windows is None:
        return rows, block.heads, tokens, block.head_dim
    return rows * windows.count, block.heads, windows.size**2, block.head_dim


@torch.inference_mode(False)
@torch.no_grad()
def trace_norm(norm: nn.Module, tokens: int, dim: int) -> ExportedProgram:
    """Trace a norm over (1, tokens, dim)."""
    return torch.export.export(_Norm(norm), (torch.zeros(1, tokens, dim),), strict=False)


class _Norm(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        return [self.norm(tensors[0])]


_CHOSEN = 3  # tokens that a step is traced with


def check(subject: Subject, form: Pass) -> None:
    """Refuse what a graph would leave out or cannot do.

    Args:
        subject: The model.
        form: Any pass, as the stream asks for them.

    Raises:
        ValueError: There is such a thing; the message names it.
    """
    weight = next(subject.module.parameters())
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise ValueError(
            f"runtimes run float32 models on the CPU, this one is {weight.dtype} on "
            f"{weight.device}; call model.float().cpu(), or use runtime='torch'"
        )
    if form.state_dtype not in (None, torch.float32):
        raise ValueError(
            f"runtimes keep keys and values in float32; leave state_dtype={form.state_dtype} out, "
            f"or use runtime='torch'"
        )
    for name, module in subject.module.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if not all(map(is_capturing, hooks)):  # those that record outputs are traced as well
            raise ValueError(
                f"{name or 'the model'} has a hook, which would not run in a runtime's graph; "
                f"remove it, or use runtime='torch'"
            )


class _Traced(nn.Module):
    """A pass through a model as a function of tensors.

    Args:
        subject: The model.
        given: What else it takes, beside the frame.
        form: Any pass, as the stream asks for them.
        returned: Is told how the model returns its output.
    """

    def __init__(
        self, subject: Subject, given: Tree, form: Pass, returned: Callable[[Tree], None]
    ) -> None:
        super().__init__()
        self._subject, self._given, self._form = subject, given, form
        self._returned = returned
        self._windows = all_windows(subject.blocks)

    def _run(self, inputs: Sequence[Tensor], work: Pass) -> list[Tensor]:
        x, *tensors = inputs
        self._subject.frame.work = work
        with WrittenOut():
            output = self._subject.call(x, **self._given.filled(tensors))
        tree, outputs = Tree.of(output)
        self._returned(tree)
        return outputs

    def _inputs(self, tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """What the model takes, and what else a pass does."""
        count = 1 + len(self._given.places)
        return tensors[:count], tensors[count:]

    @property
    def _taps(self) -> list[str]:
        return [name for name in self._subject.blocks if name in (self._form.taps or ())]

    @property
    def _states(self) -> list[BlockState]:
        return [binding(block).state for block in self._subject.blocks.values()]

    def _pass(self, index: Index, shown: Sequence[Tensor], stale: Tensor | None) -> Pass:
        named = {name: x.clone() for name, x in zip(self._taps, shown, strict=True)}
        return replace(self._form, index=index, shown=named, stale=stale, new={}, tokens=None)


class _Dense(_Traced):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert self._form.index is not None
        everything = Index.everything(1, self._form.index.tokens)
        self._seats = {w: w.seats(everything) for w in self._windows}  # looks at values: no graph

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        fresh = {"shown": {}, "outputs": {}, "tokens": None}
        work = replace(self._form, index=None, linked=frozenset(), **fresh)
        work.seats.update(self._seats)
        outputs = self._run(tensors, work)
        kept = [x for state in self._states if state.kv for x in state.kv]
        return [*outputs, *_apart(work.outputs), *(kept if work.keep else ())]


class _Show(_Traced):
    def forward(self, *tensors: Tensor) -> list[Tensor]:
        inputs, shown = self._inputs(tensors)
        nothing = torch.zeros(0, dtype=torch.int64)
        index = Index(nothing, (0,), shown[0].shape[1])
        return self._run(inputs, self._pass(index, shown, None))


class _Step(_Traced):
    def forward(self, *tensors: Tensor) -> list[Tensor]:
        inputs, (chosen, stale, *rest) = self._inputs(tensors)
        seats, rest = rest[: 4 * len(self._windows)], rest[4 * len(self._windows) :]
        shown, kept = rest[: len(self._taps)], rest[len(self._taps) :]
        for state, k, v in zip(self._states, kept[::2], kept[1::2], strict=True):
            state.kv = KeysValues(k, v)
        work = self._pass(Index(chosen, (chosen.shape[0],), stale.shape[0]), shown, stale)
        for place, windows in enumerate(self._windows):
            work.seats[windows] = Seats(*seats[4 * place : 4 * place + 4])
        outputs = self._run(inputs, work)
        new = [x for pair in work.new.values() for x in pair]
        return [*outputs, *_apart(work.shown), *new]


def _apart(taps: Mapping[str, Tensor]) -> list[Tensor]:
    """Taps as results of their own: OpenVINO refuses one that is also the model's output."""
    return [1 * tap for tap in taps.values()]


def _zeros(x: Tensor) -> Tensor:
    """Zeros like the first row of a tensor, which `torch.export` may look at."""
    return torch.zeros(1, *x.shape[1:], dtype=x.dtype)


class _Sizes(NamedTuple):
    """Sizes that vary among what a step takes.

    Attributes:
        inputs: The frame and what else a model takes, before the chosen tokens.
        tokens: N, above the number of chosen tokens.
        windows: The kinds of windows.
    """

    inputs: int
    tokens: int
    windows: list[Windows]

    def seats(self) -> list[Tensor]:
        """Examples: shapes that a trace does not take for fixed ones, and no tensor twice."""
        made: list[Tensor] = []
        for windows in self.windows:
            touched = min(2, windows.count)
            shapes = (touched,), (touched, 2), (_CHOSEN,), (_CHOSEN,)
            made += (torch.zeros(shape, dtype=torch.int64) for shape in shapes)
        return made

    def dimensions(self, count: int) -> list[Any]:
        """Of so many tensors."""
        chosen = {0: Dim("chosen", min=2, max=self.tokens - 1)}
        dimensions: list[Any] = [None] * self.inputs + [chosen, None]
        for place, windows in enumerate(self.windows):
            most = Dim(f"most_{place}", min=1, max=windows.size**2)
            touched = {0: Dim(f"touched_{place}", min=1, max=windows.count)}
            touched = touched if windows.count > 1 else {}
            dimensions += [touched, touched | {1: most}, chosen, chosen]
        return dimensions + [None] * (count - len(dimensions))


def _program(
    module: _Traced, args: Sequence[Tensor], sizes: _Sizes | None = None
) -> ExportedProgram:
    """Trace a pass.

    Args:
        module: The pass.
        args: Examples of what it takes.
        sizes: Of these, which vary.

    Raises:
        ValueError: The model cannot be traced.
    """
    dimensions = [None] * len(args) if sizes is None else sizes.dimensions(len(args))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about itself
        try:
            return torch.export.export(
                module, tuple(args), dynamic_shapes=(tuple(dimensions),), strict=False
            )
        except Exception as error:
            raise ValueError(
                f"torch.export cannot trace this {type(module._subject.module).__name__}, use "
                f"runtime='torch': {error}"
            ) from error
