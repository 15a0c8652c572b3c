"""Operations that run outside the eventful blocks, counted while they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eventful.block.block import EventfulBlock, tokens_of
from eventful.ops.recompute import OPERATORS


class Observer(TorchDispatchMode):
    """Counts the operators that run while it is active, by the rules of this module.

    Attributes:
        linear: Linear layers, biases included.
        matmul: Other matrix products.
        attention: Products inside fused attention.
        additions: Elementwise additions and subtractions of floating-point tensors.
        watched: Memory that belongs to a block's output, and the block's name.
        read: Blocks whose output an operator took, other than to view it.
        written: Blocks whose output an operator wrote to.

    Example:
        >>> import torch
        >>> with Observer() as observer:
        ...     _ = torch.nn.functional.linear(torch.ones(5, 3), torch.ones(7, 3), torch.ones(7))
        >>> observer.total
        140
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = self.matmul = self.attention = self.additions = 0
        self.watched: dict[int, str] = {}
        self.read: set[str] = set()
        self.written: set[str] = set()

    @property
    def total(self) -> int:
        """All kinds together."""
        return self.linear + self.matmul + self.attention + self.additions

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let operators run uncounted, as if this were not active."""
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run one operator and count it; composite ones are taken apart first."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in OPERATORS:
            with self:
                return OPERATORS[name](*args, **kwargs)
        if name not in _COUNTED | _WHOLE:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        self._watch(func, (args, kwargs), result)
        self._count(name, args, result)
        return result

    def _watch(self, func: Any, taken: Any, result: Any) -> None:
        """Notice who reads the output of a block."""
        if not self.watched:
            return
        writes = func._schema.is_mutable
        given = set() if writes else _memory(result)
        names = {self.watched[where] for where in _memory(taken) - given if where in self.watched}
        self.read |= names
        if writes:
            self.written |= names

    def _count(self, name: str, args: tuple, result: Any) -> None:
        match name:
            case "linear":
                self.linear += result.numel() * args[0].shape[-1]
                self.linear += result.numel() if len(args) > 2 and args[2] is not None else 0
            case "addmm":
                self.linear += result.numel() * (args[1].shape[-1] + 1)
            case "mm" | "bmm" | "mv":
                self.matmul += result.numel() * args[0].shape[-1]
            case "baddbmm" | "addmv":
                self.matmul += result.numel() * (args[1].shape[-1] + 1)
            case "addbmm":
                self.matmul += result.numel() * (args[1].shape[0] * args[1].shape[-1] + 1)
            case "add" | "sub" | "add_" | "sub_" | "rsub":
                tensors = isinstance(args[1], Tensor) and args[1].ndim > 0
                self.additions += result.numel() if tensors and result.is_floating_point() else 0
            case _ if name in _FUSED_ATTENTION:
                q, k = args[0], args[1]
                self.attention += 2 * q.numel() * k.shape[-2]
            case "exchange_keys":
                q, old_k, new_k = args[0], args[3], args[5]
                self.attention += 2 * q.numel() * (old_k.shape[-2] + new_k.shape[-2])
            case "attend":
                q, k, table = args[0], args[1], args[5]
                self.attention += 2 * q.numel() * k.shape[-2]
                if table is not None:
                    self.additions += 2 * q.shape[:3].numel() * k.shape[-2]


_FUSED_ATTENTION = {
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
}
_COUNTED = _FUSED_ATTENTION | {"linear", "addmm", "mm", "bmm", "baddbmm", "addbmm", "mv", "addmv"}
_COUNTED |= {"add", "sub", "add_", "sub_", "rsub", "attend", "exchange_keys"}
_WHOLE = {"upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d"}  # not counted


def _memory(tree: Any) -> set[int]:
    """Where the tensors in a tree lie."""
    leaves = (x for x in tree_leaves(tree) if isinstance(x, Tensor))
    return {x.untyped_storage().data_ptr() for x in leaves}


@contextmanager
def outside(blocks: list[EventfulBlock]) -> Iterator[Observer]:
    """Observe what runs on this thread outside the given blocks.

    The blocks are a stream's own copies; their `forward` is wrapped meanwhile.
    """
    observer = Observer()

    def unobserved(name: str, forward: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with observer.paused():
                output = forward(*args, **kwargs)
            observer.watched[tokens_of(output).untyped_storage().data_ptr()] = name
            return output

        return wrapper

    for block in blocks:
        block.forward = unobserved(block.name, block.forward)
    try:
        with observer:
            yield observer
    finally:
        for block in blocks:
            vars(block).pop("forward", None)
