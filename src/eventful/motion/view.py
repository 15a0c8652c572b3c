"""What one row's pictures show against what was computed of it: motion, and what it misses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from eventful.motion.carry import carry
from eventful.motion.flow import Flow, on_grid, on_pixels

Grid = tuple[int, int]


class Picture(NamedTuple):
    """A frame of one row, as motion is found on it.

    Attributes:
        image: (1, channels, height, width) in [0, 1], from `Flow.smaller`.
        grey: uint8 (1, height, width) of it.
    """

    image: Tensor
    grey: Tensor

    @classmethod
    def each(cls, images: Tensor) -> list[Picture]:
        """The pictures of a batch (rows, channels, height, width), each in memory of its own."""
        greys = Flow.grey(images).split(1)
        if len(greys) == 1:
            return [cls(images, *greys)]
        rows = zip(images.split(1), greys, strict=True)
        return [cls(image.clone(), grey.clone()) for image, grey in rows]


class Look(NamedTuple):
    """A frame of one row, seen against the last dense one.

    Attributes:
        motion: (1, grid height, grid width, 2) to where each patch was on the dense frame.
        drift: The same to where it was when tokens were last recomputed; None if none were.
        fresh: bool (1, grid height, grid width), patches whose recomputed token is still in view.
        residual: (grid height, grid width) root mean square over a patch's pixels of what the
            moved pictures miss.
        unmoved: The same of the dense frame's picture as it stood.
        flow: (1, height, width, 2) the motion of each pixel.
    """

    motion: Tensor
    drift: Tensor | None
    fresh: Tensor
    residual: Tensor
    unmoved: Tensor
    flow: Tensor


@dataclass
class View:
    """Remembers what the pictures of one row looked like when its tokens were computed.

    What is moved are tokens; the pictures they were computed from are moved alike, so what these
    miss of the frame is where the tokens are out of date.

    Attributes:
        flow: Shared by all rows.
        grid: Height and width of the token grid.
        pixels: (1, channels, height, width) of the last dense frame, at the size of the flow.
        grey: uint8 (1, height, width) of it.
        shown: The picture whose output was shown last.
        recomputed: Pixels of the patches that were recomputed since, where they were then.
        fresh: bool (1, grid height, grid width), which those are.
        motion: The motion to the dense frame, at that time.
        brought: (1, grid height, grid width, 1) what patches missed when the picture was taken.
        last: The last flow, which the next one starts from.
    """

    flow: Flow
    grid: Grid
    pixels: Tensor
    grey: Tensor
    shown: Tensor
    recomputed: Tensor | None = None
    fresh: Tensor | None = None
    motion: Tensor | None = None
    brought: Tensor | None = None
    last: Tensor | None = None

    @classmethod
    def of(cls, flow: Flow, grid: Grid, picture: Picture, brought: Tensor | None = None) -> View:
        """Start from a frame of which every token is known.

        Args:
            flow: Shared by all rows.
            grid: Height and width of the token grid.
            picture: The frame.
            brought: What its patches already miss; nothing if it is dense.
        """
        return cls(flow, grid, picture.image, picture.grey, picture.image, brought=brought)

    def still(self, picture: Picture) -> bool:
        """Whether a frame shows what was shown last, to less than a level of 8-bit grey."""
        return bool((picture.image - self.shown).abs().max() < 1 / 512)

    def distance(self, picture: Picture) -> float:
        """Root mean square difference from the dense frame as it stood, in grey from 0 to 1."""
        off = picture.grey.float() - self.grey.float()
        return off.square().mean().sqrt().item() / 255

    def look(self, picture: Picture) -> Look:
        """See a frame against what is known."""
        image, grey = picture
        flow = self.flow.between(self.grey, grey, self.last)
        motion = on_grid(flow, self.grid)
        expected = _carry_pixels(self.pixels, flow)
        fresh, drift = torch.zeros(1, *self.grid, dtype=torch.bool, device=image.device), None
        if self.fresh is not None and self.recomputed is not None and self.motion is not None:
            drift = motion - self.motion
            fresh = carry(self.fresh[..., None].float(), drift)[..., 0] > 0.5
            moved = _carry_pixels(self.recomputed, on_pixels(drift, _size(image)))
            where = F.interpolate(fresh[:, None].float(), _size(image), mode="nearest")
            expected = torch.where(where > 0, moved, expected)
        residual = patch_rms(image - expected, self.grid)
        if self.brought is not None:
            brought = carry(self.brought, motion)[..., 0].masked_fill(fresh, 0)
            residual = torch.hypot(residual, brought)
        unmoved = patch_rms(image - self.pixels, self.grid)
        return Look(motion, drift, fresh, residual[0], unmoved[0], flow)

    def saw(self, picture: Picture, look: Look) -> None:
        """Take note of a frame that was looked at and shown."""
        self.shown, self.last = picture.image, look.flow

    def computed(self, picture: Picture, look: Look, mask: Tensor) -> None:
        """Take note of patches that were recomputed on a frame.

        Args:
            picture: The frame.
            look: What was seen of it.
            mask: bool (1, grid height, grid width), the patches.
        """
        known = image = picture.image
        if self.recomputed is not None and look.drift is not None:
            moved = _carry_pixels(self.recomputed, on_pixels(look.drift, _size(image)))
            where = F.interpolate(mask[:, None].float(), _size(image), mode="nearest")
            known = torch.where(where > 0, image, moved)
        self.recomputed, self.fresh, self.motion = known, look.fresh | mask, look.motion

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, by name."""
        named = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return named


def patch_rms(difference: Tensor, grid: Grid) -> Tensor:
    """Root mean square over the pixels of each patch, channels summed.

    Args:
        difference: (batch, channels, height, width).
        grid: Height and width of the token grid.

    Returns:
        (batch, grid height, grid width).

    Example:
        >>> patch_rms(torch.full((1, 4, 8, 8), 0.5), (2, 2)).tolist()
        [[[1.0, 1.0], [1.0, 1.0]]]
    """
    squares = difference.square().sum(dim=1, keepdim=True)
    return F.interpolate(squares, grid, mode="area")[:, 0].sqrt()


def _carry_pixels(images: Tensor, flow: Tensor) -> Tensor:
    """`carry` for images (batch, channels, height, width), by the operator made for them."""
    height, width = _size(images)
    y = torch.arange(height, device=images.device)[:, None] + flow[..., 0]
    x = torch.arange(width, device=images.device) + flow[..., 1]
    places = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1)
    return F.grid_sample(images, places, padding_mode="border", align_corners=True)


def _size(image: Tensor) -> Grid:
    height, width = image.shape[2:]
    return height, width
