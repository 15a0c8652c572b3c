"""ViViT with a factorised encoder: a spatial model for each moment, a temporal one over them.

Arnab et al. 2021, "ViViT: A Video Vision Transformer", model 2. The mathematics is that of
TAdaConv's `FactorizedTransformer`, whose weights the paper uses: pre-norm blocks with biased q, k,
v, layer-norm eps 1e-6, learned positions that cover the class token too, and no norm in front.
"""

from eventful.models.vivit.model import ViViT, vivit_b_epic, vivit_b_kinetics
from eventful.models.vivit.spatial import (
    SpatialModel,
    TubeletEmbedding,
    spatial_tokens,
    tubelets,
)
from eventful.models.vivit.temporal import TemporalModel

__all__ = [
    "SpatialModel",
    "TemporalModel",
    "TubeletEmbedding",
    "ViViT",
    "spatial_tokens",
    "tubelets",
    "vivit_b_epic",
    "vivit_b_kinetics",
]
