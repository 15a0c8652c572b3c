"""Small models in float64, dense, and the same models with the reference for blocks."""

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from eventful.models.vitdet.backbone import ViTDetBackbone
from eventful.models.vivit import SpatialModel
from tests.paper.reference import Block, Choice, Variant

DIM, HEADS, PATCH, DEPTH = 24, 3, 4, 3
Policy = Callable[[str, int], Choice]  # a gate's name and the batch row to its choice


def plain(grid: tuple[int, int], **options) -> nn.Module:
    """A plain ViT with a class token."""
    size = [PATCH * length for length in grid]
    return weighted(VisionTransformer(size, PATCH, **common(), **options))


def windowed(grid: tuple[int, int], window: int = 2, **options) -> nn.Module:
    """Windows, a global block between them, and relative positions in all three."""
    size = [PATCH * length for length in grid]
    options = {"use_rel_pos": True, "global_attn_indexes": (1,), "neck_chans": 0} | options
    return weighted(VisionTransformerSAM(size, PATCH, window_size=window, **common(), **options))


def vitdet(grid: tuple[int, int], window: int = 2, rel_positions: str = "linear") -> nn.Module:
    """ViTDet's backbone with a global block between two with windows."""
    size = tuple(PATCH * length for length in grid)
    sizes = {"embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS, "window_size": window}
    options = {"global_blocks": (1,), "position_grid": 3, "rel_positions": rel_positions}
    return weighted(ViTDetBackbone(size, PATCH, **sizes, **options))


def vivit(grid: tuple[int, int]) -> nn.Module:
    """ViViT's spatial model, on tubelets of six channels."""
    return weighted(SpatialModel(grid, DIM, HEADS, DEPTH, PATCH))


def common() -> dict[str, int]:
    return {"embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS, "num_classes": 7}


def weighted(model: nn.Module, seed: int = 0) -> nn.Module:
    """Peaked attention, positions that matter, no weight at its default."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "rel_pos" in name or "pos_embed" in name or "cls_token" in name:
                weight.copy_(0.6 * noise)
            elif weight.ndim > 1:
                weight.copy_(noise * (2.6 if "qkv" in name else 1.3) / weight.shape[-1] ** 0.5)
            elif "bias" in name:
                weight.copy_(0.3 * noise)
            else:
                weight.add_(0.3 * noise)
    return model.eval().double()


def clip(grid: tuple[int, int], batch: int = 1, frames: int = 6, channels: int = 3) -> Tensor:
    """A bright square over noise that drifts: (frames, batch, channels, height, width)."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, channels, *(PATCH * length for length in grid))
    background, drift = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    video = torch.stack([background + 0.05 * t * drift for t in range(frames)])
    for t in range(frames):
        for row in range(batch):
            y, x = 3 * (t + row) % (shape[2] - 4), 5 * t % (shape[3] - 4)
            video[t, row, :, y : y + 5, x : x + 5] = 2.0
    return video


class ReferenceBlocks(nn.Module):
    """All blocks of a model as one module; every batch row is a video of its own."""

    def __init__(self, blocks: nn.Sequential, policy: Policy, variant: Variant) -> None:
        super().__init__()
        self.dense, self.policy, self.variant = blocks, policy, variant
        self.rows: list[list[Block]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Process tokens (batch, N, D), or (batch, height, width, D)."""
        while len(self.rows) < len(x):
            self.rows.append([self.block(i, len(self.rows)) for i in range(len(self.dense))])
        grid = tuple(x.shape[1:3]) if x.ndim == 4 else None
        rows = []
        for blocks, row in zip(self.rows, x.numpy(), strict=True):
            tokens = row.reshape(-1, row.shape[-1])
            for block in blocks:
                tokens = block(tokens, grid)
            rows.append(tokens.reshape(row.shape) if grid else tokens)
        return torch.from_numpy(np.stack(rows))

    def block(self, i: int, row: int) -> Block:
        dense = self.dense[i]
        weights = {name: weight.numpy() for name, weight in dense.state_dict().items()}
        choose = {gate: self.policy(f"blocks.{i}.{gate}", row) for gate in ("qkv", "proj", "mlp")}
        return Block(
            weights,
            dense.attn.num_heads,
            getattr(dense, "window_size", 0),
            choose,
            self.variant,
            self.variant.sampling.get(i, 0),
            dense.norm1.eps,
        )

    def updated(self) -> Mapping[str, list[list[int]]]:
        """For each gate, the tokens that passed on the last frame, row by row."""
        return {
            f"blocks.{i}.{name}": [row[i].gates[name].index.tolist() for row in self.rows]
            for i in range(len(self.dense))
            for name in ("qkv", "proj", "mlp")
        }


def with_reference(model: nn.Module, policy: Policy, variant: Variant) -> nn.Module:
    """A model with the same weights whose blocks are the reference's."""
    blocks, model = model.blocks, copy.copy(model)
    model._modules = model._modules | {
        "blocks": nn.Sequential(ReferenceBlocks(blocks, policy, variant))
    }
    return model


def error(found: Tensor, expected: Tensor) -> float:
    """Largest deviation over the largest expected value; infinite if anything is NaN."""
    assert found.shape == expected.shape
    worst = (found - expected).abs().max() / expected.abs().max()
    return float("inf") if worst.isnan() else worst.item()
