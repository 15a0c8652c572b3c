"""Accounting for every child, parameter and buffer of a module before it is converted."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

Types = tuple[type, ...]


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
                f"{_type(module)} is not known to have; {_MEND}"
            )
        if type(value) not in children[child]:
            known = ", ".join(sorted(kind.__name__ for kind in children[child]))
            raise ValueError(
                f"cannot convert {name}: {path} is a {_type(value)}; known here are "
                f"{known}; {_MEND}"
            )
    held = [key for key, _ in module.named_parameters(recurse=False)]
    held += [key for key, _ in module.named_buffers(recurse=False)]
    for key in held:
        if key not in own:
            raise ValueError(
                f"cannot convert {name}: {_type(module)} holds the tensor {key}, "
                f"whose use is unknown; {_MEND}"
            )
    if not called and (module._forward_hooks or module._forward_pre_hooks):
        raise ValueError(
            f"cannot convert {name}: it has forward hooks, and its forward is not called once "
            f"converted; remove them, or hook a submodule that is, such as attn.qkv"
        )
    if "forward" in vars(module):
        raise ValueError(f"cannot convert {name}: its forward has been replaced; {_MEND}")
    if module._compiled_call_impl is not None:
        raise ValueError(
            f"cannot convert {name}: its compile() has been called; leave that out, and use "
            f"Stream(model, compile=True)"
        )


_MEND = "leave the block out with where=..., or write an adapter (CONTRIBUTING.md)"


def _type(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
