"""What a token that is not updated means: three ways to put gates and buffers into a block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from eventful import ops
from eventful.attention import split_heads
from eventful.block import attend
from eventful.block.block import EventfulBlock
from eventful.block.buffer import TokenBuffer
from eventful.block.state import Grid, Place, Stage
from eventful.block.work import compute
from eventful.ops import Index


def run(block: EventfulBlock, x: Tensor, place: Place) -> Tensor:
    """Process the tokens (batch, tokens, dim) of one frame under the stream's policies.

    Args:
        block: A stream's.
        x: The tokens.
        place: Where the tokens stand.
    """
    assert block.binding is not None
    binding, frame = block.binding, block.binding.frame
    binding.runs += 1
    binding.grid = place.grid
    if frame.work is not None:
        return compute(block, x, place, frame.work)
    first = not binding.state.buffers
    if not frame.reached:
        if "qkv" not in block.stages:
            raise RuntimeError(
                f"{block.name} runs first, but the network's only gate sits in another block; "
                f"gating='input' needs blocks that run in the order the model holds them in"
            )
        frame.flush = [] if first else _flush(block, x)
        frame.reached = True
    later = frame.update if frame.fixed else update
    return (frame.first if first else later)(block, x, place)


def _flush(block: EventfulBlock, x: Tensor) -> list[int]:
    """Ask the stream which rows to flush, given the first gate's reference and input."""
    assert block.binding is not None
    frame = block.binding.frame
    c = x if block.options.gate_before_norm else block.norm_1(x)
    frame.seen = None if frame.fixed else c  # a compiled update fuses the norm and does it again
    reference = block.binding.state.gates["qkv"].reference
    patches = slice(block.prefix_tokens, reference.shape[1] - block.suffix_tokens)
    return frame.on_first_gate(reference[:, patches], c[:, patches])


def _qkv_input(block: EventfulBlock, x: Tensor) -> Tensor:
    """What the QKV gate compares: normed tokens, unless the norm comes after it."""
    assert block.binding is not None
    frame = block.binding.frame
    c, frame.seen = frame.seen, None
    if c is not None:
        return c
    return x if block.options.gate_before_norm else block.norm_1(x)


def first_frame(block: EventfulBlock, x: Tensor, place: Place) -> Tensor:
    """Run a block on the first frame; what a stream compiles apart from `update`."""
    return GATINGS[block.options.gating](block, x, place)


def update(block: EventfulBlock, x: Tensor, place: Place) -> Tensor:
    """Run a block on a later frame."""
    return GATINGS[block.options.gating](block, x, place)


def three_gates(block: EventfulBlock, x: Tensor, place: Place, hold: bool = False) -> Tensor:
    """Run a block with a gate and a buffer around each token-wise operation (paper, figure 3).

        b_qkv[J]   <- qkv(norm_1(x)[J])           J  chosen by the gate `qkv`
        o           = attention over b_qkv
        b_proj[J'] <- proj(o[J'])                 J' chosen by the gate `proj`
        x           = x + b_proj
        b_mlp[J"]  <- mlp(norm_2(x)[J"])          J" chosen by the gate `mlp`
        x           = x + b_mlp

    With `hold` the buffers hold the sums, so that what a token adds is added to what it was added
    to when it was computed:

        b_proj[J'] <- x[J'] + proj(o[J']);   x = b_proj;   and the MLP likewise
    """

    def to_qkv(c: Tensor, index: Index) -> Tensor:
        return attend.project(block, c, place.at(index.positions))

    buffer = _gated(block, "qkv", x, block.norm_1, to_qkv)
    if block.window_size and buffer.slots is None:
        attend.order_by_window(block, buffer, x, place.grid)
    qkv = buffer.tokens.to(x.dtype)
    o = attend.attend(block, buffer, qkv, place.grid)
    c = block.mix(o, qkv[..., : block.width + block.extra_width])
    x, c = attend.sample(block, x, c, qkv, place.rope)
    x = _residual(block, "proj", x, c, None, block.to_out, hold)
    return _residual(block, "mlp", x, x, block.norm_2, block.to_mlp, hold)


def one_gate(block: EventfulBlock, x: Tensor, place: Place) -> Tensor:
    """Run a block on the tokens that the network's only gate, the first block's `qkv`, picks.

        kv[J]  <- the keys and values of qkv(norm_1(x[J]))
        y       = x[J] + proj(attention of the queries of J over all of kv)
        b[J]   <- y + mlp(norm_2(y));   x = b

    The other tokens keep everything: M / N of all operations, and keys, values and outputs for
    state. Where attention stays within windows, windows that hold an updated token are computed.
    """
    assert block.binding is not None
    frame = block.binding.frame
    if "qkv" in block.stages:
        frame.index, _ = _choose(block, "qkv", _qkv_input(block, x))
    index = frame.index
    assert index is not None  # the block with the gate runs first, or `run` refuses
    active = index.gather(x)
    new = attend.project(block, block.norm_1(active), place.at(index.positions))
    attention = _attend_in_windows if block.window_size else _attend_from
    o = attention(block, x, new, index, place.grid)
    c = block.mix(o[None], new[None, :, : block.width + block.extra_width])[0]
    y = active + block.to_out(c)
    y = y + block.to_mlp(block.norm_2(y))
    return _write(block, "mlp", index, y, len(x)).tokens.to(x.dtype, copy=True)


def _attend_from(
    block: EventfulBlock, x: Tensor, new: Tensor, index: Index, grid: Grid | None
) -> Tensor:
    """Attention (total, width) of the updated queries over the keys and values of all tokens."""
    third = block.width // 3
    buffer = _write(block, "qkv", index, new[:, third : block.width], len(x))
    k, v = split_heads(buffer.tokens.to(x.dtype), block.heads, parts=2)
    if index.is_even:
        return _rows_from(block, new.unflatten(0, (len(x), -1)), k, v, grid).flatten(0, 1)
    rows = (
        _rows_from(block, some[None], k[row : row + 1], v[row : row + 1], grid)[0]
        for row, some in enumerate(new.split(index.counts))
    )
    return torch.cat(list(rows))


def _rows_from(
    block: EventfulBlock, new: Tensor, k: Tensor, v: Tensor, grid: Grid | None
) -> Tensor:
    """Attention (batch, active, width) of queries (batch, active, ...) over all keys."""
    q = new[..., : block.width // 3].unflatten(2, (block.heads, -1)).transpose(1, 2)
    bias = attend.positions_of(block, new, grid)
    return ops.attend(q, k, v, block.scale, bias)[0].transpose(1, 2).flatten(2)


def _attend_in_windows(
    block: EventfulBlock, x: Tensor, new: Tensor, index: Index, grid: Grid | None
) -> Tensor:
    """The same within windows: those that hold an updated token are computed whole."""
    assert grid is not None
    buffer = _write(block, "qkv", index, new, len(x), keep=True)
    if buffer.slots is None:
        attend.order_by_window(block, buffer, x, grid)
    return index.gather(attend.attend(block, buffer, buffer.tokens.to(x.dtype), grid))


def _residual(
    block: EventfulBlock,
    stage: Stage,
    x: Tensor,
    c: Tensor,
    norm: Callable[[Tensor], Tensor] | None,
    f: Callable[[Tensor], Tensor],
    hold: bool,
) -> Tensor:
    """Return x + b, b[J] <- f(norm(c)[J]); if `hold`, b alone, b[J] <- x[J] + f(norm(c)[J])."""
    if not hold:
        buffer = _gated(block, stage, c, norm, lambda c, _: f(c))
        return x + buffer.tokens.to(x.dtype)
    buffer = _gated(block, stage, c, norm, lambda c, index: index.gather(x) + f(c))
    return buffer.tokens.to(x.dtype, copy=True)


def _gated(
    block: EventfulBlock,
    stage: Stage,
    x: Tensor,
    norm: Callable[[Tensor], Tensor] | None,
    f: Callable[[Tensor, Index], Tensor],
) -> TokenBuffer:
    """b[J] <- f(norm(x)[J]), J chosen by the stage's gate; on the first frame, all tokens."""
    inside = norm if norm and block.options.gate_before_norm else None
    c = _qkv_input(block, x) if stage == "qkv" else x if inside or not norm else norm(x)
    index, c = _choose(block, stage, c)
    return _write(block, stage, index, f(inside(c) if inside else c, index), len(x), stage == "qkv")


def _choose(block: EventfulBlock, stage: Stage, c: Tensor) -> tuple[Index, Tensor]:
    """Let the gate pick J and c[J]: all tokens when there is no state yet."""
    assert block.binding is not None
    gates, frame = block.binding.state.gates, block.binding.frame
    gate = block.token_gate
    if stage not in gates:
        gates[stage] = gate.new_state(c, frame.state_dtype)
        return gates[stage].index, c.flatten(0, 1)
    error = gate.measure(gates[stage], c)
    policy = block.binding.policies[stage]
    return gate.update(gates[stage], c, policy, error, frame.flush, undo=frame.fixed)


def _write(
    block: EventfulBlock, stage: Stage, index: Index, new: Tensor, batch: int, keep: bool = False
) -> TokenBuffer:
    """b[J] <- new, what stood there kept if it will be needed; on the first frame, a new buffer."""
    assert block.binding is not None
    buffers, frame = block.binding.state.buffers, block.binding.frame
    if stage not in buffers:
        buffers[stage] = TokenBuffer.new(new, batch, frame.state_dtype or new.dtype)
    else:
        buffers[stage].replace_(index, new, keep or frame.fixed)
    return buffers[stage]


GATINGS: dict[str, Callable[[EventfulBlock, Tensor, Place], Tensor]] = {
    "paper": three_gates,
    "hold": partial(three_gates, hold=True),
    "input": one_gate,
}
