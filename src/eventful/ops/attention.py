"""Attention states: an attention output together with its log-sum-exp.

For queries q and a set S of keys, the state of S is

    L_S = log sum_{j in S} exp(q . k_j * scale)
    o_S = sum_{j in S} exp(q . k_j * scale - L_S) v_j

States of disjoint sets merge, and a subset's state can be taken out of its superset's. The algebra
is known from continual inference (Hedegaard and Iosifidis 2022) and from log-sum-exp merging in
decoding kernels; what is needed on top of it is care for rounding (`replace_keys`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Backend = Literal["fused", "plain"]

_PLAIN_SCORES = 1 << 24  # scores that the plain form holds at once: 64 MB in float32


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    bias: Tensor | None = None,
    backend: Backend | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the attention state of `q` over all of `k`.

    On a CPU this is PyTorch's fused operator, which serves biases too; on any other device it is
    the plain form below. The fused operator must never see zero queries or keys (it kills the
    process) and reports a log-sum-exp of 0 for a row whose keys are all masked; both are answered
    here with the state of the empty set, output 0 and log-sum-exp -inf.

    Args:
        q: (batch, heads, queries, dim).
        k: (batch, heads, keys, dim).
        v: (batch, heads, keys, dim).
        scale: Factor on the scores, usually dim ** -0.5.
        bias: Added to the scores, broadcastable to (batch, heads, queries, keys); -inf masks a key.
        backend: "fused" or "plain"; by default "fused" on a CPU and "plain" elsewhere.

    Returns:
        Output (batch, heads, queries, dim) in q's dtype and log-sum-exp (batch, heads, queries) in
        float32 (float64 for float64 input).

    Raises:
        ValueError: "fused" was asked for on a device other than a CPU, or the name is unknown.

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 5, 7).unbind(0)
        >>> o, lse = attend(q, k, v, scale=7**-0.5)
        >>> o.shape, lse.shape
        (torch.Size([1, 2, 5, 7]), torch.Size([1, 2, 5]))
    """
    if q.shape[2] == 0 or k.shape[2] == 0:
        lse_dtype = torch.promote_types(q.dtype, torch.float32)
        return torch.zeros_like(q), q.new_full(q.shape[:3], -torch.inf, dtype=lse_dtype)
    match backend or ("fused" if q.device.type == "cpu" else "plain"):
        case "fused":
            return _attend_fused(q, k, v, scale, bias)
        case "plain":
            return _attend_plain(q, k, v, scale, bias)
        case name:
            raise ValueError(f"backend must be 'fused' or 'plain', got {name!r}")


def _attend_fused(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    if q.device.type != "cpu":
        raise ValueError(
            f"the fused backend runs on a CPU, got tensors on {q.device}; use backend='plain'"
        )
    if bias is not None:
        bias = bias.to(q.dtype).expand(*q.shape[:3], k.shape[2])
    o, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, attn_mask=bias, scale=scale
    )
    if bias is not None:
        empty = (bias == -torch.inf).all(dim=-1)
        o = o.masked_fill(empty[..., None], 0)
        lse = lse.masked_fill(empty, -torch.inf)
    return o, lse


def _attend_plain(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
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


def merge(o_s: Tensor, lse_s: Tensor, o_t: Tensor, lse_t: Tensor) -> tuple[Tensor, Tensor]:
    """Merge the states of two disjoint sets of keys.

    L = logaddexp(L_S, L_T);  o = e^(L_S - L) o_S + e^(L_T - L) o_T

    Args:
        o_s: (..., queries, dim) output over S.
        lse_s: (..., queries) log-sum-exp over S; -inf where S is empty.
        o_t: As `o_s`, over T.
        lse_t: As `lse_s`, over T.

    Returns:
        The state of the union, shaped as the inputs.

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 6, 4).double().unbind(0)
        >>> left = attend(q, k[:, :, :2], v[:, :, :2], 0.5)
        >>> right = attend(q, k[:, :, 2:], v[:, :, 2:], 0.5)
        >>> torch.allclose(merge(*left, *right)[0], attend(q, k, v, 0.5)[0])
        True
    """
    lse = torch.logaddexp(lse_s, lse_t)
    shift = lse.masked_fill(lse == -torch.inf, 0)
    o = (lse_s - shift).exp()[..., None] * o_s + (lse_t - shift).exp()[..., None] * o_t
    return o, lse


def replace_keys(
    o: Tensor,
    lse: Tensor,
    removed: tuple[Tensor, Tensor],
    added: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Take the state of some keys out of a state and put another in, in one step.

        p_- = e^(L_- - L),  p_+ = e^(L_+ - L),  z = 1 - p_- + p_+
        o <- (o - p_- o_- + p_+ o_+) / z,       L <- L + log z

    evaluated relative to max(L, L_+), so that p_+ cannot overflow. Rounding in `o` and `L` is
    relative to the mass that was there *before*: when z is small it grows by 1/z, and over several
    updates by the product of all 1/z. `eventful.attention.Incremental` bounds that product. Rows
    whose z has no correct digit left come back with L = -inf or NaN and are the caller's to redo.

    Args:
        o: (..., queries, dim) output over all keys.
        lse: (..., queries) log-sum-exp over all keys.
        removed: State (output, log-sum-exp) of the keys to take out, with their old values.
        added: State of the keys to put in, with their new values.

    Returns:
        The new state (output, log-sum-exp).

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 6, 4).double().unbind(0)
        >>> new = torch.randn(1, 2, 2, 4).double()
        >>> old_state = attend(q, k[:, :, 4:], v[:, :, 4:], 0.5)
        >>> o, lse = replace_keys(*attend(q, k, v, 0.5), old_state, attend(q, new, new, 0.5))
        >>> k[:, :, 4:], v[:, :, 4:] = new, new
        >>> torch.allclose(o, attend(q, k, v, 0.5)[0])
        True
    """
    (o_old, lse_old), (o_new, lse_new) = removed, added
    top = torch.maximum(lse, lse_new)
    keep, old, new = (lse - top).exp(), (lse_old - top).exp(), (lse_new - top).exp()
    z = keep - old + new
    keep, old, new = (weight / z for weight in (keep, old, new))
    o = keep[..., None] * o - old[..., None] * o_old + new[..., None] * o_new
    return o, top + z.log()
