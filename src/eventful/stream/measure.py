"""What a frame of each kind costs: in operations, or in time on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from eventful.block.bindings import binding
from eventful.block.state import BlockState, Pass
from eventful.counting.account import Account
from eventful.motion import Flow, Look, Picture, View
from eventful.ops import Index
from eventful.stream.bound import Bound, now
from eventful.stream.costs import Costs
from eventful.stream.taps import Taps

RUNS = 3  # of each kind of frame; the fastest counts
SHARES = 1 / 16, 1 / 4  # of the patches, at which partial frames are measured
STEP = 2  # pixels that the picture moves by, for the flow to have something to find


def counted_costs(account: Account, prefix: int, rows: int, repeats: bool) -> Costs:
    """Costs in operations, of one row.

    Args:
        account: Of the stream, its sizes known.
        prefix: Class and register tokens, and others that are no patches.
        rows: Batch rows of a frame.
        repeats: Whether a held frame gives the last output again.
    """
    outside = account.outside / rows
    one, two = (account.passed(prefix + patches).total for patches in (1, 2))
    return Costs(
        dense=account.dense(1).total - account.outside + outside,
        carried=outside,
        held=0 if repeats else outside,
        partial=outside + 2 * one - two,
        token=two - one,
        unit="operations",
    )


def timed_costs(
    bound: Bound,
    compute: Callable[[Tensor, Mapping[str, Any], Pass], Any],
    x: Tensor,
    images: Tensor,
    inputs: Mapping[str, Any],
    taps: Taps,
    linked: frozenset[str],
    repeat: Callable[[], Any] | None,
) -> Costs:
    """Costs in milliseconds, of one row, motion included; what is remembered stays as it is.

    Args:
        bound: The model, a first frame behind it.
        compute: Takes a pass through it, in PyTorch or in a runtime.
        x: The frame.
        images: The same as pictures.
        inputs: What else the model takes.
        taps: Its outputs.
        linked: Blocks that take the output of the block before as it is.
        repeat: Gives the last output again, as a held frame does; None if it runs the model.
    """
    height, width = taps.grid
    patches, rows = height * width, len(x)
    tokens = taps.special + patches
    flow = Flow()
    (picture,) = Picture.each(flow.smaller(images[:1]))
    view = View.of(flow, taps.grid, picture)

    def watch() -> Picture:
        (moved,) = Picture.each(flow.smaller(images[:1]).roll(STEP, dims=-1))
        view.still(moved)
        view.distance(moved)
        return moved

    def look() -> Look:
        return view.look(watch())

    moved = watch()
    seen = view.look(moved)

    def run(active: int, moves: bool) -> None:
        chosen = torch.linspace(0, tokens - 1, active, device=x.device).long().unique()
        index = Index.from_positions(chosen.expand(rows, -1), tokens)
        work = Pass(index, True, linked, taps=frozenset(taps.norms))
        if active < tokens:
            work.shown = taps.show([seen if moves else None] * rows, x.dtype)
        compute(x, inputs, work)

    few, many = (max(1, int(share * patches)) for share in SHARES)
    works: dict[str, Callable[[], Any]] = {
        "watch": watch,
        "motion": look,
        "back": lambda: (view.look(moved), taps.show([seen] * rows, x.dtype)),
        "held": repeat or (lambda: run(0, False)),
        "carried": lambda: run(0, True),
        "few": lambda: run(taps.special + few, True),
        "many": lambda: run(taps.special + many, True),
        "dense": lambda: run(tokens, False),
    }
    states = {name: binding(block).state for name, block in bound.blocks.items()}
    for block in bound.blocks.values():
        kv = binding(block).state.kv
        binding(block).state = BlockState(kv=None if kv is None else kv.copy())
    try:
        found = _fastest(works, x)
    finally:
        for name, block in bound.blocks.items():
            binding(block).state = states[name]
    return _ordered(found, rows, few, many)


def _fastest(works: Mapping[str, Callable[[], Any]], x: Tensor) -> dict[str, float]:
    """Milliseconds of each: its fastest run, all in turn, so that a busy moment counts for none."""
    found = dict.fromkeys(works, math.inf)
    for _ in range(RUNS):
        for name, work in works.items():
            start = now(x)
            work()
            found[name] = min(found[name], 1e3 * (now(x) - start))
    return found


def _ordered(found: Mapping[str, float], rows: int, few: int, many: int) -> Costs:
    """The costs of a row, none above that of a kind that does more.

    Args:
        found: Milliseconds by kind, of all rows; of watching the picture of one, and of finding its
            motion with that.
        rows: How many.
        few: Tokens of a small partial frame.
        many: Those of a larger one.
    """
    motion = found["motion"]
    dense = found["dense"] / rows + motion
    carried = min(dense, found["carried"] / rows + motion)
    some, more = (min(dense, max(carried, found[name] / rows + motion)) for name in ("few", "many"))
    token = max(1e-9, (more - some) / max(1, many - few))
    return Costs(
        dense=dense,
        carried=carried,
        held=min(carried, found["held"] / rows + found["watch"]),
        partial=max(carried, some - few * token),
        token=token,
        back=found["back"],
    )
