"""Pre-norm blocks whose windows are folded into the batch: LW-DETR."""

from __future__ import annotations

from math import isqrt
from typing import Any, final

from torch import Tensor

from eventful.backbones.named import NamedBlock
from eventful.block.gating import run
from eventful.block.state import Place


@final
class FoldedBlock(NamedBlock):
    """Gates a block over windows (batch * windows, window tokens, dim) of a square grid.

    Some blocks attend within windows, the others across the frame. Inside, tokens stand as a grid,
    line by line, so that rows are those of the frame.
    """

    has_grid = True

    @property
    def across(self) -> int:
        """Windows in a line of windows."""
        return isqrt(self.original.num_windows)  # type: ignore[arg-type]

    @property
    def window_size(self) -> int:
        """Side of the windows that attention stays within; 0 in global blocks."""
        if not self.original.window or self.binding is None or self.binding.grid is None:
            return 0
        return self.binding.grid[0] // self.across

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Process windows of tokens, with the signature of the original block."""
        self.check_call(None, False)
        if self.binding is None:
            return self.original.forward(*args, **kwargs)
        x, _ = self.read(args, kwargs)
        side = isqrt(x.shape[1])
        if side**2 != x.shape[1]:
            raise ValueError(
                f"{self.name} takes square windows, got {x.shape[1]} tokens a window; pass square "
                f"frames"
            )
        whole = self.across * side
        y = run(self, self._unfolded(x, side), Place(grid=(whole, whole)))
        return self.returned(self._folded(y, side))

    def _unfolded(self, x: Tensor, side: int) -> Tensor:
        """(batch * windows, side * side, dim) -> (batch, tokens, dim)."""
        windows = x.unflatten(1, (side, side)).unflatten(0, (-1, self.across, self.across))
        return windows.transpose(2, 3).flatten(1, 4)

    def _folded(self, y: Tensor, side: int) -> Tensor:
        """The inverse."""
        lines = y.unflatten(1, (self.across, side, self.across, side))
        return lines.transpose(2, 3).flatten(3, 4).flatten(0, 2)
