"""Compiled blocks: what a stream runs with `compile=True`, and what it reads back a frame.

A block's first frame and its updates are two compiled functions, each without a graph break, and
shared by all blocks and streams of one shape. Updates do a fixed amount of work and read nothing
back from the device. What might have gone wrong meanwhile is read once a frame (`Verdict`), and
until then all that references and buffers held before is kept, so that the frame can be taken back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from eventful.block.block import EventfulBlock
from eventful.block.gating import first_frame, update
from eventful.block.state import Step

FORMS = ("incremental", "dense")
_VARIANTS = 64  # compiled forms of one function that the compiler may keep: kinds of block times r


def steps(compile: bool) -> tuple[Step, Step]:
    """How a block runs its first frame and its updates."""
    if not compile:
        return first_frame, update
    torch._dynamo.config.recompile_limit = max(_VARIANTS, torch._dynamo.config.recompile_limit)
    first, later = (
        torch.compile(step, fullgraph=True, dynamic=False) for step in (first_frame, update)
    )
    return first, later


def must_bound(device: torch.device) -> bool:
    """Whether attention must do a fixed amount of work on a device.

    How many rows it has to compute anew depends on the frame. A CPU knows at once, so there it is
    as many as it takes; elsewhere it would mean to wait in the middle of a frame.
    """
    return device.type != "cpu"


def check(blocks: Iterable[EventfulBlock]) -> None:
    """Refuse blocks whose updates cannot be compiled.

    Raises:
        ValueError: A block's attention form is one of those.
    """
    for block in blocks:
        if block.options.attention not in FORMS:
            raise ValueError(
                f"compile=True serves attention='incremental' and 'dense'; {block.name} was "
                f"converted with attention={block.options.attention!r}"
            )
        if block.options.pooling != 1 or block.options.sampling is not None:
            raise ValueError(
                f"compile=True serves neither pooling nor sampling, whose amount of work depends "
                f"on the frame; {block.name} was converted with {block.options}"
            )


class Verdict(NamedTuple):
    """What is read back behind a compiled update.

    Attributes:
        finite: Whether the frame held neither NaN nor infinity.
        overflow: Whether a block had more rows to compute anew than it has room for.
        moved: For each batch row, `cuts.change` at the first gate; empty if nobody asked.
    """

    finite: bool
    overflow: bool
    moved: list[float]


def read(x: Tensor, blocks: Iterable[EventfulBlock], moved: Tensor | None) -> Verdict:
    """Read the verdict on a frame x, in one transfer."""
    states = [block.binding.state.attention for block in blocks if block.binding is not None]
    overflows = [state.overflow for state in states if state is not None]
    overflow = torch.stack([x.new_zeros((), dtype=torch.bool), *overflows]).any()
    flags = [x.isfinite().all().float()[None], overflow.float()[None]]
    finite, overflowed, *changes = torch.cat(flags if moved is None else [*flags, moved]).tolist()
    return Verdict(bool(finite), bool(overflowed), changes)
