"""By how much each patch of a frame asks to be recomputed, from its pixels alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eventful.motion.between import Between
from eventful.motion.view import Look


def rank(look: Look) -> Tensor:
    """By how much each patch (grid height, grid width) asks to be recomputed.

        (r + the largest r of the 3 x 3 patches around) / 2

    Flow is vague at the edges of what moves, and a token depends on what is around it. A patch
    whose pixels are those it was computed from asks for no more than they differ.
    """
    wanted = _around(look.residual)
    return torch.where(look.fresh[0], wanted, torch.minimum(wanted, look.unmoved))


def _around(residual: Tensor) -> Tensor:
    """(r + the largest r of the 3 x 3 patches around) / 2, of (grid height, grid width)."""
    near = F.max_pool2d(residual[None, None], 3, stride=1, padding=1)[0, 0]
    return (residual + near) / 2


def rank_between(seen: Between) -> Tensor:
    """By how much each patch (grid height, grid width) asks to be recomputed; see `rank`."""
    return torch.minimum(_around(seen.missed), seen.unmoved)
