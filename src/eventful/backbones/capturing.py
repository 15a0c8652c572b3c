"""The hooks with which transformers records hidden states and attention maps.

A model of transformers hooks its blocks by their class when hidden states are first asked for.
Converted blocks have another class, so the hooks are put in place before conversion; blocks keep
them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import nn

_MODULE = "transformers.utils.output_capturing"
_DONE = "_output_capturing_hooks_installed"


def is_capturing(hook: Callable[..., Any]) -> bool:
    """Whether a hook records outputs for transformers; it does nothing unless some are asked for.

    Example:
        >>> is_capturing(print)
        False
    """
    return getattr(hook, "__module__", None) == _MODULE


def wanted() -> frozenset[str]:
    """What the model of transformers that is running has been asked to record."""
    module: Any = sys.modules.get(_MODULE)
    collector = None if module is None else module._active_collector.get()
    return frozenset(collector or ())


def install(model: nn.Module) -> None:
    """Let every model of transformers inside a model hook its blocks now, if it has not yet.

    Installing hooks for a model does so for all models inside it, so it is done once for the
    outermost of those that have none.

    Raises:
        ValueError: This release of transformers records outputs in another way.
    """
    if "transformers" not in sys.modules or not _is_pretrained(model, sys.modules["transformers"]):
        for child in model.children():
            install(child)
        return
    module: Any = sys.modules.get(_MODULE)
    if module is None:
        raise ValueError(
            "this release of transformers records hidden states in a way that does not see "
            "converted blocks; install transformers 5.8 or newer"
        )
    if getattr(model, _DONE, False):
        return
    if any(getattr(inside, _DONE, False) for inside in model.modules()):
        for child in model.children():
            install(child)
    else:
        module.maybe_install_capturing_hooks(model)


def _is_pretrained(model: nn.Module, transformers: Any) -> bool:
    return isinstance(model, transformers.PreTrainedModel)
