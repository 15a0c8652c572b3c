"""Where an operation runs: PyTorch's fused operators, Triton kernels, or plain PyTorch.

An attention state (`ops.attend`):

| device | "fused" | serves |
|---|---|---|
| CPU | flash attention for CPU | every dtype and dim, with or without a bias |
| CUDA from compute capability 8.0, 16-bit, no bias | flash attention | dims up to 256 |
| CUDA, otherwise | memory-efficient attention | float32, float16, and from 8.0 on bfloat16 |

CUDA's flash attention takes no bias at all, hence the split. Both of CUDA's operators read 16 bytes
at a time, so a row of q, k and v must be a whole number of those. "plain" serves everything.

The passes over keys or tokens that PyTorch has no operator for (`ops.exchange_keys`,
`ops.error_norm`, `ops.remember_`) are "plain", or on CUDA "triton" (see `choose_kernel`).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["fused", "plain"]
Kernel = Literal["triton", "plain"]
Run = Callable[[Tensor, Tensor, Tensor, float, Tensor | None], tuple[Tensor, Tensor]]

_PLAIN_SCORES = 1 << 24  # scores that the plain form holds at once: 64 MB in float32
_ALIGNMENT = 16  # bytes, of rows of q, k and v for CUDA's fused operators
_BIAS_ROW = 16  # keys; PyTorch pads its own biases so
_HAS_TRITON = importlib.util.find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's kernels run on a CPU, slowly


def choose_backend(q: Tensor, asked: str | None) -> Backend:
    """Name the backend for queries (batch, heads, queries, dim): the one asked for, or the best.

    Raises:
        ValueError: There is no such backend, or "fused" was asked for where the device has none.
    """
    device = q.device.type
    if asked is None:
        aligned = q.shape[-1] * q.element_size() % _ALIGNMENT == 0
        on_cuda = device == "cuda" and aligned and q.dtype != torch.float64
        return "fused" if device == "cpu" or on_cuda else "plain"
    if asked not in BACKENDS:
        raise ValueError(f"backend must be 'fused' or 'plain', got {asked!r}")
    if asked == "fused" and device not in ("cpu", "cuda"):
        raise ValueError(
            f"the fused backend runs on a CPU or on CUDA, got tensors on {device}; use "
            f"backend='plain'"
        )
    return asked


def choose_kernel(x: Tensor, asked: str | None, unserved: str | None = None) -> Kernel:
    """Name what passes over x: the backend asked for, or "triton" on CUDA where it serves.

    Args:
        x: Any of the tensors.
        asked: "triton", "plain" or None.
        unserved: What about the arguments the Triton kernel does not serve, if anything.

    Raises:
        ValueError: There is no such backend, or "triton" was asked for where it is not to be had.
    """
    if asked is None:
        served = x.is_cuda and torch.version.hip is None and _HAS_TRITON and unserved is None
        return "triton" if served else "plain"
    if asked == "plain":
        return asked
    if asked != "triton":
        raise ValueError(f"backend must be 'triton' or 'plain', got {asked!r}")
    if not _HAS_TRITON:
        raise ValueError("backend='triton' needs `pip install triton`; or use backend='plain'")
    if unserved is not None:
        raise ValueError(f"the triton backend does not serve {unserved}; use backend='plain'")
    if not (x.is_cuda or (_INTERPRETED and x.device.type == "cpu")):
        raise ValueError(
            f"the triton backend runs on CUDA, got tensors on {x.device.type}; use backend='plain'"
        )
    return asked


def attend_fused(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Call the device's fused operator that returns the log-sum-exp.

    A row whose keys are all masked by -inf comes back with a log-sum-exp of 0.
    """
    # PyTorch 2.5 reads values that do not lie side by side wrongly on a CPU, without a word.
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    if bias is not None:
        bias = bias.to(q.dtype).expand(*q.shape[:3], k.shape[2])
    if q.device.type == "cuda":
        return _attend_cuda(q, k, v, scale, bias)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, attn_mask=bias, scale=scale
    )


def _attend_cuda(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    q, k, v = _aligned(q), _aligned(k), _aligned(v)
    sixteen_bit = q.dtype in (torch.float16, torch.bfloat16)
    if bias is None and sixteen_bit and q.shape[-1] <= 256 and _has_flash(q.device):
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        o, lse, *_ = flash(q, k, v, 0.0, False, return_debug_mask=False, scale=scale)
        return o, lse
    if bias is not None:
        bias = _with_aligned_rows(bias)
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    o, lse, *_ = efficient(q, k, v, bias, compute_log_sumexp=True, scale=scale)
    return o, lse[:, :, : q.shape[2]]  # it is padded to whole blocks


def _has_flash(device: torch.device) -> bool:
    available = torch.backends.cuda.is_flash_attention_available()
    return available and torch.cuda.get_device_capability(device) >= (8, 0)


def _aligned(x: Tensor) -> Tensor:
    """Copy x (..., dim) unless each of its rows starts at a whole `_ALIGNMENT`.

    Rows of a wider buffer may not: where relative positions stand behind q, k and v, say. Flash
    attention does not look, and memory-efficient attention not at where the first row starts.
    """
    starts = (step * x.element_size() for step in (x.storage_offset(), *x.stride()[:-1]))
    aligned = all(start % _ALIGNMENT == 0 for start in starts)
    return x if aligned else x.clone(memory_format=torch.contiguous_format)


def _with_aligned_rows(bias: Tensor) -> Tensor:
    """Copy a bias (batch, heads, queries, keys) to rows that start at a whole `_BIAS_ROW`."""
    keys = bias.shape[-1]
    rows = bias.new_zeros(*bias.shape[:-1], -(-keys // _BIAS_ROW) * _BIAS_ROW)[..., :keys]
    return rows.copy_(bias)


def attend_plain(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the state in plain PyTorch, in float32 at least, some queries at a time."""
    wide = torch.promote_types(q.dtype, torch.float32)
    k, v = k.to(wide), v.to(wide)
    if bias is not None:
        bias = bias.to(wide).expand(*q.shape[:3], k.shape[2])
    chunk = max(1, _PLAIN_SCORES // (q.shape[0] * q.shape[1] * k.shape[2]))
    states = []
    for start in range(0, q.shape[2], chunk):
        rows = slice(start, start + chunk)
        scores = (q[:, :, rows].to(wide) * scale) @ k.mT
        if bias is not None:
            scores = scores + bias[:, :, rows]
        lse = scores.logsumexp(dim=-1)
        shift = lse.masked_fill(lse == -torch.inf, 0)[..., None]
        states.append(((scores - shift).exp() @ v, lse))
    outputs, lses = zip(*states, strict=True)
    return torch.cat(outputs, dim=2).to(q.dtype), torch.cat(lses, dim=2)


BACKENDS: dict[Backend, Run] = {"fused": attend_fused, "plain": attend_plain}
