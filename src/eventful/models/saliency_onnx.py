"""Reads the weights of the saliency network out of its ONNX file."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eventful.models.packaged import optional

_POSITIONS = 37  # side of the grid that the stored position embedding covers

# What the ONNX file's names become in timm's `vit_small_patch14_dinov2`.
_TIMM_NAMES = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("encoder.layer.", "blocks."),
    ("attention.attention.", "attn."),
    ("attention.output.dense.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("backbone.layernorm.", "backbone.norm."),
)


def read_onnx(path: Path) -> dict[str, Tensor]:
    """All initializers of the ONNX graph, in PyTorch's layout, named as before the export."""
    onnx = optional("onnx")
    graph = onnx.load(path).graph
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    weights: dict[str, Tensor] = {}
    for initializer in graph.initializer:
        value = torch.from_numpy(onnx.numpy_helper.to_array(initializer).copy())
        name, value = _before_export(initializer.name, value, readers)
        if name in weights:
            raise ValueError(f"two initializers of {path} hold {name}; {initializer.name} is one")
        weights[name] = value
    return weights


def _before_export(name: str, value: Tensor, readers: dict[str, list[Any]]) -> tuple[str, Tensor]:
    """Undo the constant folding of the exporter, which leaves a result without its name.

    Such a result is known by the one node that reads it. A linear layer is `Add(bias, MatMul(x,
    weight^T))` and its bias kept its name; the position embedding is cut in two, the class token's
    part going straight into a Concat and the patches' part being reshaped to a grid first.
    """
    if not name.startswith("onnx::"):
        return name, value
    match readers[name]:
        case [node] if node.op_type == "Concat":
            return "backbone.pos_embed.class", value
        case [node] if node.op_type == "Reshape":
            return "backbone.pos_embed.patches", value
        case [node] if node.op_type == "MatMul":
            sums = [add for add in readers[node.output[0]] if add.op_type == "Add"]
            biases = [term for add in sums for term in add.input if term.endswith(".bias")]
            if len(biases) == 1:
                return biases[0].removesuffix("bias") + "weight", value.T
    kinds = [node.op_type for node in readers[name]]
    raise ValueError(f"cannot tell which parameter {name} is: the nodes that read it are {kinds}")


def timm_weights(weights: dict[str, Tensor], grid: tuple[int, int]) -> dict[str, Tensor]:
    """The state dict of `Saliency` for images of h x w patches."""
    renamed = {_timm_name(name): value for name, value in weights.items()}
    for query in [name for name in renamed if ".attn.query." in name]:
        names = [query.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        joint = torch.cat([renamed.pop(name) for name in names])
        renamed[query.replace(".query.", ".qkv.")] = joint
    patches = _resample_positions(renamed.pop("backbone.pos_embed.patches"), grid)
    prefix = renamed.pop("backbone.pos_embed.class")
    renamed["backbone.pos_embed"] = torch.cat([prefix, patches], dim=1)
    return renamed


def _timm_name(name: str) -> str:
    for old, new in _TIMM_NAMES:
        name = name.replace(old, new)
    return name


def _resample_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embedding (1, 37 * 37, 384) on another grid (1, h * w, 384), as in the ONNX graph.

    Its Resize node is cubic with a = -0.75 on half-pixel centres and without antialiasing, which is
    what PyTorch computes too.
    """
    square = positions.transpose(1, 2).unflatten(2, (_POSITIONS, _POSITIONS))
    resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False, antialias=False)
    return resized.flatten(2).transpose(1, 2)
