"""A frame seen from both sides: how much each side counts, and what both of them miss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eventful.motion.view import Look

LEAST = 0.03  # of pixels, that any patch counts as missed by


class Between(NamedTuple):
    """A frame between two dense ones.

    Attributes:
        before: What is seen of it against the dense frame before.
        after: The same against the dense frame after.
        age: Frames since the dense frame before.
        ahead: Frames until the dense frame after.
    """

    before: Look
    after: Look
    age: int
    ahead: int

    @property
    def weight(self) -> Tensor:
        """(1, grid height, grid width) of the side before; the rest is that of the side after.

        Sides count by the inverse of how far away they are and of what the motion from there
        misses of the patch:

            w = 1 / (age r_before);   weight = w_before / (w_before + w_after)
        """
        before, after = (look.residual[None] + LEAST for look in (self.before, self.after))
        return self.ahead * after / (self.ahead * after + self.age * before)

    @property
    def unmoved(self) -> Tensor:
        """(grid height, grid width) by how much each patch differs from the side most like it."""
        return torch.minimum(self.before.unmoved, self.after.unmoved)

    @property
    def missed(self) -> Tensor:
        """(grid height, grid width) by how much each patch is missed by both sides together.

        That is the harmonic mean of both: a patch that one of the sides explains is known.
        """
        before, after = (look.residual + LEAST for look in (self.before, self.after))
        return 2 * before * after / (before + after)

    def mix(self, before: Tensor, after: Tensor) -> Tensor:
        """Blend tokens (1, grid height, grid width, dim) that were moved here from both sides.

        Example:
            >>> still = Look(*(torch.zeros(1) for _ in range(3)), *(torch.zeros(1, 1),) * 2,
            ...              torch.zeros(1))
            >>> frame = Between(still, still, age=1, ahead=3)
            >>> frame.mix(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).item()
            0.25
        """
        return torch.lerp(after, before, self.weight[..., None].to(before.dtype))
