"""Keys of an attention state exchanged for others: two attentions and a correction, or one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from eventful.ops.attention import attend, replace_keys
from eventful.ops.backends import Kernel, choose_kernel
from eventful.ops.relative import RelativePositions

_LARGEST_DIM = 256  # a block of keys and their values must fit into a processor's memory


def exchange_keys(
    q: Tensor,
    o: Tensor,
    lse: Tensor,
    old: tuple[Tensor, Tensor],
    new: tuple[Tensor, Tensor],
    scale: float,
    bias: Tensor | RelativePositions | None = None,
    backend: Kernel | None = None,
) -> tuple[Tensor, Tensor]:
    """Take keys out of a state and put others in: what `replace_keys` does, from the keys.

    "plain" computes the states of the old and of the new keys and replaces one by the other. The
    Triton kernel goes through the keys in blocks, starting from mass z = 1 over e^m with m = L:

        old keys:  o <- o - e^(s - m) v,  z <- z - e^(s - m)        s = q . k * scale
        new keys:  the same with +, once o and z are scaled to m <- max(m, s)
        at last:   o <- o / z,  L <- m + log z

    so that nothing but the new state is written. It keeps in float32 what "plain" rounds to q's
    dtype (the outputs over old and new keys), and as little of a row whose mass is lost.

    Args:
        q: (batch, heads, queries, dim).
        o: (batch, heads, queries, dim) output over all keys, in float32 at least.
        lse: (batch, heads, queries) log-sum-exp over all keys.
        old: Keys to take out and their values, each (batch, heads, active, dim).
        new: Keys to put in and their values, likewise.
        scale: Factor on the scores.
        bias: Of the queries on old and new keys alike, as in `attend`; only "plain" serves it.
        backend: "triton" or "plain"; by default "triton" on CUDA where it serves the arguments.

    Returns:
        The new state (output, log-sum-exp). Rows whose mass is lost hold -inf or NaN, as with
        `replace_keys`, and are the caller's to redo.

    Raises:
        ValueError: "triton" was asked for where it is not to be had, or the name is unknown.

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 6, 4).unbind(0)
        >>> old, new = (k[:, :, 4:], v[:, :, 4:]), torch.randn(2, 1, 2, 2, 4).unbind(0)
        >>> o, lse = exchange_keys(q, *attend(q, k, v, 0.5), old, new, 0.5)
        >>> k[:, :, 4:], v[:, :, 4:] = new
        >>> torch.allclose(o, attend(q, k, v, 0.5)[0], atol=1e-5)
        True
    """
    if choose_kernel(q, backend, _unserved(q, bias)) == "plain":
        removed, added = attend(q, *old, scale, bias), attend(q, *new, scale, bias)
        return replace_keys(o, lse, removed, added)
    o, lse = torch.ops.eventful.exchange_keys(q, o, lse, *old, *new, scale)
    return o.transpose(1, 2), lse.transpose(1, 2)


def _unserved(q: Tensor, bias: Tensor | RelativePositions | None) -> str | None:
    """What the Triton kernel does not serve."""
    if bias is not None:
        return "a bias"
    if q.dtype == torch.float64:
        return "float64"
    return f"more than {_LARGEST_DIM} values a head" if q.shape[-1] > _LARGEST_DIM else None


def _exchange_keys(
    q: Tensor,
    o: Tensor,
    lse: Tensor,
    old_k: Tensor,
    old_v: Tensor,
    new_k: Tensor,
    new_v: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Compute a state as (batch, queries, heads, dim) and (batch, queries, heads)."""
    from eventful.ops import triton_kernels  # noqa: PLC0415 - loads Triton

    return triton_kernels.exchange_keys(q, o, lse, (old_k, old_v), (new_k, new_v), scale)


def _exchange_keys_shapes(q: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    batch, heads, queries, dim = q.shape
    lse = q.new_empty(batch, queries, heads, dtype=torch.float32)
    return q.new_empty(batch, queries, heads, dim, dtype=torch.float32), lse


_library = torch.library.Library("eventful", "FRAGMENT")
_library.define(
    "exchange_keys(Tensor q, Tensor o, Tensor lse, Tensor old_k, Tensor old_v, Tensor new_k, "
    "Tensor new_v, float scale) -> (Tensor, Tensor)"
)
_library.impl("exchange_keys", _exchange_keys, "CompositeExplicitAutograd")
torch.library.register_fake("eventful::exchange_keys", _exchange_keys_shapes, lib=_library)
