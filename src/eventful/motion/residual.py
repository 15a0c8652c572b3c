"""What has changed in a frame beyond what motion explains, since each patch was computed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eventful.motion.carry import carry
from eventful.motion.flow import Motion


class Residual:
    """How far the pixels of each patch are from what the motion predicts, summed up over time.

    With x the pixels now, x' those of the last frame moved along the flow, and s of a patch 0 when
    it is computed, each frame adds the unexplained energy to what the patch has brought along:

        s <- sqrt(carry(s)^2 + ||x - x'||^2)

    Flow is vague at the edges of what moves, and a token depends on what is around it, so a patch
    takes the mean of its own s and the largest next to it; and none has changed by more than its
    pixels differ from those it was computed from.

    Args:
        motion: Gives the flow, and the size of the images that are compared.

    Example:
        >>> frame = torch.rand(1, 3, 56, 70)
        >>> residual = Residual(Motion((4, 5)))
        >>> residual.start(frame)
        >>> motion, error = residual(frame)
        >>> error.shape, error.max().item() < 1e-3
        (torch.Size([1, 4, 5]), True)
    """

    def __init__(self, motion: Motion) -> None:
        self._motion = motion

    def start(self, frame: Tensor) -> None:
        """Begin with a frame (batch, 3, height, width) that is computed in full."""
        self._frame, self._pixels = frame, self._motion.smaller(frame)
        self._computed = self._pixels  # of each patch, when it was computed
        self._sum = frame.new_zeros(len(frame), *self._motion.grid)

    def __call__(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Go on to the next frame.

        Returns:
            The motion since the last frame (batch, grid height, grid width, 2), see `Motion`, and
            how much of each patch is unexplained (batch, grid height, grid width).
        """
        flow = self._motion.flow(self._frame, frame)
        motion, pixels = self._motion.on_grid(flow), self._motion.smaller(frame)
        expected = carry(self._pixels.permute(0, 2, 3, 1), flow).permute(0, 3, 1, 2)
        brought = carry(self._sum[..., None], motion)[..., 0]
        self._sum = torch.hypot(brought, self._distance(pixels, expected))
        self._frame, self._pixels = frame, pixels
        near = F.max_pool2d(self._sum, 3, stride=1, padding=1)
        return motion, torch.minimum((self._sum + near) / 2, self._distance(pixels, self._computed))

    def computed(self, mask: Tensor) -> None:
        """Note which patches were computed on this frame: bool (batch, grid height, grid width)."""
        self._sum = self._sum.masked_fill(mask, 0.0)
        size = self._pixels.shape[2:]
        where = F.interpolate(mask[:, None].to(self._pixels.dtype), size, mode="nearest")
        self._computed = torch.where(where > 0, self._pixels, self._computed)

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Root mean square over the pixels of each patch: (batch, grid height, grid width)."""
        squares = (a - b).square().sum(dim=1, keepdim=True)
        return F.interpolate(squares, self._motion.grid, mode="area")[:, 0].sqrt()
