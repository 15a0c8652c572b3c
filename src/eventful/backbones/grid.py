"""Pre-norm blocks over a grid of tokens: windows, relative or rotary positions."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from eventful.backbones.named import NamedBlock, part_of
from eventful.block.gating import run
from eventful.block.state import Grid, Place
from eventful.models.vitdet.positions import by_line, relative_table


@final
class GridBlock(NamedBlock):
    """Gates a block over a grid of tokens (batch, height, width, dim), or (batch, dim, ...).

    Attention spans the grid or stays within windows, which are padded at the bottom and on the
    right. A padding token is projected from zeros, as in the original. Positions are decomposed
    relative ones, which depend on queries, or rotations by the place in a window or the grid.
    """

    has_grid = True

    @classmethod
    def left_alone(cls, model: nn.Module, name: str) -> str | None:
        """Say why a block is not to be converted: it pools, or mixes neighbours."""
        block: Any = model.get_submodule(name)
        if getattr(block, "query_stride", None) or hasattr(block, "proj"):
            return "pools its queries"
        if getattr(block, "use_residual_block", False):
            return "ends in convolutions, which need all tokens"
        return super().left_alone(model, name)

    @property
    def window_size(self) -> int:
        """Side of the windows that attention stays within; 0 in global blocks."""
        return self.original.window_size  # type: ignore[return-value]

    def bias_grid(self, grid: Grid | None) -> Grid | None:
        """Relative positions lie within a window, or span the frame."""
        if self.layout.positions.relative:
            return (self.window_size, self.window_size) if self.window_size else grid
        return None

    def relative_tables(self, q: Tensor, positions: Tensor, grid: Grid) -> Tensor:
        """Look up the relative positions of queries, within their windows or across the frame."""
        lines = self.bias_grid(grid)
        assert lines is not None
        places = positions // grid[1] % lines[0], positions % grid[1] % lines[1]
        tables = [
            relative_table(q, place, by_line(part_of(self, name), size))
            for name, place, size in zip(self.layout.positions.relative, places, lines, strict=True)
        ]
        return torch.cat(tables, dim=2)

    def rotate(self, q: Tensor, k: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """Rotate q and k (total, heads, dim) by their places in a window, or in the grid."""
        if self.family.rotation is None:
            return q, k
        assert place.grid is not None
        assert place.positions is not None
        side, (height, width) = self.window_size, place.grid
        if side and (height % side or width % side):
            raise ValueError(
                f"{self.name} rotates padding tokens by their places, and a grid of {height} x "
                f"{width} tokens needs padding in windows of {side}; pass frames of which both "
                f"sides hold a whole number of windows"
            )
        lines, columns = (side, side) if side else place.grid
        y, x = place.positions // width % lines, place.positions % width % columns
        names, rotary = self.layout.positions.rotary, part_of(self, "rotary_emb")
        made = "position_ids" in names
        tables = rotary(q, part_of(self, "position_ids")) if made else rotary()
        cosine, sine = (table.flatten(0, -2)[y * columns + x, None] for table in tables)
        return _turned(q, cosine, sine), _turned(k, cosine, sine)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Process a grid of tokens, with the signature of the original block."""
        self.check_call(None, False)
        if self.binding is None:
            return self.original.forward(*args, **kwargs)
        x, _ = self.read(args, kwargs)
        if self.family.channels_first:
            x = x.permute(0, 2, 3, 1)
        _, height, width, _ = x.shape
        y = run(self, x.flatten(1, 2), Place(grid=(height, width))).unflatten(1, (height, width))
        return self.returned(y.permute(0, 3, 1, 2) if self.family.channels_first else y)


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate x (total, heads, dim), whose values stand in pairs, in float32."""
    wide = x.float()
    first, second = wide.unflatten(-1, (-1, 2)).unbind(-1)
    return (wide * cosine + torch.stack([-second, first], dim=-1).flatten(-2) * sine).type_as(x)
