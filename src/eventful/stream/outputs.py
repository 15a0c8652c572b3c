"""What a model returns: copied, and told apart by frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

_PLAIN = bool | int | float | str | None


def copied(output: Any) -> Any:
    """A copy of a model's output; None if it holds something else than tensors and numbers."""
    leaves = tree_leaves(output)
    if not all(isinstance(leaf, Tensor | _PLAIN) for leaf in leaves):
        return None
    return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, output)


def fixed(inputs: Mapping[str, Any]) -> bool:
    """Whether what a model takes beside the frame is known by how it looks."""
    return not any(isinstance(x, Tensor | np.ndarray) for x in tree_leaves(dict(inputs)))


class Form(NamedTuple):
    """What a model returns of one frame, as far as that tells where another frame's begins.

    Attributes:
        structure: Of containers.
        leaves: The shape of each tensor in them, or the value itself.
    """

    structure: Any
    leaves: list[Any]

    @classmethod
    def of(cls, output: Any) -> Form:
        """The form of an output."""
        leaves, structure = tree_flatten(output)
        return cls(structure, [x.shape if isinstance(x, Tensor) else x for x in leaves])

    def rows(self, output: Any, count: int) -> list[Any] | None:
        """The outputs of so many frames that were run as a batch; None if they are mixed up."""
        leaves, structure = tree_flatten(output)
        if structure != self.structure:
            return None
        for leaf, known in zip(leaves, self.leaves, strict=True):
            if isinstance(leaf, Tensor):
                batch = isinstance(known, torch.Size) and known[:1] == (1,)
                if not batch or leaf.shape != (count, *known[1:]):
                    return None
            elif leaf is not known and not (isinstance(leaf, _PLAIN) and leaf == known):
                return None
        return [
            tree_unflatten(
                [x[row : row + 1].clone() if isinstance(x, Tensor) else x for x in leaves],
                structure,
            )
            for row in range(count)
        ]
