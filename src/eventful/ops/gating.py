"""What a token gate computes over all tokens of a frame, each in one pass where Triton runs it."""

from __future__ import annotations

import torch
from torch import Tensor

from eventful.ops.backends import Kernel, choose_kernel


def error_norm(reference: Tensor, c: Tensor, backend: Kernel | None = None) -> Tensor:
    """Compute the norm ||u - c|| of every token, in float32 at least.

    c is rounded as the reference is, so that what stays still has no error.

    Args:
        reference: u (batch, tokens, dim).
        c: (batch, tokens, dim) in any dtype.
        backend: "triton" or "plain"; by default "triton" on CUDA where it can be imported.

    Returns:
        (batch, tokens).

    Raises:
        ValueError: "triton" was asked for where it is not to be had, or the name is unknown.

    Example:
        >>> error_norm(torch.zeros(1, 2, 2), torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])).tolist()
        [[5.0, 0.0]]
    """
    if choose_kernel(reference, backend) == "triton":
        return torch.ops.eventful.error_norm(reference, c)
    wide = torch.promote_types(reference.dtype, torch.float32)
    e = reference.to(wide) - c.to(reference.dtype).to(wide)
    return torch.linalg.vector_norm(e, dim=-1)


def remember_(
    reference: Tensor, c: Tensor, index_flat: Tensor, backend: Kernel | None = None
) -> Tensor:
    """Pick c~ = c[index] and write it over the same tokens of the reference: u[index] <- c~.

    Args:
        reference: u (batch, tokens, dim), contiguous; changed in place, in its own dtype.
        c: (batch, tokens, dim) in any dtype.
        index_flat: (total,) distinct places in the flattened (batch * tokens) axis, as
            `Index.flat`.
        backend: As in `error_norm`.

    Returns:
        c~ (total, dim) in c's dtype. It may share memory with c: read it, do not change it.

    Raises:
        ValueError: As in `error_norm`.

    Example:
        >>> reference, c = torch.zeros(1, 3, 1), torch.tensor([[[1.0], [2.0], [3.0]]])
        >>> remember_(reference, c, torch.tensor([0, 2])).flatten().tolist()
        [1.0, 3.0]
        >>> reference.flatten().tolist()
        [1.0, 0.0, 3.0]
    """
    if choose_kernel(reference, backend) == "triton":
        return torch.ops.eventful.remember_(reference, c, index_flat)
    if len(index_flat) == c.shape[:2].numel():  # every token
        reference.copy_(c)
        return c.flatten(0, 1)
    new = c.flatten(0, 1).index_select(0, index_flat)
    reference.view(-1, c.shape[-1]).index_copy_(0, index_flat, new.to(reference.dtype))
    return new


def _error_norm(reference: Tensor, c: Tensor) -> Tensor:
    from eventful.ops import triton_kernels  # noqa: PLC0415 - loads Triton

    return triton_kernels.error_norm(reference, c)


def _error_norm_shape(reference: Tensor, c: Tensor) -> Tensor:
    wide = torch.promote_types(reference.dtype, torch.float32)
    return reference.new_empty(reference.shape[:2], dtype=wide)


def _remember(reference: Tensor, c: Tensor, index: Tensor) -> Tensor:
    from eventful.ops import triton_kernels  # noqa: PLC0415 - loads Triton

    return triton_kernels.remember_(reference, c, index)


def _remember_shape(reference: Tensor, c: Tensor, index: Tensor) -> Tensor:
    return c.new_empty(len(index), c.shape[-1])


_library = torch.library.Library("eventful", "FRAGMENT")
_library.define("error_norm(Tensor reference, Tensor c) -> Tensor")
_library.define("remember_(Tensor(a!) reference, Tensor c, Tensor index) -> Tensor")
_library.impl("error_norm", _error_norm, "CompositeExplicitAutograd")
_library.impl("remember_", _remember, "CompositeExplicitAutograd")
torch.library.register_fake("eventful::error_norm", _error_norm_shape, lib=_library)
torch.library.register_fake("eventful::remember_", _remember_shape, lib=_library)
