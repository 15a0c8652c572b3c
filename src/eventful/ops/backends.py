"""Where an attention state is computed: PyTorch's fused operators, or plain PyTorch.

| device | "fused" | serves |
|---|---|---|
| CPU | flash attention for CPU | every dtype and dim, with or without a bias |
| CUDA, 16-bit, no bias | flash attention | dims that are multiples of 8, up to 256 |
| CUDA, float32 or a bias | memory-efficient attention | rows of q, k, v aligned to 16 bytes |

CUDA's flash attention takes no bias at all, hence the split. "plain" serves everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["fused", "plain"]
Run = Callable[[Tensor, Tensor, Tensor, float, Tensor | None], tuple[Tensor, Tensor]]

_PLAIN_SCORES = 1 << 24  # scores that the plain form holds at once: 64 MB in float32
_ALIGNMENT = 16  # bytes, of CUDA's fused operators


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


def attend_fused(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Call the device's fused operator that returns the log-sum-exp.

    A row whose keys are all masked by -inf comes back with a log-sum-exp of 0.
    """
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
    if bias is None and q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] <= 256:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        o, lse, *_ = flash(q, k, v, 0.0, False, return_debug_mask=False, scale=scale)
        return o, lse
    if bias is not None:  # the operator reads whole vectors: rows must start aligned
        keys = bias.shape[-1]
        whole = -(-keys // _ALIGNMENT) * _ALIGNMENT
        bias = torch.nn.functional.pad(bias, (0, whole - keys))[..., :keys]
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    o, lse, *_ = efficient(q, k, v, bias, compute_log_sumexp=True, scale=scale)
    return o, lse[:, :, : q.shape[2]]  # it is padded to whole blocks


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
