"""Compiled graphs, which streams of one model share: they hold a copy of its weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import nn

from eventful.runtimes.export import Tree
from eventful.runtimes.runtime import Graph

KEPT = 4  # of a model's, for streams to come; those that streams run live as long as these


class Compiled(NamedTuple):
    """The graphs of a model for frames of one size.

    Attributes:
        graphs: By name; each stream runs twins of them.
        output: What the model returns.
    """

    graphs: Mapping[str, Graph]
    output: Tree


_compiled: WeakKeyDictionary[nn.Module, tuple[Hashable, dict[Hashable, Compiled]]]
_compiled = WeakKeyDictionary()  # with the state of the weights
_lock = threading.Lock()


def shared(
    model: nn.Module, weights: Hashable, key: Hashable, make: Callable[[], Compiled]
) -> Compiled:
    """Graphs of a model: those that another stream had made, or new ones.

    Args:
        model: The model. Its graphs go with it.
        weights: The state of its weights. Graphs of another state go, too.
        key: Everything else that they depend on.
        make: Makes them. Other streams wait meanwhile.
    """
    with _lock:
        before, known = _compiled.get(model, (weights, {}))
        known = known if before == weights else {}
        _compiled[model] = weights, known
        found = known[key] = known.pop(key, None) or make()
        while len(known) > KEPT:
            del known[next(iter(known))]
        return found
