"""Old import paths: modules that have moved are found under their former names, with a warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "eventful.accounts": "eventful.counting.account",
    "eventful.attention.forms": "eventful.attention",
    "eventful.blocks": "eventful.block.block",
    "eventful.buffers": "eventful.block.buffer",
    "eventful.cuts": "eventful.stream.cuts",
    "eventful.gates": "eventful.block.gate",
    "eventful.inputs": "eventful.stream.inputs",
    "eventful.options": "eventful.block.options",
    "eventful.reuse": "eventful.policies",
    "eventful.sampling": "eventful.block.sampling",
    "eventful.snapshots": "eventful.stream.snapshots",
    "eventful.state": "eventful.block.state",
    "eventful.stats": "eventful.stream.stats",
}


class Moved(MetaPathFinder, Loader):
    """Imports a moved module where its former name is asked for.

    Example:
        >>> Moved().find_spec("eventful.cuts", None).name
        'eventful.cuts'
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Claim the names that have moved, and no others."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the module's new self in its place."""
        old = module.__name__
        warnings.warn(f"{old} is now {MOVED[old]}", DeprecationWarning, stacklevel=2)
        sys.modules[old] = import_module(MOVED[old])


def install() -> None:
    """Let the import system know the former names; called once, by the package."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.append(Moved())
