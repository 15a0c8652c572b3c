"""Checkpoints with the names and shapes of the original projects, at small sizes.

What the arrays mean is computed by `plain_vitdet.py` and `plain_vivit.py`.
"""

import numpy as np

from eventful.models.vitdet.backbone import ViTDetBackbone
from eventful.models.vitdet.box_heads import BoxHead, BoxHeads
from eventful.models.vitdet.detector import ViTDet
from eventful.models.vitdet.mask_head import MaskHead
from eventful.models.vitdet.pyramid import SimplePyramid
from eventful.models.vitdet.rpn import RPN
from eventful.models.vivit import ViViT

LINES, COLUMNS = 3, 5  # the token grid of the small models
DIM, HEADS, CHANNELS, HIDDEN, CLASSES = 12, 3, 8, 11, 7
WINDOW, POSITIONS = 2, 4  # side of the windows; side of the grid of absolute positions
FRAMES, CLIPS = 6, 3


def small_vitdet(cascade=False):
    """The model that the small Detectron2 checkpoints are for: a windowed and a global block."""
    backbone = ViTDetBackbone(
        (16 * LINES, 16 * COLUMNS),
        embed_dim=DIM,
        depth=2,
        num_heads=HEADS,
        window_size=WINDOW,
        global_blocks=(1,),
        position_grid=POSITIONS,
    )
    stages = [
        BoxHead(CLASSES, agnostic=cascade, channels=CHANNELS, hidden=HIDDEN)
        for _ in range(3 if cascade else 1)
    ]
    masks = MaskHead(CLASSES, CHANNELS) if cascade else None
    parts = SimplePyramid(DIM, CHANNELS), RPN(CHANNELS), BoxHeads(stages), masks
    return ViTDet(backbone, *parts).eval()


def small_vivit():
    """The model that the small TAdaConv checkpoints are for."""
    size = (16 * LINES, 16 * COLUMNS)
    model = ViViT(CLASSES, size, FRAMES, dim=DIM, heads=HEADS, depth=2, temporal_depth=1)
    return model.eval()


def filled(shapes, seed=0):
    """Random arrays that make mistakes show: no weight at its default, none negligible."""
    draw = np.random.default_rng(seed)
    return {key: _filled(draw, key, shape) for key, shape in shapes.items()}


def _filled(draw, key, shape):
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
    array = draw.normal(size=shape) * (1.5 / fan_in**0.5 if "weight" in key else 0.7)
    return (array + ("norm" in key and key.endswith("weight"))).astype(np.float32)


def detectron2_backbone(depth, dim, heads, global_blocks, grid, window, positions):
    """Names and shapes of `SimpleFeaturePyramid(net=ViT(...))` without the pyramid."""
    shapes = {
        "backbone.net.pos_embed": (1, 1 + positions**2, dim),
        "backbone.net.patch_embed.proj.weight": (dim, 3, 16, 16),
        "backbone.net.patch_embed.proj.bias": (dim,),
    }
    for i in range(depth):
        lines, columns = grid if i in global_blocks else (window, window)
        block = f"backbone.net.blocks.{i}"
        shapes |= _affine(f"{block}.norm1", dim) | _affine(f"{block}.norm2", dim)
        shapes |= _affine(f"{block}.attn.qkv", 3 * dim, dim)
        shapes |= _affine(f"{block}.attn.proj", dim, dim)
        shapes[f"{block}.attn.rel_pos_h"] = (2 * lines - 1, dim // heads)
        shapes[f"{block}.attn.rel_pos_w"] = (2 * columns - 1, dim // heads)
        shapes |= _affine(f"{block}.mlp.fc1", 4 * dim, dim)
        shapes |= _affine(f"{block}.mlp.fc2", dim, 4 * dim)
    return shapes


def detectron2_pyramid(dim, channels):
    """Names and shapes of the rest of `SimpleFeaturePyramid`."""
    return {
        "backbone.simfp_2.0.weight": (dim, dim // 2, 2, 2),
        "backbone.simfp_2.0.bias": (dim // 2,),
        **_affine("backbone.simfp_2.1", dim // 2),
        "backbone.simfp_2.3.weight": (dim // 2, dim // 4, 2, 2),
        "backbone.simfp_2.3.bias": (dim // 4,),
        **_normed("backbone.simfp_2.4", channels, dim // 4, 1),
        **_normed("backbone.simfp_2.5", channels, channels, 3),
        "backbone.simfp_3.0.weight": (dim, dim // 2, 2, 2),
        "backbone.simfp_3.0.bias": (dim // 2,),
        **_normed("backbone.simfp_3.1", channels, dim // 2, 1),
        **_normed("backbone.simfp_3.2", channels, channels, 3),
        **_normed("backbone.simfp_4.0", channels, dim, 1),
        **_normed("backbone.simfp_4.1", channels, channels, 3),
        **_normed("backbone.simfp_5.1", channels, dim, 1),
        **_normed("backbone.simfp_5.2", channels, channels, 3),
    }


def detectron2_heads(channels, hidden, classes, cascade):
    """Names and shapes of the RPN and the heads."""
    head = "proposal_generator.rpn_head"
    shapes = {
        **_affine(f"{head}.conv.conv0", channels, channels, 3, 3),
        **_affine(f"{head}.conv.conv1", channels, channels, 3, 3),
        **_affine(f"{head}.objectness_logits", 3, channels, 1, 1),
        **_affine(f"{head}.anchor_deltas", 12, channels, 1, 1),
    }
    for stage in (".0", ".1", ".2") if cascade else ("",):
        for k in (1, 2, 3, 4):
            shapes |= _normed(f"roi_heads.box_head{stage}.conv{k}", channels, channels, 3)
        shapes |= _affine(f"roi_heads.box_head{stage}.fc1", hidden, 49 * channels)
        shapes |= _affine(f"roi_heads.box_predictor{stage}.cls_score", classes + 1, hidden)
        boxes = 4 if cascade else 4 * classes
        shapes |= _affine(f"roi_heads.box_predictor{stage}.bbox_pred", boxes, hidden)
    if cascade:
        for k in (1, 2, 3, 4):
            shapes |= _normed(f"roi_heads.mask_head.mask_fcn{k}", channels, channels, 3)
        shapes["roi_heads.mask_head.deconv.weight"] = (channels, channels, 2, 2)
        shapes["roi_heads.mask_head.deconv.bias"] = (channels,)
        shapes |= _affine("roi_heads.mask_head.predictor", classes, channels, 1, 1)
    return shapes


def detectron2(cascade=False):
    """The small checkpoint's arrays."""
    grid = (LINES, COLUMNS)
    return filled(
        detectron2_backbone(2, DIM, HEADS, (1,), grid, WINDOW, POSITIONS)
        | detectron2_pyramid(DIM, CHANNELS)
        | detectron2_heads(CHANNELS, HIDDEN, CLASSES, cascade)
    )


def tadaconv_shapes(dim, depth, depth_temporal, tokens, clips, heads):
    """Names and shapes of `FactorizedTransformer`; `heads` maps a classifier to its classes."""
    shapes = {
        "backbone.pos_embd": (1, 1 + tokens, dim),
        "backbone.temp_embd": (1, 1 + clips, dim),
        "backbone.cls_token": (1, 1, dim),
        "backbone.cls_token_out": (1, 1, dim),
        **_affine("backbone.stem.conv1", dim, 3, 2, 16, 16),
    }
    for layers, count in (("layers", depth), ("layers_temporal", depth_temporal)):
        for i in range(count):
            layer = f"backbone.{layers}.{i}"
            shapes |= _affine(f"{layer}.norm", dim) | _affine(f"{layer}.norm_ffn", dim)
            shapes |= _affine(f"{layer}.attn.to_qkv", 3 * dim, dim)
            shapes |= _affine(f"{layer}.attn.proj", dim, dim)
            shapes |= _affine(f"{layer}.ffn.net.0", 4 * dim, dim)
            shapes |= _affine(f"{layer}.ffn.net.3", dim, 4 * dim)
    shapes |= _affine("backbone.norm", dim) | _affine("backbone.norm_out", dim)
    for name, classes in heads.items():
        shapes |= _affine(f"head.{name}", classes, dim)
    return shapes


def tadaconv(epic=False):
    """The small checkpoint's arrays."""
    heads = {"linear1": CLASSES, "linear2": 13} if epic else {"linear": CLASSES}
    return filled(tadaconv_shapes(DIM, 2, 1, LINES * COLUMNS, CLIPS, heads))


def as_the_paper_names(arrays):
    """A small TAdaConv checkpoint of Kinetics, as the paper's code saves the model."""
    names = {
        "backbone.stem.conv1.": "embedding.conv.",
        "backbone.cls_token_out": "temporal_model.class_token",
        "backbone.cls_token": "spatial_model.class_token",
        "backbone.pos_embd": "spatial_model.backbone.position_encoding.encoding",
        "backbone.temp_embd": "temporal_model.backbone.position_encoding.encoding",
        "backbone.layers_temporal.": "temporal_model.backbone.blocks.",
        "backbone.layers.": "spatial_model.backbone.blocks.",
        "backbone.norm_out.": "temporal_model.layer_norm.",
        "backbone.norm.": "spatial_model.layer_norm.",
        ".norm.": ".input_layer_norm.",
        ".attn.to_qkv.": ".qkv.",
        ".attn.proj.": ".projection.",
        ".norm_ffn.": ".mlp_layer_norm.",
        ".ffn.net.0.": ".mlp_1.",
        ".ffn.net.3.": ".mlp_2.",
        "head.linear.": "classifier.",
    }
    renamed = {}
    for key, array in arrays.items():
        name = key
        for theirs, papers in names.items():
            name = name.replace(theirs, papers)
        renamed[name] = array
    return renamed


def _affine(name, outputs, *inputs):
    return {f"{name}.weight": (outputs, *inputs), f"{name}.bias": (outputs,)}


def _normed(name, outputs, inputs, side):
    return {f"{name}.weight": (outputs, inputs, side, side), **_affine(f"{name}.norm", outputs)}
