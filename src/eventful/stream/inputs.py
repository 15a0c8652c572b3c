"""Frames as a stream takes them: checked, on the model's device, normalised if asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

Pixels = Callable[[Tensor], Tensor]
Normalize = bool | tuple[Sequence[float], Sequence[float]] | Any


class Inputs:
    """Checks frames and brings them to what the model takes.

    Args:
        model: The model; its own patch embedding explains why it fails on a frame, where it does.
        normalize: True for the model's own mean and standard deviation (its `pretrained_cfg`), a
            pair of them, or an image processor that has `image_mean` and `image_std`. Frames are in
            [0, 1] then. False if frames are what the model takes.
        pixels: Turns a frame as it is handed in into a picture in [0, 1], where that cannot be told
            otherwise.

    Raises:
        ValueError: The mean and standard deviation are not to be had, or are of another number of
            channels than the model takes.
    """

    def __init__(
        self, model: nn.Module, normalize: Normalize, pixels: Pixels | None = None
    ) -> None:
        self._model, self._pixels = model, pixels
        self._normalization = None if normalize is False else normalization(model, normalize)
        taken = taken_channels(model)
        if self._normalization is not None and taken is not None:
            self._check_channels(taken, f"this {type(model).__name__} takes")

    def prepare(self, frame: Tensor, weight: Tensor, number: int) -> Tensor:
        """Check a frame and bring it to the device and dtype of a weight of the model.

        Args:
            frame: (batch, channels, height, width), floating point.
            weight: Any weight.
            number: The frame's, for messages.

        Raises:
            TypeError: It is not a floating-point tensor.
            ValueError: It has no row, or other channels than it is normalised by.
            RuntimeError: It asks for gradients.
        """
        _check(frame)
        if len(frame) == 0:
            refuse(number, "no row")
        if self._normalization is None:
            return frame.to(weight.device, weight.dtype)
        if frame.ndim != 4:
            raise ValueError(self.mismatch(frame) or _SHAPE.format(tuple(frame.shape)))
        self._check_channels(frame.shape[1], "the frame has")
        wide = torch.promote_types(weight.dtype, torch.float32)  # rounded once, at the end
        x = frame.to(weight.device, wide)
        mean, std = (values.to(x) for values in self._normalization)
        return ((x - mean) / std).to(weight.dtype)

    def picture(self, frame: Tensor) -> Tensor:
        """A frame, as it was handed in, as a picture in [0, 1]: float32, on the frame's device.

        Raises:
            ValueError: It is none, or its scale cannot be told.
        """
        if self._pixels is not None:
            made = self._pixels(frame)
            if not isinstance(made, Tensor) or made.ndim != 4 or len(made) != len(frame):
                got = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
                raise ValueError(
                    f"pixels=... must give pictures (batch, channels, height, width) of the "
                    f"{len(frame)} rows of a frame, got {got}"
                )
            return made.detach().float()
        if frame.ndim != 4:
            raise ValueError(
                f"this policy follows motion, which needs pictures (batch, channels, height, "
                f"width); got {tuple(frame.shape)}; pass pixels=..., or use Skip(k), or a token "
                f"policy such as TopR(r)"
            )
        picture = frame.float()
        if self._normalization is None:
            known = known_normalization(self._model)
            if known is not None and picture.shape[1] == known[0].shape[1]:
                picture = picture * known[1].to(picture) + known[0].to(picture)
        low, high = picture.aminmax()
        if low < -0.1 or high > 1.1:
            if self._normalization is not None:
                raise ValueError(
                    f"with normalize=... frames are in [0, 1]; this one has values from "
                    f"{low.item():.3g} to {high.item():.3g}; for 8-bit images use "
                    f"frame.float() / 255, and leave normalize out if frames are normalised already"
                )
            raise ValueError(
                f"this policy follows motion, which needs to know what black and white are; the "
                f"frame has values from {low.item():.3g} to {high.item():.3g}; say how it was "
                f"normalised (normalize=(mean, std) with frames in [0, 1]), or pass pixels=..., "
                f"which turns a frame into a picture in [0, 1]"
            )
        return picture

    def mismatch(self, frame: Tensor) -> str | None:
        """Say what the model's patch embedding expects, if the frame is something else.

        That is no error by itself: a model may crop or resize its frames first.
        """
        channels, size = taken_channels(self._model), taken_size(self._model)
        got = tuple(frame.shape)
        if channels and (frame.ndim != 4 or frame.shape[1] != channels):
            return f"expected a frame (batch, {channels}, height, width), got {got}"
        if size and got[2:] != size:
            return (
                f"expected frames of {size[0]} x {size[1]} pixels, got {got}; resize them, or "
                f"build the model with dynamic_img_size=True"
            )
        return None

    def _check_channels(self, channels: int, whose: str) -> None:
        """Refuse to normalise other channels than there are numbers for."""
        assert self._normalization is not None
        count = self._normalization[0].shape[1]
        if count not in (1, channels):
            raise ValueError(
                f"normalize has a mean and a standard deviation for each of {count} channels, and "
                f"{whose} {channels}; pass normalize=(mean, std) with {channels} numbers each"
            )


_SHAPE = "expected a frame (batch, channels, height, width), got {}"


def _check(frame: Tensor) -> None:
    if not isinstance(frame, Tensor) or not frame.is_floating_point():
        kind = frame.dtype if isinstance(frame, Tensor) else type(frame).__name__
        raise TypeError(
            f"expected a floating-point tensor (batch, channels, height, width), got {kind}; for "
            f"8-bit images use frame.float() / 255"
        )
    if frame.requires_grad:
        raise RuntimeError("streams compute no gradients; pass frame.detach()")


def check_state_dtype(dtype: torch.dtype | None) -> None:
    """Refuse a dtype that nothing can be kept in.

    Raises:
        TypeError: It is none of three.
    """
    if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise TypeError(
            f"state_dtype must be torch.float32, torch.bfloat16 or torch.float16, or None for "
            f"the model's own, got {dtype!r}"
        )


def check_finite(x: Tensor, number: int) -> None:
    """Refuse a frame with NaN or infinity, which waits for the device.

    Raises:
        ValueError: It holds one.
    """
    if not x.isfinite().all():
        refuse(number, "NaN or infinity")


def refuse(number: int, what: str) -> NoReturn:
    """Refuse a frame before it has changed anything.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        f"frame {number} holds {what}; the stream is as it was before, go on with the next frame"
    )


def taken_size(model: nn.Module) -> tuple[int, int] | None:
    """Height and width of the only frames that the model takes, if its patch embedding is first."""
    embed: Any = getattr(model, "patch_embed", None)
    if getattr(embed, "strict_img_size", False) and embed.img_size is not None:
        return tuple(embed.img_size)
    return None


def taken_channels(model: nn.Module) -> int | None:
    """The image channels that the model takes, where its patch embedding is first."""
    embed = getattr(model, "patch_embed", None)
    proj = getattr(embed, "proj", None)
    if isinstance(proj, nn.Conv2d) and not hasattr(embed, "backbone"):
        return proj.in_channels
    return None


def normalization(model: nn.Module, normalize: Normalize = True) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (1, channels, 1, 1) each.

    Args:
        model: Whose own are meant by True.
        normalize: True, a pair, or an image processor.

    Raises:
        ValueError: They are not to be had.
    """
    if normalize is True:
        known = known_normalization(model)
        if known is None:
            raise ValueError(
                "normalize=True needs a model with pretrained_cfg['mean'] and ['std'], as timm's "
                "have; pass normalize=(mean, std), an image processor, or frames as the model "
                "takes them"
            )
        return known
    pair: Any = normalize
    if hasattr(pair, "image_mean") and hasattr(pair, "image_std"):
        pair = pair.image_mean, pair.image_std
    try:
        mean, std = map(_constants, pair)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"normalize must be True, (mean, std) with a number a channel each, or an image "
            f"processor with image_mean and image_std; got {normalize!r}"
        ) from None
    if mean.shape != std.shape or not (std > 0).all():
        raise ValueError(f"normalize=(mean, std) needs as many positive std as mean, got {pair}")
    return mean, std


def known_normalization(model: nn.Module) -> tuple[Tensor, Tensor] | None:
    """A model's own mean and standard deviation (1, channels, 1, 1), if it has them."""
    for module in model.modules():
        config: Any = getattr(module, "pretrained_cfg", None) or {}
        if "mean" in config and "std" in config:
            return _constants(config["mean"]), _constants(config["std"])
    return None


def _constants(values: Any) -> Tensor:
    """Numbers, one a channel, as (1, channels, 1, 1); whatever the default device is."""
    return torch.tensor(values, dtype=torch.float32, device="cpu").view(1, -1, 1, 1)
