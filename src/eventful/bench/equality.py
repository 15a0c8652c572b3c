"""Tests that a case must pass before its times are worth anything."""

from __future__ import annotations

import torch
from torch import Tensor

from eventful.attention import Dense, Windowed
from eventful.bench.case import UnequalError
from eventful.block.attend import relative_positions
from eventful.block.block import EventfulBlock, eventful_blocks
from eventful.block.state import BlockState
from eventful.stream import Stream

TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}


def relative(y: Tensor, reference: Tensor) -> float:
    """Relative error in the Frobenius norm, computed in float64.

    Example:
        >>> relative(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0]))
        0.2
    """
    y, reference = y.double(), reference.double()
    return ((y - reference).norm() / reference.norm()).item()


def require(what: str, error: float, limit: float) -> tuple[float, float]:
    """Pass an error that keeps its limit on, with the limit.

    Raises:
        UnequalError: It does not, or is NaN.
    """
    if not error <= limit:
        raise UnequalError(
            f"{what}: expected a relative error of at most {limit:.1e}, got {error:.1e}; no speed "
            f"is reported for a wrong result, run the project's tests to find what is wrong"
        )
    return error, limit


def attention_error(stream: Stream) -> float | None:
    """Compare what every block kept of attention with full attention over its own buffer.

    Returns:
        The worst block's relative error; None where no block keeps its attention output.
    """
    errors = [
        relative(output, _full_attention(block, _state(block)))
        for block in bound_blocks(stream)
        if (output := _kept(_state(block))) is not None
    ]
    return max(errors, default=None)


def bound_blocks(stream: Stream) -> list[EventfulBlock]:
    """A stream's own blocks, with the state that they hold."""
    return list(eventful_blocks(stream._bound.module).values())


def _state(block: EventfulBlock) -> BlockState:
    assert block.binding is not None
    return block.binding.state


def _kept(state: BlockState) -> Tensor | None:
    """The attention output that is kept, (batch, tokens, heads * dim), if there is one."""
    assert state.attention is not None
    output = state.attention.tensors.get("output")
    if output is None:
        return None
    if "a_reference" in state.attention.tensors:  # `Cached` keeps heads before tokens
        output = output.transpose(1, 2)
    return output.flatten(2)


def _full_attention(block: EventfulBlock, state: BlockState) -> Tensor:
    """Full attention in float64 over a block's buffer, in the buffer's order of tokens."""
    assert block.binding is not None
    buffer = state.buffers["qkv"].tokens.double()
    form = Dense(block.heads, block.scale)
    if block.window_size:
        form = Windowed(block.heads, block.scale, size=block.window_size**2, keep=False)
    bias = relative_positions(block, buffer, block.binding.grid)
    return form.start(buffer[..., : block.width], bias)[0]
