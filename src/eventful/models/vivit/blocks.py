"""What the spatial and the temporal model are built of."""

from __future__ import annotations

from functools import partial
from importlib import import_module

from torch import nn

EPS = 1e-6
MEAN, STD = 0.45, 0.225
PATCH, FRAMES = 16, 2  # a tubelet is 2 frames of 16 x 16 pixels


def transformer_blocks(depth: int, dim: int, heads: int) -> nn.Sequential:
    """Blocks as TAdaConv's `BaseTransformerLayer`, of timm's type."""
    try:
        block = import_module("timm.models.vision_transformer").Block
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "ViViT needs timm; pip install 'eventful-transformers[timm]'", name="timm"
        ) from error
    norm = partial(nn.LayerNorm, eps=EPS)
    return nn.Sequential(*(block(dim, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)))


def initialize_(module: nn.Module) -> None:
    """Draw weights, class token and positions from a normal distribution, truncated, of 0.02."""
    for name, weight in module.named_parameters():
        if weight.ndim > 1:
            nn.init.trunc_normal_(weight, std=0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)
