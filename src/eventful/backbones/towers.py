"""Which blocks of a model look at pictures; others of the same class are left as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

_PICTURES = ("image_size", "patch_size", "num_channels", "crop_size")  # of a vision config
_AFTERWARDS = ("decoder", "predictor")  # work on what the encoder gave


def ancestors(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """The modules that hold a block, the closest first."""
    parts = name.split(".")
    for end in range(len(parts) - 1, -1, -1):
        yield model.get_submodule(".".join(parts[:end]))


def closest(model: nn.Module, name: str, attribute: str) -> Any:
    """What the closest module that has an attribute says; None if none has it."""
    found = (getattr(module, attribute, None) for module in ancestors(model, name))
    return next((value for value in found if value is not None), None)


def left_alone(model: nn.Module, name: str, late: str | None = None) -> str | None:
    """Say why a block of a known class is not converted.

    Args:
        model: The model.
        name: The block's path.
        late: Field of the configuration that counts last blocks which further tokens join.

    Returns:
        The reason; None if the block is to be converted.
    """
    for part in name.split("."):
        if part.startswith(_AFTERWARDS):
            return f"part of a {part.partition('_')[0]}, not of a vision tower"
    config = closest(model, name, "config")
    if not _sees(model, name, config):
        return "part of no vision tower"
    count = int(getattr(config, late, 0)) if late else 0
    blocks, _, number = name.rpartition(".")
    if count and number.isdigit() and int(number) >= len(model.get_submodule(blocks)) - count:  # type: ignore[arg-type]
        return "further tokens join in this block"
    return None


def _sees(model: nn.Module, name: str, config: Any) -> bool:
    """Whether the closest module that tells is made for pictures; what tells nothing is."""
    if config is not None:
        return any(hasattr(config, field) for field in _PICTURES)
    for module in ancestors(model, name):
        if type(module).__module__.startswith("open_clip."):
            if type(module).__name__ == "VisionTransformer":
                return True
            if hasattr(module, "token_embedding") or hasattr(module, "cross_attn"):
                return False
    return True
