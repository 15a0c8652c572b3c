"""Frames as a stream takes them: checked, on the model's device, normalised if asked."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn


class Inputs:
    """Checks frames and brings them to what the model takes.

    Args:
        model: The model; its patch embedding says how many channels a frame has.
        normalize: Apply the model's own mean and standard deviation to frames in [0, 1].
    """

    def __init__(self, model: nn.Module, normalize: bool) -> None:
        self._channels, self._size = patch_channels(model), fixed_size(model)
        self._normalization = normalization(model) if normalize else None

    def prepare(self, frame: Tensor, weight: Tensor, number: int, look: bool = True) -> Tensor:
        """Check a frame and bring it to the device and dtype of a weight of the model.

        Args:
            frame: (batch, channels, height, width), floating point.
            weight: Any weight.
            number: The frame's, for messages.
            look: Look for NaN and infinity, which waits for the device.

        Raises:
            TypeError: It is not a floating-point tensor.
            ValueError: It has the wrong shape, no row, NaN or infinity.
            RuntimeError: It asks for gradients.
        """
        self._check(frame)
        x = frame.to(weight.device, weight.dtype)
        if len(x) == 0:
            refuse(number, "no row")
        if look and not x.isfinite().all():
            refuse(number, "NaN or infinity")
        if self._normalization is not None:
            mean, std = (values.to(x) for values in self._normalization)
            x = (x - mean) / std
        return x

    def _check(self, frame: Tensor) -> None:
        shape = f"(batch, {self._channels or 'channels'}, height, width)"
        if not isinstance(frame, Tensor) or not frame.is_floating_point():
            kind = frame.dtype if isinstance(frame, Tensor) else type(frame).__name__
            raise TypeError(
                f"expected a floating-point tensor {shape}, got {kind}; for 8-bit images use "
                f"frame.float() / 255"
            )
        if frame.requires_grad:
            raise RuntimeError("streams compute no gradients; pass frame.detach()")
        if self._channels and (frame.ndim != 4 or frame.shape[1] != self._channels):
            raise ValueError(f"expected a frame {shape}, got {tuple(frame.shape)}")
        if self._size and tuple(frame.shape[2:]) != self._size:
            raise ValueError(
                f"expected frames of {self._size[0]} x {self._size[1]} pixels, got "
                f"{tuple(frame.shape)}; resize them, or build the model with dynamic_img_size=True"
            )


def refuse(number: int, what: str) -> NoReturn:
    """Refuse a frame before it has changed anything.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        f"frame {number} holds {what}; the stream is as it was before, go on with the next frame"
    )


def fixed_size(model: nn.Module) -> tuple[int, int] | None:
    """Height and width of the only frames that the model's patch embedding takes, if so."""
    for module in model.modules():
        embed: Any = getattr(module, "patch_embed", None)
        if getattr(embed, "strict_img_size", False) and embed.img_size is not None:
            return tuple(embed.img_size)
    return None


def patch_channels(model: nn.Module) -> int | None:
    """The image channels that the model's patch embedding takes, where it has one."""
    for module in model.modules():
        proj = getattr(getattr(module, "patch_embed", None), "proj", None)
        if isinstance(proj, nn.Conv2d):
            return proj.in_channels
    return None


def normalization(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (1, channels, 1, 1) each, that the model was trained with."""
    for module in model.modules():
        config: Any = getattr(module, "pretrained_cfg", None) or {}
        if "mean" in config and "std" in config:
            mean, std = (torch.tensor(config[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
            return mean, std
    raise ValueError(
        "normalize=True needs a model with pretrained_cfg['mean'] and ['std'], as timm's have; "
        "normalise the frames yourself and leave it out"
    )
