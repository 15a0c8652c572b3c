"""The first-frame check: every block is held to the one that it stands for."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from eventful.block.bindings import binding
from eventful.block.block import EventfulBlock, tokens_of

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


def _compared(block: EventfulBlock, forward: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        if binding(block).runs > 1:  # which the stream refuses by itself
            return output
        off = _off(output, _without_hooks(block.original).forward(*args, **kwargs))
        found = _roundings(block, tokens_of(output))
        allowed = max(TOLERANCE.get(dtype, 0.03) for dtype in found)
        if not off <= allowed and _hooked(block.original):  # a hook may change what comes out
            off = _off(output, block.original.forward(*args, **kwargs))
        if not off <= allowed:
            raise ValueError(
                f"{block.name} does not compute what the block that it stands for does (a "
                f"{type(block.original).__qualname__}): its output on the first frame is "
                f"{off:.2g} off, relative; leave it out with convert(..., where=...), and please "
                f"report the model"
            )
        return output

    return wrapper


def _off(output: Any, expected: Any) -> float:
    if isinstance(output, tuple) != isinstance(expected, tuple):
        return math.inf  # the model would read something else
    output, expected = tokens_of(output), tokens_of(expected)
    wide = torch.promote_types(output.dtype, torch.float32)
    size = expected.to(wide).norm().clamp_min(torch.finfo(wide).tiny)
    return ((output.to(wide) - expected.to(wide)).norm() / size).item()


def _roundings(block: EventfulBlock, output: Tensor) -> set[torch.dtype]:
    """What a block's values are rounded to on their way to its output."""
    frame, found = binding(block).frame, {output.dtype}
    if frame.work is None and frame.state_dtype is not None:  # gates read buffers back
        found.add(frame.state_dtype)
    if block.options.half_precision and not block.window_size:
        found.add(torch.float16)
    return found


def _hooked(module: nn.Module) -> bool:
    return any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def _without_hooks(module: nn.Module) -> nn.Module:
    """The same module, so that what others have hooked to it does not run twice a frame."""
    twin = copy.copy(module)
    twin._forward_hooks, twin._forward_pre_hooks = OrderedDict(), OrderedDict()
    twin._modules = {
        name: child if child is None else _without_hooks(child)
        for name, child in module._modules.items()
    }
    return twin
