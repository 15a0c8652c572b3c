"""Attention states: an attention output together with its log-sum-exp.

For queries q and a set S of keys, the state of S is

    L_S = log sum_{j in S} exp(q . k_j * scale + bias_j)
    o_S = sum_{j in S} exp(q . k_j * scale + bias_j - L_S) v_j

States of disjoint sets merge, and a subset's state can be taken out of its superset's. The algebra
is known from continual inference (Hedegaard and Iosifidis 2022) and from log-sum-exp merging in
decoding kernels; what is needed on top of it is care for rounding (`replace_keys`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from eventful.ops.backends import BACKENDS, Backend, choose_backend
from eventful.ops.relative import RelativePositions


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    bias: Tensor | RelativePositions | None = None,
    backend: Backend | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the attention state of `q` over all of `k`.

    This is one operator, `eventful::attend`, to the compiler and to operation counts. No memory
    grows with queries times keys: relative positions are spread out for a few queries at a time.
    The fused operators must never see zero queries or keys (one kills the process) and report a
    log-sum-exp of 0 for a row whose keys are all masked; both are answered here with the state of
    the empty set, output 0 and log-sum-exp -inf.

    Args:
        q: (batch, heads, queries, dim).
        k: (batch, heads, keys, dim).
        v: (batch, heads, keys, dim).
        scale: Factor on the scores, usually dim ** -0.5.
        bias: Added to the scores, broadcastable to (batch, heads, queries, keys); -inf masks a key.
            Or relative positions, whose queries and keys must be those of `q` and `k`.
        backend: "fused" or "plain"; by default "fused" where the device has it for these tensors
            (see `eventful.ops.backends`).

    Returns:
        Output (batch, heads, queries, dim) in q's dtype and log-sum-exp (batch, heads, queries) in
        float32 (float64 for float64 input). Both lie in memory queries before heads.

    Raises:
        ValueError: "fused" was asked for where there is none, or the name is unknown.

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 5, 7).unbind(0)
        >>> o, lse = attend(q, k, v, scale=7**-0.5)
        >>> o.shape, lse.shape
        (torch.Size([1, 2, 5, 7]), torch.Size([1, 2, 5]))
    """
    relative = bias if isinstance(bias, RelativePositions) else None
    o, lse = torch.ops.eventful.attend(
        q,
        k,
        v,
        scale,
        None if relative else bias,
        relative.table if relative else None,
        relative.keys if relative else None,
        list(relative.grid) if relative else [],
        choose_backend(q, backend),
    )
    return o.transpose(1, 2), lse.transpose(1, 2)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    bias: Tensor | None,
    table: Tensor | None,
    keys: Tensor | None,
    grid: list[int],
    backend: Backend,
) -> tuple[Tensor, Tensor]:
    """Compute a state as (batch, queries, heads, dim) and (batch, queries, heads)."""
    batch, heads, queries, dim = q.shape
    o = q.new_empty(batch, queries, heads, dim)
    lse = q.new_empty(batch, queries, heads, dtype=torch.promote_types(q.dtype, torch.float32))
    if queries == 0 or k.shape[2] == 0:
        return o.zero_(), lse.fill_(-torch.inf)
    run = BACKENDS[backend]
    if table is None:
        part_o, part_lse = run(q, k, v, scale, bias)
        if bias is not None:
            masked = (bias == -torch.inf).all(dim=-1).expand(batch, heads, queries)
            part_o = part_o.masked_fill(masked[..., None], 0)
            part_lse = part_lse.masked_fill(masked, -torch.inf)
        return part_o.transpose(1, 2).contiguous(), part_lse.transpose(1, 2).contiguous()
    for b, h, r in _parts(batch, heads, queries, k.shape[2]):
        part = RelativePositions(
            table[b, h, r], (grid[0], grid[1]), None if keys is None else keys[b]
        )
        part_o, part_lse = run(q[b, h, r], k[b, h], v[b, h], scale, part.bias())
        o[b, r, h], lse[b, r, h] = part_o.transpose(1, 2), part_lse.transpose(1, 2)
    return o, lse


_SPREAD = 1 << 22  # bias values spread out at once: 16 MB in float32, which stays in the cache


def _parts(batch: int, heads: int, queries: int, keys: int) -> list[tuple[slice, slice, slice]]:
    """Cut (batch, heads, queries) so that each part has at most `_SPREAD` scores."""
    rows = min(queries, max(1, _SPREAD // keys))
    some_heads = min(heads, max(1, _SPREAD // (rows * keys))) if rows == queries else 1
    some = max(1, _SPREAD // (heads * queries * keys)) if some_heads == heads else 1
    return [
        (slice(b, b + some), slice(h, h + some_heads), slice(r, r + rows))
        for b in range(0, batch, some)
        for h in range(0, heads, some_heads)
        for r in range(0, queries, rows)
    ]


def _attend_shapes(q: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    batch, heads, queries, dim = q.shape
    lse_dtype = torch.promote_types(q.dtype, torch.float32)
    lse = q.new_empty(batch, queries, heads, dtype=lse_dtype)
    return q.new_empty(batch, queries, heads, dim), lse


_library = torch.library.Library("eventful", "FRAGMENT")
_library.define(
    "attend(Tensor q, Tensor k, Tensor v, float scale, Tensor? bias, Tensor? table, Tensor? keys, "
    "int[] grid, str backend) -> (Tensor, Tensor)",
    tags=(torch.Tag.needs_fixed_stride_order,),
)
_library.impl("attend", _attend, "CompositeExplicitAutograd")
torch.library.register_fake("eventful::attend", _attend_shapes, lib=_library)


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
