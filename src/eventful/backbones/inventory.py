"""Accounting for every child, parameter and buffer of a module before it is converted."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.nn.modules import activation as torch_activations

from eventful.backbones import capturing

Types = tuple[type, ...]
_NOT_ELEMENTWISE = ("MultiheadAttention", "Softmax", "Softmax2d", "LogSoftmax", "Softmin", "GLU")


def elementwise(module: object) -> Types:
    """The activations that a Python module defines and that take every value by itself."""
    return tuple(
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, nn.Module)
        and kind.__name__ not in _NOT_ELEMENTWISE
    )


ELEMENTWISE = elementwise(torch_activations)


def account(
    module: nn.Module,
    name: str,
    children: Mapping[str, Types],
    own: frozenset[str] = frozenset(),
    called: bool = True,
) -> None:
    """Check that a module holds what the adapter knows, and nothing else.

    Args:
        module: What is to be converted.
        name: Its path in the model, for messages.
        children: The exact types that each child may have.
        own: Names of the parameters and buffers that the module may hold itself.
        called: Whether its own `forward` still runs after conversion. If not, hooks on it would
            be lost.

    Raises:
        ValueError: Something is unknown; the message names it.
    """
    for child, value in module.named_children():
        path = f"{name}.{child}"
        if child not in children:
            raise ValueError(
                f"cannot convert {name}: it holds {path}, a {_type(value)}, which "
                f"{_type(module)} is not known to have; {MEND}"
            )
        if type(value) not in children[child]:
            known = ", ".join(sorted(kind.__name__ for kind in children[child]))
            raise ValueError(
                f"cannot convert {name}: {path} is a {_type(value)}; known here are {known}; {MEND}"
            )
    held = [key for key, _ in module.named_parameters(recurse=False)]
    held += [key for key, _ in module.named_buffers(recurse=False)]
    for key in held:
        if key not in own:
            raise ValueError(
                f"cannot convert {name}: {_type(module)} holds the tensor {key}, "
                f"whose use is unknown; {MEND}"
            )
    account_forward(module, name, called)


def account_forward(module: nn.Module, name: str, called: bool = True) -> None:
    """Check that nobody has changed what a module does.

    Args:
        module: What is to be converted.
        name: Its path in the model, for messages.
        called: Whether its own `forward` still runs after conversion. If not, hooks on it would
            be lost; those with which transformers records outputs are told apart when it does.

    Raises:
        ValueError: Its forward has been replaced, or hooks would be lost.
    """
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    if not called and not all(map(capturing.is_capturing, hooks)):
        raise ValueError(
            f"cannot convert {name}: it has forward hooks, and its forward is not called once "
            f"converted; remove them, or hook a submodule that is, such as attn.qkv"
        )
    if "forward" in vars(module):
        raise ValueError(f"cannot convert {name}: its forward has been replaced; {MEND}")
    if module._compiled_call_impl is not None:
        raise ValueError(
            f"cannot convert {name}: its compile() has been called; leave that out, and use "
            f"Stream(model, compile=True)"
        )


MEND = "leave the block out with where=..., or write an adapter (CONTRIBUTING.md)"


def _type(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
