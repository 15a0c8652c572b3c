"""Names of ViViT with a factorised encoder: TAdaConv's, and those of the paper's own code.

The weights that the paper starts from are TAdaConv's; those whose temporal model it has fine-tuned
are saved by its own code, under names of its own.
"""

from __future__ import annotations

from torch import Tensor

from eventful.models.weights.renaming import Drop, Rename


def frames_in_channels(kernel: Tensor) -> Tensor:
    """Make the tubelet convolution one over images whose channels are those of all its frames.

    Args:
        kernel: (dim, channels, frames, height, width), of a `Conv3d`.

    Returns:
        (dim, frames * channels, height, width): all channels of the first frame come first.

    Raises:
        ValueError: It has another number of axes.

    Example:
        >>> import torch
        >>> kernel = torch.arange(6.0).view(1, 3, 2, 1, 1)  # red is 0 and 1, green 2 and 3
        >>> frames_in_channels(kernel).flatten().tolist()
        [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]
    """
    if kernel.ndim != 5:
        raise ValueError(
            f"expected (dim, channels, frames, height, width), came {tuple(kernel.shape)}"
        )
    return kernel.transpose(1, 2).flatten(1, 2)


# ours, TAdaConv's, and those of the paper's code
_PARTS = [
    ("spatial.patch_embed.proj.bias", "backbone.stem.conv1.bias", "embedding.conv.bias"),
    ("spatial.cls_token", "backbone.cls_token", "spatial_model.class_token"),
    (
        "spatial.pos_embed",
        "backbone.pos_embd",
        "spatial_model.backbone.position_encoding.encoding",
    ),
    ("spatial.norm.{p}", "backbone.norm.{p}", "spatial_model.layer_norm.{p}"),
    ("temporal.cls_token", "backbone.cls_token_out", "temporal_model.class_token"),
    (
        "temporal.pos_embed",
        "backbone.temp_embd",
        "temporal_model.backbone.position_encoding.encoding",
    ),
    ("temporal.norm.{p}", "backbone.norm_out.{p}", "temporal_model.layer_norm.{p}"),
]
_BLOCKS = [
    ("spatial.blocks", "backbone.layers", "spatial_model.backbone.blocks"),
    ("temporal.blocks", "backbone.layers_temporal", "temporal_model.backbone.blocks"),
]
_IN_BLOCKS = [
    ("norm1", "norm", "input_layer_norm"),
    ("attn.qkv", "attn.to_qkv", "qkv"),
    ("attn.proj", "attn.proj", "projection"),
    ("norm2", "norm_ffn", "mlp_layer_norm"),
    ("mlp.fc1", "ffn.net.0", "mlp_1"),
    ("mlp.fc2", "ffn.net.3", "mlp_2"),
]


def _encoder(column: int, kernel: str) -> list[Rename]:
    """Rules for both models under the names in one column, with the name of the tubelet kernel."""
    return [
        Rename("spatial.patch_embed.proj.weight", kernel, frames_in_channels),
        *(Rename(row[0], row[column]) for row in _PARTS),
        *(
            Rename(
                f"{blocks[0]}.{{i}}.{row[0]}.{{p}}", f"{blocks[column]}.{{i}}.{row[column]}.{{p}}"
            )
            for blocks in _BLOCKS
            for row in _IN_BLOCKS
        ),
    ]


_TADACONV = _encoder(1, "backbone.stem.conv1.weight")
KINETICS = [*_TADACONV, Rename("head.{p}", "head.linear.{p}")]
EPIC = [*_TADACONV, Rename("head.{p}", "head.linear1.{p}")]
EPIC_DROPS = [Drop("head.linear2.{p}", "classifies nouns; the paper counts verbs")]
TUNED = [*_encoder(2, "embedding.conv.weight"), Rename("head.{p}", "classifier.{p}")]
