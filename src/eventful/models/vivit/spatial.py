"""The spatial model: a vision transformer on pairs of frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eventful.models.vivit.blocks import (
    EPS,
    FRAMES,
    MEAN,
    PATCH,
    STD,
    initialize_,
    transformer_blocks,
)
from eventful.stream import Stream


class TubeletEmbedding(nn.Module):
    """Linear embedding of tubelets of 2 x 16 x 16 pixels.

    Two frames stacked along the channels turn the convolution over time and space into one over
    space: `proj.weight` (dim, 2 * 3, 16, 16) is a `Conv3d` weight (dim, 3, 2, 16, 16) with its
    second and third axis exchanged and flattened.

    Example:
        >>> import torch
        >>> TubeletEmbedding(dim=24)(torch.zeros(1, 6, 32, 48)).shape
        torch.Size([1, 24, 2, 3])
    """

    def __init__(self, dim: int, patch: int = PATCH) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(FRAMES * 3, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Embed tubelets.

        Args:
            x: (batch, 2 * 3, height, width), frame by frame.

        Returns:
            (batch, dim, height / patch, width / patch).

        Raises:
            ValueError: The sides are not multiples of the patch, or the channels are not six.
        """
        channels = self.proj.in_channels
        fits = x.ndim == 4 and x.shape[1] == channels and min(x.shape[2:]) >= self.patch
        if not fits or any(side % self.patch for side in x.shape[2:]):
            raise ValueError(
                f"expected two frames as (batch, {channels}, height, width), both sides multiples "
                f"of {self.patch}, got {tuple(x.shape)}; crop or pad the frames, and see tubelets()"
            )
        return self.proj(x)


class SpatialModel(nn.Module):
    """A ViT over the tokens of one moment; the class token behind the norm goes on.

    Its blocks are timm's, so that `eventful.convert(model.spatial, ...)` converts them, and a
    `Stream` on it takes one pair of frames after the other. The paper lets the class token compete
    with the others: `prefix="gated"`.

    Attributes:
        patch_embed: `TubeletEmbedding`.
        cls_token: (1, 1, dim).
        pos_embed: (1, 1 + height * width, dim), the class token's first, for the grid `grid`.
        blocks: The transformer blocks.
        norm: The final layer norm.

    Example:
        >>> import torch, eventful
        >>> spatial = SpatialModel(grid=(2, 2), dim=24, heads=3, depth=2)
        >>> _ = eventful.convert(spatial, eventful.TopR(2), prefix="gated")
        >>> stream = eventful.Stream(spatial, scene_cuts=None)
        >>> [stream(pair).shape for pair in torch.rand(2, 1, 6, 32, 32)]
        [torch.Size([1, 24]), torch.Size([1, 24])]
    """

    num_prefix_tokens = 1

    def __init__(
        self,
        grid: tuple[int, int],
        dim: int = 768,
        heads: int = 12,
        depth: int = 12,
        patch: int = PATCH,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.pretrained_cfg = {"mean": (MEAN,) * 3 * FRAMES, "std": (STD,) * 3 * FRAMES}
        self.patch_embed = TubeletEmbedding(dim, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], dim))
        self.blocks = transformer_blocks(depth, dim, heads)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        initialize_(self)

    def forward(self, tubelet: Tensor) -> Tensor:
        """Describe one moment.

        Args:
            tubelet: (batch, 2 * 3, height, width): two normalised frames, frame by frame.

        Returns:
            (batch, dim).

        Raises:
            ValueError: The frames do not divide into patches.
        """
        x = self.patch_embed(tubelet)
        height, width = x.shape[2:]
        positions = self._positions((height, width))
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return self.norm(self.blocks(x + positions)[:, 0])

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Resample the patches' positions, bilinearly as TAdaConv does."""
        if grid == self.grid:
            return self.pos_embed
        square = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, self.grid)
        patches = F.interpolate(square, size=grid, mode="bilinear", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)


def tubelets(view: Tensor) -> Tensor:
    """Stack each two frames along their channels, as the spatial model takes them.

    Args:
        view: (batch, frames, 3, height, width).

    Returns:
        (batch, frames / 2, 2 * 3, height, width).

    Raises:
        ValueError: The frames are odd in number, or have not three channels.

    Example:
        >>> import torch
        >>> tubelets(torch.zeros(1, 4, 3, 32, 48)).shape
        torch.Size([1, 2, 6, 32, 48])
    """
    if view.ndim != 5 or view.shape[2] != 3 or view.shape[1] % FRAMES or not view.shape[1]:
        raise ValueError(
            f"expected (batch, frames, 3, height, width) with an even number of frames, got "
            f"{tuple(view.shape)}"
        )
    return view.unflatten(1, (-1, FRAMES)).flatten(2, 3)


def spatial_tokens(stream: Stream, view: Tensor) -> Tensor:
    """Run one view of each batch row through a stream on the spatial model.

    The stream is reset first, so that the first tubelet is computed in full and the others from
    it. Rows do not see each other: all views of a video may be rows of one batch, if the memory for
    their state is there.

    Args:
        stream: On a converted `SpatialModel`.
        view: (batch, frames, 3, height, width).

    Returns:
        (batch, clips, dim), what `ViViT.temporal` takes.

    Raises:
        ValueError: The view has another shape, or holds NaN or infinity.

    Example:
        >>> import torch, eventful
        >>> from eventful.models.vivit import ViViT
        >>> model = ViViT(classes=7, img_size=32, frames=4, dim=24, heads=3, depth=2).eval()
        >>> _ = eventful.convert(model.spatial, eventful.TopR(2), prefix="gated")
        >>> stream = eventful.Stream(model.spatial, scene_cuts=None)
        >>> views = torch.rand(1, 3, 4, 3, 32, 32)
        >>> tokens = spatial_tokens(stream, views[0])
        >>> model.classify(tokens[None]).shape
        torch.Size([1, 7])
    """
    stream.reset()
    return torch.stack([stream(x) for x in tubelets(view).unbind(1)], dim=1)
