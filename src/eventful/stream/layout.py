"""How a model's blocks hang together, found on its first frame: links, taps, the token grid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from difflib import get_close_matches
from itertools import chain, pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from eventful.backbones.capturing import is_capturing
from eventful.block.bindings import binding
from eventful.block.block import EventfulBlock
from eventful.block.state import Pass
from eventful.block.work import ShapesError
from eventful.counting import Observer
from eventful.stream.bound import Bound
from eventful.stream.taps import Norm

_PATCHES = range(1, 129)  # sides of a patch in pixels that are tried


class Layout(NamedTuple):
    """How a model's blocks hang together.

    Attributes:
        grid: Height and width of the grid of patch tokens.
        prefix: Class and register tokens in front of them.
        suffix: Further tokens behind them.
        taps: Blocks whose outputs something else than the next block reads.
        linked: Blocks that take the output of the block before as it is; to the others all
            tokens are handed.
    """

    grid: tuple[int, int]
    prefix: int
    taps: tuple[str, ...]
    linked: frozenset[str]
    suffix: int = 0


class StatedModel(nn.Module, ABC):
    """A model that states what a stream finds out about others on their first frame.

    Attributes:
        layout: How its blocks hang together.
        outside: Operations of a row outside them.
    """

    layout: Layout
    outside: int

    @abstractmethod
    def norm_of(self, tap: str) -> Norm | None:
        """What the reader of a tap puts before it, if anything."""


def linked_blocks(work: Pass, observer: Observer) -> frozenset[str]:
    """The blocks that take the output of the block before as it is.

    Between others something stands (a convolution, positions that are added, a block that was left
    dense), which needs all tokens.
    """
    names = list(work.inputs)
    return frozenset(
        name
        for before, name in pairwise(names)
        if before not in observer.written and _same(work.outputs[before], work.inputs[name])
    )


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one view of one memory."""
    layout = a.data_ptr() == b.data_ptr() and a.stride() == b.stride()
    return layout and a.shape == b.shape


def read_blocks(
    bound: Bound, work: Pass, output: Any, observer: Observer, linked: frozenset[str]
) -> list[str]:
    """The blocks whose outputs something else than the next block reads.

    Args:
        bound: The model.
        work: The first frame's pass.
        output: What the model gave.
        observer: Saw what ran outside the blocks.
        linked: Blocks that take the output of the block before as it is.

    Raises:
        ValueError: A name given to `convert` is none of a block, or one that is read is missing; or
            nothing is read.
    """
    names, given = list(bound.blocks), bound.taps
    shapes = {name: tuple(out.shape) for name, out in work.outputs.items()}
    odd = {name: shape for name, shape in shapes.items() if shape != shapes[names[0]]}
    if odd:
        raise ShapesError(
            f"frame policies need blocks of one shape; {names[0]} gives {shapes[names[0]]} and "
            f"others {odd}; leave them out with convert(..., where=...)"
        )
    taken = [work.inputs[name] for name in names if name not in linked]
    seen = {x.untyped_storage().data_ptr() for x in (*_tensors(output), *taken)}
    read = {name for name, x in work.outputs.items() if x.untyped_storage().data_ptr() in seen}
    read |= {name for name in names if _is_hooked(bound.blocks[name])}
    hooked = {name for name in names if bound.blocks[name]._forward_pre_hooks}
    read |= {a for a, b in pairwise(names) if b in hooked or b not in linked}
    read |= observer.read & set(names)
    if not read:
        raise ValueError("nothing reads what the blocks compute; there is nothing to carry along")
    for name in given or ():
        if name not in names:
            near = ", ".join(get_close_matches(name, names)) or ", ".join(names[-3:])
            raise ValueError(f"taps: no block is called {name!r}; there are: {near}")
    missing = sorted(read - set(given or names))
    if missing:
        raise ValueError(
            f"taps={list(given or ())} leaves out {', '.join(missing)}, whose output the model "
            f"reads; add it, or leave taps out"
        )
    return [name for name in names if name in (given or read)]


def _tensors(tree: Any) -> list[Tensor]:
    """The tensors of a model's output, those in objects of its own among them."""
    leaves = tree_leaves(tree)
    inside = [tree_leaves(vars(x)) for x in leaves if hasattr(x, "__dict__")]
    return [x for x in (*leaves, *chain(*inside)) if isinstance(x, Tensor)]


def token_grid(bound: Bound, x: Tensor, patches: int, needed: bool) -> tuple[int, int]:
    """Height and width of the grid of patch tokens.

    Blocks say it where they are told; else it follows from the frame's size and their number, or,
    where the model resizes frames first, from its patch embedding.

    Raises:
        ValueError: It cannot be told, and is needed.
    """
    told = binding(next(iter(bound.blocks.values()))).grid
    height, width = x.shape[-2:] if x.ndim == 4 else (0, 0)
    if told is not None and not (needed and height and _is_skewed(told, height, width)):
        return told
    if told is None and height:
        for side in _PATCHES:
            for grid in ((height // side, width // side), (-(-height // side), -(-width // side))):
                if grid[0] * grid[1] == patches:
                    return grid
    for module in bound.module.modules():
        stated = getattr(module, "grid_size", None)
        if isinstance(stated, tuple) and len(stated) == 2 and stated[0] * stated[1] == patches:
            return stated
    if needed:
        raise ValueError(
            f"cannot tell the grid of {patches} patch tokens of a frame {tuple(x.shape)}, along "
            f"which outputs would be moved; Skip(k) and token policies such as TopR(r) need none"
        )
    return 1, patches


def _is_skewed(grid: tuple[int, int], height: int, width: int) -> bool:
    """Whether patches of a grid would be no squares, by more than the padding of one patch."""
    sides = height / grid[0], width / grid[1]
    return abs(sides[0] - sides[1]) * min(grid) > max(sides)


def reader_norm(bound: Bound, name: str) -> Norm:
    """The final norm that stands behind a block's list, if there is one; else nothing."""
    if isinstance(bound.module, StatedModel):
        return bound.module.norm_of(name) or _as_is
    block, path = bound.blocks[name], name.split(".")[:-1]
    for end in range(len(path) - 1, -1, -1):
        holder = bound.module.get_submodule(".".join(path[:end]))
        for norm in (getattr(holder, known, None) for known in block.final_norms):
            weight = getattr(norm, "weight", None)
            fits = isinstance(weight, Tensor) and weight.shape == (block.dim,)
            if isinstance(norm, nn.Module) and fits:
                return norm
    return _as_is


def _is_hooked(block: EventfulBlock) -> bool:
    """Whether someone looks at what a block gives; a hook that records on demand is no reader."""
    return not all(map(is_capturing, block._forward_hooks.values()))


def _as_is(x: Tensor) -> Tensor:
    return x
