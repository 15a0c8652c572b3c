"""A light detector of one kind of object on the patch tokens of a frozen ViT-S/14."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from eventful.models.vitdet.detections import Detections
from eventful.models.vitdet.pyramid import SimplePyramid

try:
    from torchvision.models.detection.fcos import FCOS, FCOSHead
except ModuleNotFoundError as error:
    if error.name is None or error.name.split(".")[0] != "torchvision":
        raise
    raise ModuleNotFoundError(
        "detection needs torchvision; it comes with: pip install 'eventful-transformers[eval]'",
        name="torchvision",
    ) from error

_FIRST_DISTANCE = 2.0  # cells


@final
class PatchDetector(nn.Module):
    """ViTDet's simple feature pyramid and torchvision's FCOS head, for one class.

    Maps of several scales, by default at twice the grid of patches and at the grid itself. Every
    cell says how likely it belongs to an object, how central it lies in it, and how far away its
    four sides are (Tian et al., *FCOS: Fully Convolutional One-Stage Object Detection*, 2019).
    Large objects belong to the cells of coarse maps.

    Args:
        dim: Channels of the tokens.
        channels: Channels of the maps, a multiple of 32.
        convs: Convolutions before each of the outputs.
        patch_size: Side of a patch in pixels, even.
        scales: Size of each map relative to the grid of patches: any of 4, 2, 1 and 0.5, falling.

    Example:
        >>> detector = PatchDetector(dim=12, channels=32, convs=1).eval()
        >>> with torch.inference_mode():
        ...     found = detector(torch.randn(2, 3 * 5, 12), grid=(3, 5))
        >>> [one.boxes.shape[1] for one in found]
        [4, 4]
    """

    def __init__(
        self,
        dim: int = 384,
        channels: int = 64,
        convs: int = 2,
        patch_size: int = 14,
        scales: Sequence[float] = (2, 1),
    ) -> None:
        super().__init__()
        self.sides = [int(patch_size / scale) for scale in scales]  # of a cell, in pixels
        self.patch_size = patch_size
        head = FCOSHead(channels, num_anchors=1, num_classes=1, num_convs=convs)
        # Distances go through a ReLU: from 0, one side of all boxes may stay without a gradient.
        distances = head.regression_head.bbox_reg.bias
        assert distances is not None
        nn.init.constant_(distances, _FIRST_DISTANCE)
        self.fcos = FCOS(
            _Maps(dim, channels, scales),
            num_classes=1,
            head=head,
            score_thresh=0.05,
            nms_thresh=0.5,
        )

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> list[Detections]:
        """Detect objects.

        Args:
            tokens: final-normed patch tokens, (batch, h * w, dim), row by row, no class token.
            grid: number of patches (h, w).

        Returns:
            For each image what was found, boxes in pixels of the backbone's input.

        Raises:
            ValueError: The tokens do not fill the grid.
        """
        outputs, cells = self._predict(tokens, grid)
        lengths = [len(level) for level in cells]
        levels = {name: list(x.split(lengths, dim=1)) for name, x in outputs.items()}
        size = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        batch = len(tokens)
        found = self.fcos.postprocess_detections(levels, [cells] * batch, [size] * batch)
        return [Detections(one["boxes"], one["scores"], one["labels"]) for one in found]

    def loss(self, tokens: Tensor, grid: tuple[int, int], boxes: Sequence[Tensor]) -> Tensor:
        """The loss to train with: focal, generalised overlap and centre-ness, summed.

        Args:
            tokens: As for `forward`.
            grid: As for `forward`.
            boxes: The objects of each image, (n, 4) in pixels of the backbone's input.

        Raises:
            ValueError: The tokens do not fill the grid.

        Example:
            >>> detector = PatchDetector(dim=12, channels=32, convs=1)
            >>> boxes = [torch.tensor([[10.0, 10.0, 40.0, 30.0]])]
            >>> detector.loss(torch.randn(1, 3 * 5, 12), (3, 5), boxes).isfinite().item()
            True
        """
        outputs, cells = self._predict(tokens, grid)
        targets = [{"boxes": one, "labels": one.new_zeros(len(one)).long()} for one in boxes]
        lengths = [len(level) for level in cells]
        losses = self.fcos.compute_loss(targets, outputs, [torch.cat(cells)] * len(boxes), lengths)
        return torch.stack(list(losses.values())).sum()

    def _predict(
        self, tokens: Tensor, grid: tuple[int, int]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The head's outputs (batch, cells, ...), and the cells of each map as boxes (n, 4)."""
        height, width = grid
        if tokens.shape[1] != height * width:
            raise ValueError(
                f"expected {height} x {width} = {height * width} patch tokens, got "
                f"{tokens.shape[1]}; leave the class token out: tokens[:, 1:]"
            )
        maps = self.fcos.backbone(tokens.unflatten(1, grid))
        cells = [_cells(x, side) for x, side in zip(maps, self.sides, strict=True)]
        return self.fcos.head(maps), cells


class _Maps(nn.Module):
    """The maps of the pyramid that are used, in FCOS's terms of a backbone."""

    def __init__(self, dim: int, channels: int, scales: Sequence[float]) -> None:
        super().__init__()
        self.out_channels = channels
        self.scales = len(scales)
        self.pyramid = SimplePyramid(dim, channels, scales)

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.pyramid(x).values())[: self.scales]


def _cells(x: Tensor, side: int) -> Tensor:
    """The cells of a map (batch, channels, height, width) as boxes in pixels, row by row."""
    top, left = (torch.arange(length, device=x.device) * side for length in x.shape[2:])
    y, x0 = torch.meshgrid(top, left, indexing="ij")
    corner = torch.stack([x0, y], dim=-1).flatten(0, 1)
    return torch.cat([corner, corner + side], dim=1).to(x.dtype)
