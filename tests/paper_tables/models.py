"""Small models of the shape of the paper's, in float64, with weights that make mistakes show."""

import copy
from dataclasses import dataclass

import torch

import eventful
from eventful.models.vitdet import ViTDetBackbone
from eventful.models.vivit import SpatialModel
from eventful.ops import Index
from eventful.policies import Policy

PATCH, DIM, HEADS, DEPTH, WINDOW = 4, 24, 3, 3, 2


def vitdet(grid, trained=None, seed=0):
    """A windowed, a global and a windowed block on a token grid."""
    size = tuple(PATCH * side for side in grid) if trained is None else trained
    model = ViTDetBackbone(
        size,
        patch_size=PATCH,
        embed_dim=DIM,
        depth=DEPTH,
        num_heads=HEADS,
        window_size=WINDOW,
        global_blocks=(1,),
        position_grid=3,
    )
    return weighted(model, seed)


def spatial(grid, seed=0):
    """ViViT's model of a clip: global blocks with a class token."""
    return weighted(SpatialModel(grid, DIM, HEADS, depth=2, patch=PATCH), seed)


def weighted(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                weight.normal_(std=0.6)
            elif weight.ndim > 1:
                weight.normal_(std=1.3 / weight[0].numel() ** 0.5)
            else:
                weight.add_(0.3 * torch.randn_like(weight))
    return model.eval().double()


def frames_of(grid, count, batch=1, channels=3):
    """Noise of which a part is new on every frame."""
    generator = torch.Generator().manual_seed(1)
    sides = [PATCH * side for side in grid]
    first, *others = torch.randn(count, batch, channels, *sides, generator=generator).double()
    return [first] + [first + 0.3 * other for other in others]


def stream_on(model, policy, **options):
    """On a copy of the model."""
    converted = eventful.convert(copy.deepcopy(model), policy, **options)
    return eventful.Stream(converted, scene_cuts=None)


@dataclass(frozen=True, eq=False)
class Fixed(Policy):
    """Lets the same tokens (batch, tokens) through, whatever their errors."""

    mask: torch.Tensor

    def select(self, error):
        return Index.from_mask(self.mask)
