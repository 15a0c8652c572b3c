"""The first-frame check: every block is held to the one that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from eventful.block.bindings import binding
from eventful.block.block import EventfulBlock

# Relative error of a block's output that rounding explains: some hundred roundings of the dtype.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@contextmanager
def checked(blocks: list[EventfulBlock], check: bool) -> Iterator[None]:
    """Compare each block's output with its original's on the same arguments, while this is active.

    The blocks are a stream's own copies; their `forward` is wrapped meanwhile. Blocks that average
    keys or leave tokens out are not meant to give the same, and are left alone.
    """
    some = [b for b in blocks if b.options.pooling == 1 and b.options.sampling is None]
    for block in some if check else ():
        block.forward = _compared(block, block.forward)
    try:
        yield
    finally:
        for block in some if check else ():
            vars(block).pop("forward", None)


def _compared(block: EventfulBlock, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def wrapper(*args: Any, **kwargs: Any) -> Tensor:
        output = forward(*args, **kwargs)
        expected = block.original.forward(*args, **kwargs)
        wide = torch.promote_types(output.dtype, torch.float32)
        off = (output.to(wide) - expected.to(wide)).norm() / expected.to(wide).norm()
        if not off <= _tolerance(block, output.dtype):
            raise ValueError(
                f"{block.name} does not compute what the block that it stands for does (a "
                f"{type(block.original).__qualname__}): its output on the first frame is "
                f"{off.item():.2g} off, relative; leave it out with convert(..., where=...), and "
                f"please report the model"
            )
        return output

    return wrapper


def _tolerance(block: EventfulBlock, dtype: torch.dtype) -> float:
    """That of the coarsest dtype that a block computes in, or keeps what it computes from in."""
    half = torch.float16 if block.options.half_precision else dtype
    dtypes = (dtype, binding(block).frame.state_dtype or dtype, half)
    return max(TOLERANCE.get(one, TOLERANCE[torch.bfloat16]) for one in dtypes)
