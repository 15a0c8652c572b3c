"""Triton kernels of `exchange_keys`, `error_norm` and `remember_`: nothing else loads Triton.

Each function here computes in one pass what the plain form beside its operator specifies. Inputs
may have any strides; outputs are contiguous. Triton compiles the kernels for CUDA, or interprets
them on a CPU where TRITON_INTERPRET=1 was set before it was imported.
"""

# Annotations are not postponed here: the interpreter of Triton 3.1 must see tl.constexpr itself.

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # values of a token that the gates' kernels hold at once


def exchange_keys(
    q: Tensor,
    o: Tensor,
    lse: Tensor,
    old: tuple[Tensor, Tensor],
    new: tuple[Tensor, Tensor],
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Replace keys in a state; returns (batch, queries, heads, dim) and (batch, queries, heads)."""
    batch, heads, queries, dim = q.shape
    o_out = q.new_empty(batch, queries, heads, dim, dtype=torch.float32)
    lse_out = q.new_empty(batch, queries, heads, dtype=torch.float32)
    block_d = max(16, triton.next_power_of_2(dim))  # tensor cores take 16 at least
    block_q, block_k = (64, 32) if block_d <= 64 else (32, 32 if block_d <= 128 else 16)
    blocks = triton.cdiv(queries, block_q)
    _launch(
        _exchange_keys,
        blocks * batch * heads,
        [q, o, lse, *old, *new],
        *(o_out, lse_out, heads, queries, old[0].shape[2], new[0].shape[2], scale),
        dim=dim,
        # TF32 holds 16-bit numbers exactly, and of the weights as many digits as float16.
        precision="ieee" if q.dtype == torch.float32 else "tf32",
        block_q=block_q,
        block_k=block_k,
        block_d=block_d,
        num_stages=1,
    )
    return o_out, lse_out


def _launch(
    kernel: Any, programs: int, inputs: list[Tensor], *others: Any, **constants: Any
) -> None:
    """Run a kernel on some inputs, each followed by its strides, and on the other arguments."""
    strided = (x for tensor in inputs for x in (tensor, *tensor.stride()))
    if programs:
        with torch.cuda.device_of(inputs[0]):
            kernel[(programs,)](*strided, *others, **constants)


# In the kernels, x_b, x_h, x_n and x_d are strides of x by batch row, head, token and value.
@triton.jit
def _exchange_keys(
    q, q_b, q_h, q_n, q_d,
    o, o_b, o_h, o_n, o_d,
    lse, lse_b, lse_h, lse_n,
    old_k, old_k_b, old_k_h, old_k_n, old_k_d,
    old_v, old_v_b, old_v_h, old_v_n, old_v_d,
    new_k, new_k_b, new_k_h, new_k_n, new_k_d,
    new_v, new_v_b, new_v_h, new_v_n, new_v_d,
    o_out, lse_out,
    heads, queries, old_keys, new_keys, scale,
    dim: tl.constexpr,
    precision: tl.constexpr,
    block_q: tl.constexpr,
    block_k: tl.constexpr,
    block_d: tl.constexpr,
):  # fmt: skip
    """Bring `block_q` queries of one head up to date."""
    blocks = tl.cdiv(queries, block_q)
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    b, h = plane // heads, plane % heads
    n = (tl.program_id(0) % blocks).to(tl.int64) * block_q + tl.arange(0, block_q)
    d = tl.arange(0, block_d)
    row = n < queries
    inside = row[:, None] & (d < dim)[None, :]

    n_q, n_o = n[:, None] * q_n + d[None, :] * q_d, n[:, None] * o_n + d[None, :] * o_d
    q_rows = tl.load(q + b * q_b + h * q_h + n_q, inside, 0.0).to(tl.float32)
    acc = tl.load(o + b * o_b + h * o_h + n_o, inside, 0.0).to(tl.float32)
    top = tl.load(lse + b * lse_b + h * lse_h + n * lse_n, row, 0.0).to(tl.float32)
    z = tl.full([block_q], 1.0, tl.float32)  # mass over e^top; acc is the sum of values over e^top

    k, v = old_k + b * old_k_b + h * old_k_h, old_v + b * old_v_b + h * old_v_h
    for start in range(0, old_keys, block_k):
        scores, values = _block(
            q_rows, k, old_k_n, old_k_d, v, old_v_n, old_v_d, start, old_keys, scale,
            dim, precision, block_k, block_d,
        )  # fmt: skip
        weights = tl.exp(scores - top[:, None])
        acc -= tl.dot(weights, values, input_precision=precision)
        z -= tl.sum(weights, 1)

    k, v = new_k + b * new_k_b + h * new_k_h, new_v + b * new_v_b + h * new_v_h
    for start in range(0, new_keys, block_k):
        scores, values = _block(
            q_rows, k, new_k_n, new_k_d, v, new_v_n, new_v_d, start, new_keys, scale,
            dim, precision, block_k, block_d,
        )  # fmt: skip
        grown = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp(top - grown)
        weights = tl.exp(scores - grown[:, None])
        acc = acc * shrink[:, None] + tl.dot(weights, values, input_precision=precision)
        z = z * shrink + tl.sum(weights, 1)
        top = grown

    out = (b * queries + n) * heads + h
    tl.store(o_out + out[:, None] * dim + d[None, :], acc / z[:, None], inside)
    tl.store(lse_out + out, top + tl.log(z), row)


@triton.jit
def _block(
    q_rows, k, k_n, k_d, v, v_n, v_d, start, keys, scale,
    dim: tl.constexpr, precision: tl.constexpr, block_k: tl.constexpr, block_d: tl.constexpr,
):  # fmt: skip
    """Load some keys: their scores (block_q, block_k), -inf behind the last, and their values."""
    n, d = start + tl.arange(0, block_k).to(tl.int64), tl.arange(0, block_d)
    inside = (n < keys)[:, None] & (d < dim)[None, :]
    rows = tl.load(k + n[:, None] * k_n + d[None, :] * k_d, inside, 0.0).to(tl.float32)
    values = tl.load(v + n[:, None] * v_n + d[None, :] * v_d, inside, 0.0).to(tl.float32)
    scores = tl.dot(q_rows, tl.trans(rows), input_precision=precision) * scale
    return tl.where((n < keys)[None, :], scores, float("-inf")), values


def error_norm(reference: Tensor, c: Tensor) -> Tensor:
    """Norms of reference - c, (batch, tokens), in float32 at least."""
    batch, tokens, dim = reference.shape
    wide = torch.promote_types(reference.dtype, torch.float32)
    norms = reference.new_empty(batch, tokens, dtype=wide)
    block = min(_BLOCK, triton.next_power_of_2(dim))
    _launch(_error_norm, batch * tokens, [reference, c], norms, tokens, dim, block=block)
    return norms


@triton.jit
def _error_norm(
    u, u_b, u_n, u_d,
    c, c_b, c_n, c_d,
    norms, tokens, dim,
    block: tl.constexpr,
):  # fmt: skip
    """Measure one token."""
    row = tl.program_id(0).to(tl.int64)
    b, n = row // tokens, row % tokens
    squares = tl.zeros([block], norms.dtype.element_ty)
    for start in range(0, dim, block):
        d = start + tl.arange(0, block)
        held = tl.load(u + b * u_b + n * u_n + d * u_d, d < dim, 0.0)
        value = tl.load(c + b * c_b + n * c_n + d * c_d, d < dim, 0.0)
        error = held.to(squares.dtype) - _rounded(value, held.dtype).to(squares.dtype)
        squares += error * error
    tl.store(norms + row, tl.sqrt(tl.sum(squares, 0)))


def remember_(reference: Tensor, c: Tensor, index: Tensor) -> Tensor:
    """Gather the tokens of `index` (total,) from c and write them into the reference, too."""
    _, tokens, dim = c.shape
    gathered = c.new_empty(len(index), dim)
    block = min(_BLOCK, triton.next_power_of_2(dim))
    _launch(_remember, len(index), [reference, c, index], gathered, tokens, dim, block=block)
    return gathered


@triton.jit
def _remember(
    u, u_b, u_n, u_d,
    c, c_b, c_n, c_d,
    index, index_n, gathered, tokens, dim,
    block: tl.constexpr,
):  # fmt: skip
    """Move one token."""
    row = tl.program_id(0).to(tl.int64)
    flat = tl.load(index + row * index_n)
    b, n = flat // tokens, flat % tokens
    for start in range(0, dim, block):
        d = start + tl.arange(0, block)
        value = tl.load(c + b * c_b + n * c_n + d * c_d, d < dim, 0.0)
        tl.store(gathered + row * dim + d, value, d < dim)
        kept = _rounded(value, u.dtype.element_ty).to(u.dtype.element_ty)
        tl.store(u + b * u_b + n * u_n + d * u_d, kept, d < dim)


@triton.jit
def _rounded(x, dtype: tl.constexpr):
    """Round to a dtype as PyTorch does: to nearest even, and to 16 bits by way of float32.

    To bfloat16 in the bits: Triton's interpreter would cut them off.
    """
    if dtype == tl.bfloat16:
        x = x.to(tl.float32)
        bits = x.to(tl.int32, bitcast=True)
        is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        y = tl.where(is_nan, x, rounded.to(tl.float32, bitcast=True))
    elif dtype == tl.float16:
        y = x.to(tl.float32).to(tl.float16)
    else:
        y = x.to(dtype)
    return y
