"""Motion between frames on the grid of tokens, and outputs carried along it."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_LEAST = 48  # pixels of the short side that the flow needs to find anything


class Motion:
    """Dense optical flow between frames (DIS; Kroeger et al., ECCV 2016), averaged over tokens.

    Args:
        grid: Height and width of the token grid.
        scale: Of the images that flow is computed on, relative to the frames.

    Raises:
        ModuleNotFoundError: OpenCV is not installed.

    Example:
        >>> frame = torch.rand(1, 3, 56, 70)
        >>> Motion((4, 5))(frame, frame).shape
        torch.Size([1, 4, 5, 2])
    """

    def __init__(self, grid: tuple[int, int], scale: float = 0.5) -> None:
        cv2 = _opencv()
        self.grid = grid
        self.scale = scale
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, before: Tensor, now: Tensor) -> Tensor:
        """Find where each token of a frame was on an earlier one.

        Args:
            before: The earlier frame, (batch, 3, height, width) in [0, 1].
            now: The frame.

        Returns:
            (batch, grid height, grid width, 2): how far to go from a token, down and to the right
            in tokens, to find what it shows on the earlier frame.
        """
        return self.on_grid(self.flow(before, now))

    def flow(self, before: Tensor, now: Tensor) -> Tensor:
        """The same for each pixel of the images that flow is computed on: (batch, h, w, 2)."""
        pairs = zip(self._grey(before), self._grey(now), strict=True)
        flows = [torch.from_numpy(self._flow.calc(b, a, None)) for a, b in pairs]
        return torch.stack(flows).flip(-1).to(now.device)  # the columns came first

    def on_grid(self, flow: Tensor) -> Tensor:
        """Average a flow over each token, in tokens."""
        unit = flow.new_tensor(self.grid) / flow.new_tensor(flow.shape[1:3])
        cells = F.interpolate(flow.permute(0, 3, 1, 2), self.grid, mode="area")
        return cells.permute(0, 2, 3, 1) * unit

    def smaller(self, frames: Tensor) -> Tensor:
        """Frames (batch, channels, height, width) at the size that flow is computed on."""
        height, width = frames.shape[2:]
        scale = min(1.0, max(self.scale, _LEAST / min(height, width)))
        return F.interpolate(frames, (round(height * scale), round(width * scale)), mode="area")

    def _grey(self, frames: Tensor) -> np.ndarray:
        weights = frames.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
        grey = self.smaller((frames * weights).sum(dim=1, keepdim=True))
        return (grey[:, 0].clamp(0, 1) * 255).byte().cpu().numpy()


def _opencv() -> ModuleType:
    try:
        return importlib.import_module("cv2")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "motion needs OpenCV; pip install 'eventful-transformers[motion]'", name="cv2"
        ) from error
