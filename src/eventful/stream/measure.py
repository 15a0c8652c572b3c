"""What a frame of each kind costs: in operations, or in time on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from eventful.block.bindings import binding
from eventful.block.state import BlockState, Pass
from eventful.counting.account import Account
from eventful.motion import Flow, Look, Picture, View
from eventful.ops import Index
from eventful.stream.bound import Bound, now
from eventful.stream.costs import Costs
from eventful.stream.taps import Taps

Compute = Callable[[Tensor, Mapping[str, Any], Pass], Any]

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


@final
class Measured:
    """What frames cost, in milliseconds, for all streams that share it.

    Args:
        beside: How many frames usually share a pass, if they may.
    """

    def __init__(self, beside: int = 1) -> None:
        self._beside = beside
        self._known: MutableMapping[nn.Module, dict[Any, Costs]] = WeakKeyDictionary()

    def costs(self, bound: Bound, compute: Compute, x: Tensor, *more: Any, alone: bool) -> Costs:
        """Measure frames of a shape, unless that has been done.

        Args:
            bound: As for `timed_costs`.
            compute: The same.
            x: The same.
            *more: The same.
            alone: They share no pass.
        """
        known = self._known.setdefault(bound.model, {})
        key = bound.method, tuple(x.shape), x.dtype, x.device, alone
        if key not in known:
            beside = 1 if alone else self._beside
            known[key] = timed_costs(bound, compute, x, *more, beside=beside)
        return known[key]


def timed_costs(
    bound: Bound,
    compute: Compute,
    x: Tensor,
    images: Tensor,
    inputs: Mapping[str, Any],
    taps: Taps,
    linked: frozenset[str],
    repeat: Callable[[], Any] | None,
    beside: int = 1,
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
        beside: Streams of a row each, whose frames share a pass unless they are dense.
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

    several = x.repeat(beside, *[1] * (x.dim() - 1))

    def run(active: int, moves: bool) -> None:
        frames = x if active == tokens else several
        chosen = torch.linspace(0, tokens - 1, active, device=x.device).long().unique()
        index = Index.from_positions(chosen.expand(len(frames), -1), tokens)
        work = Pass(index, True, linked, taps=frozenset(taps.norms))
        if active < tokens:
            shown = [taps.show([seen if moves else None] * rows, x.dtype) for _ in range(beside)]
            work.shown = {name: torch.cat([one[name] for one in shown]) for name in taps.norms}
        if len(frames) > rows:
            work.each = [bound.kept] * beside
        compute(frames, inputs, work)

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
    shared = ("carried", "few", "many", *(() if repeat else ("held",)))
    found |= {name: found[name] / beside for name in shared}
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
