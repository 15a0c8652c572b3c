"""A stream's own copy of a converted model's tree, down to the eventful blocks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import nn

from eventful.block.block import EventfulBlock, eventful_blocks
from eventful.block.state import Binding, Frame

_OF_TORCH = frozenset(vars(nn.Module()))  # hooks, parameters, children: what torch itself keeps
_RUN = ("forward", "_compiled_call_impl")  # what torch calls when a module is


def bound_copy(model: nn.Module, frame: Frame, method: str = "forward") -> nn.Module:
    """Copy a module tree down to its eventful blocks and bind those to a stream's frame.

    Weights, buffers, hooks and every module without such a block stay shared. Nothing is written
    into the model: no `__setattr__` or `__copy__` of its modules is called. Methods that were set
    on a module that is copied are bound to the copy.

    Args:
        model: A converted model.
        frame: What its blocks will share.
        method: The method that will run.

    Raises:
        ValueError: A method of a module that is copied has been replaced by a function that would
            run the model itself, past the stream; the message names it.
    """
    copied = {n: m for n, m in model.named_modules() if eventful_blocks(m)}
    twins = {id(module): object.__new__(type(module)) for module in copied.values()}
    rebind = _Rebinding(dict(twins))
    for block in eventful_blocks(model).values():
        rebind.twins[id(block.original)] = twins[id(block)]
    for path, module in copied.items():
        inside = isinstance(module, EventfulBlock)
        attributes = vars(twins[id(module)])
        for name, value in vars(module).items():
            if not (inside or name in _OF_TORCH):
                attributes[name] = _rebound(rebind, value, path, name, module, method)
            else:
                attributes[name] = value
        attributes["training"] = False
        if inside:
            attributes["binding"] = Binding(frame, dict(module.default_policies))
        else:
            children = module._modules.items()
            attributes["_modules"] = {name: twins.get(id(c), c) for name, c in children}
    return twins.get(id(model), model)


def _rebound(
    rebind: _Rebinding, value: Any, path: str, name: str, module: nn.Module, method: str
) -> Any:
    try:
        return rebind(value)
    except _HeldError as error:
        replaces = name in _RUN or (hasattr(type(module), name) and not hasattr(nn.Module, name))
        if not replaces and name != method:
            return value  # it may read the model's weights, which are the stream's too
        where = f"{path}.{name}" if path else name
        raise ValueError(
            f"a stream cannot run this {type(module).__name__}: its attribute {where} is a "
            f"function that holds on to the model itself ({error}), as torch.compile and other "
            f"wrappers set them, and would run it past the stream. Take the wrapper off before you "
            f"convert the model (torch.compile(m): convert m; m.compile(): leave it out; "
            f"accelerate: remove_hook_from_module(m, recurse=True)); Stream(model, compile=True) "
            f"compiles blocks"
        ) from None


class _HeldError(Exception):
    """A function's closure holds a module that is copied; its text says which function."""


class _Rebinding:
    """Turns values that refer to copied modules into the same that refer to the copies.

    Args:
        twins: The copies, by the identity of the original.
    """

    def __init__(self, twins: dict[int, Any]) -> None:
        self.twins = twins
        self._within: set[int] = set()  # containers and functions may hold themselves

    def __call__(self, value: Any) -> Any:
        """The value itself where it refers to none.

        Raises:
            _HeldError: A function refers to one in a way that cannot be changed.
        """
        if id(value) in self.twins:
            return self.twins[id(value)]
        if id(value) in self._within:
            return value
        self._within.add(id(value))
        try:
            return self._changed(value)
        finally:
            self._within.discard(id(value))

    def _changed(self, value: Any) -> Any:
        kind = type(value)
        if kind is MethodType:
            func, owner = self(value.__func__), self(value.__self__)
            return value if owner is value.__self__ else MethodType(func, owner)
        if kind is partial:
            func, args, named = self(value.func), self(value.args), self(value.keywords)
            if (func, args, named) == (value.func, value.args, value.keywords):
                return value
            return partial(func, *args, **named)
        if kind in (list, tuple, set):
            parts = [self(part) for part in value]
            same = all(new is old for new, old in zip(parts, value, strict=True))
            return value if same else kind(parts)
        if kind is dict:
            parts = {key: self(part) for key, part in value.items()}
            return value if all(parts[key] is value[key] for key in value) else parts
        if kind is FunctionType and any(self(held) is not held for held in _held(value)):
            raise _HeldError(value.__qualname__)
        return value


def _held(function: FunctionType) -> Iterator[Any]:
    """What a function holds on to: its closure and its defaults."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # nothing has been put into it yet
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
