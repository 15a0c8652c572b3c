"""Image flow: where each pixel of a frame was on an earlier one."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST = 48  # pixels of the short side that the flow needs to find anything


class Flow:
    """Dense optical flow on small images (DIS; Kroeger et al., ECCV 2016), its fastest preset.

    A flow to the same earlier image may start from the last one, which costs nothing and finds
    larger motions.

    Args:
        scale: Size of the images that flow is computed on, relative to the frames.

    Raises:
        ModuleNotFoundError: OpenCV is not installed.

    Example:
        >>> flow = Flow()
        >>> image = flow.smaller(torch.rand(1, 3, 112, 140))
        >>> flow.between(flow.grey(image), flow.grey(image)).shape
        torch.Size([1, 56, 70, 2])
    """

    def __init__(self, scale: float = 0.5) -> None:
        cv2 = _opencv()
        self.scale = scale
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(1)

    def smaller(self, frames: Tensor) -> Tensor:
        """Frames (batch, channels, height, width) at the size that flow is computed on.

        Raises:
            ValueError: They are smaller than flow needs.
        """
        height, width = frames.shape[2:]
        if min(height, width) < LEAST:
            raise ValueError(
                f"frames of {height} x {width} pixels are too small for motion, which needs "
                f"{LEAST} on the short side; Skip(k) and token policies such as TopR(r) need none"
            )
        scale = min(1.0, max(self.scale, LEAST / min(height, width)))
        size = round(height * scale), round(width * scale)
        return F.interpolate(frames.float(), size, mode="area")

    @staticmethod
    def grey(images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) in [0, 1] as uint8 (batch, height, width)."""
        if images.shape[1] == 3:
            weights = images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
            grey = (images * weights).sum(dim=1)
        else:
            grey = images.mean(dim=1)
        return (grey.clamp(0, 1) * 255).byte()

    def between(self, before: Tensor, now: Tensor, start: Tensor | None = None) -> Tensor:
        """Find where each pixel was on an earlier image.

        Args:
            before: The earlier image, uint8 (1, height, width) from `grey`.
            now: The image.
            start: What was found for the frame before, to start from.

        Returns:
            (1, height, width, 2) float32: how far to go, down and to the right in pixels.
        """
        if start is None:  # nothing handed over would be what another row found last
            start = torch.zeros(*now.shape, 2, device="cpu")
        begin = start[0].flip(-1).cpu().numpy()  # columns come first
        found = self._flow.calc(now[0].cpu().numpy(), before[0].cpu().numpy(), begin)
        return torch.from_numpy(found)[None].flip(-1).to(now.device)


def on_grid(flow: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average a flow over each cell of a grid, in cells.

    Args:
        flow: (batch, height, width, 2) in pixels.
        grid: Height and width of the grid.

    Returns:
        (batch, grid height, grid width, 2).

    Example:
        >>> on_grid(torch.full((1, 8, 12, 2), 2.0), (4, 3)).unique().tolist()
        [0.5, 1.0]
    """
    unit = flow.new_tensor(grid) / flow.new_tensor(flow.shape[1:3])
    cells = F.interpolate(flow.permute(0, 3, 1, 2), grid, mode="area")
    return cells.permute(0, 2, 3, 1) * unit


def on_pixels(motion: Tensor, size: tuple[int, int]) -> Tensor:
    """Spread a motion of cells (batch, grid height, grid width, 2) over an image, in its pixels."""
    unit = motion.new_tensor(size) / motion.new_tensor(motion.shape[1:3])
    pixels = F.interpolate(motion.permute(0, 3, 1, 2), size, mode="bilinear")
    return pixels.permute(0, 2, 3, 1) * unit


def _opencv() -> ModuleType:
    try:
        return importlib.import_module("cv2")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "motion needs OpenCV: pip install opencv-python-headless", name="cv2"
        ) from error
