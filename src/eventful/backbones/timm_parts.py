"""What timm's pre-norm transformer blocks share: norms, MLPs, and attention projections."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import (
    DropPath,
    GluMlp,
    LayerNorm,
    LayerNormFp32,
    LayerScale,
    Mlp,
    RmsNorm,
    RmsNormFp32,
    SimpleNorm,
    SimpleNormFp32,
    SwiGLU,
    apply_rot_embed_cat,
)
from timm.layers import activations as timm_activations
from timm.models.eva import EvaAttention
from torch import Tensor, nn
from torch.nn import functional

from eventful.backbones.inventory import ELEMENTWISE, Types, account, elementwise
from eventful.block.block import EventfulBlock, TokenOperations
from eventful.block.state import Place, Stage

TimmAttention = Any  # Attention, AttentionRope or EvaAttention: timm declares no attribute types

NORMS: Types = (
    nn.LayerNorm,
    nn.RMSNorm,
    LayerNorm,
    LayerNormFp32,
    RmsNorm,
    RmsNormFp32,
    SimpleNorm,
    SimpleNormFp32,
)
NORM_OR_NONE: Types = (*NORMS, nn.Identity)
DROPOUT: Types = (nn.Dropout, nn.Identity)
DROP_PATH: Types = (DropPath, nn.Identity)
LAYER_SCALE: Types = (LayerScale, nn.Identity)
MLPS: Types = (Mlp, GluMlp, SwiGLU)
_ELEMENTWISE: Types = (*ELEMENTWISE, *elementwise(timm_activations))


class TimmParts(EventfulBlock):
    """What all timm blocks with the submodules `norm1`, `attn`, `norm2` and `mlp` share."""

    attn: Any
    norm1: nn.Module
    norm2: nn.Module
    mlp: nn.Module

    @property
    def heads(self) -> int:
        """H, the number of heads."""
        return self.attn.num_heads

    @property
    def scale(self) -> float:
        """Factor on the scores."""
        return self.attn.scale

    @property
    def head_dim(self) -> int:
        """d, the size of one head."""
        return self.attn.head_dim

    def norm_1(self, x: Tensor) -> Tensor:
        """Normalise the input of the attention branch."""
        return self.norm1(x)

    def norm_2(self, x: Tensor) -> Tensor:
        """Normalise the input of the MLP branch."""
        return self.norm2(x)


class TimmPreNormBlock(TimmParts):
    """The attention side of the blocks whose attention is `Attention` or `EvaAttention`.

    An inner attention norm and an attention gate (sigmoid(W c), computed with q, k, v behind the
    QKV gate and buffered beside them) stand before the projection gate, which sits directly before
    the output projection, so that a change of any of them reaches it.
    """

    @property
    def extra_width(self) -> int:
        """Columns of the attention gate behind q, k, v."""
        return 0 if self.attn.gate is None else self.heads * self.head_dim

    def to_qkv(self, c: Tensor, place: Place) -> Tensor:
        """Project to q, k, v with their norms and rotations, and to the attention gate."""
        return project_qkv(self.attn, c, place)

    def mix(self, o: Tensor, qkv: Tensor) -> Tensor:
        """Apply the inner norm and the attention gate."""
        o = self.attn.norm(o)
        return o if self.attn.gate is None else o * qkv[..., -o.shape[-1] :]

    def linears(self) -> dict[Stage, list[TokenOperations]]:
        """List the linear layers that each gate guards."""
        return {
            "qkv": qkv_linears(self.attn),
            "proj": [linear(self.attn.proj)],
            "mlp": mlp_linears(self.mlp),
        }


def account_branches(block: nn.Module, name: str) -> None:
    """Check the norms, the attention and the MLP of a block."""
    for part in ("norm1", "norm2"):
        account_norm(getattr(block, part), f"{name}.{part}")
    account_attention(block.attn, f"{name}.attn")
    account_mlp(block.get_submodule("mlp"), f"{name}.mlp")


def account_drop_path(block: nn.Module, name: str) -> None:
    """Accept DropPath, which `drop_path` leaves out and whose hooks would therefore be lost."""
    for part in ("drop_path1", "drop_path2"):
        module = block.get_submodule(part)
        account(module, f"{name}.{part}", {}, called=type(module) is not DropPath)


def drop_path(module: nn.Module, c: Tensor) -> Tensor:
    """Call what stands in the place of DropPath, but not DropPath, which does nothing in eval mode.

    The compiler would make a function of its own for each block's rate.
    """
    return c if type(module) is DropPath else module(c)


def account_norm(module: nn.Module, name: str) -> None:
    """Accept a norm over the last axis, with its own weight and bias."""
    account(module, name, {}, frozenset({"weight", "bias"}))
    if len(getattr(module, "normalized_shape", (1,))) != 1:
        raise ValueError(f"cannot convert {name}: it norms over more than the last axis")


def account_mlp(mlp: nn.Module, name: str) -> None:
    """Accept timm's plain and gated MLPs on token tensors."""
    linear = (nn.Linear,)
    names = ("fc1", "fc1_g", "fc1_x", "fc2")
    account(
        mlp,
        name,
        dict.fromkeys(names, linear)
        | {"act": _ELEMENTWISE, "drop1": DROPOUT, "drop2": DROPOUT, "norm": NORM_OR_NONE},
    )


def account_attention(attn: TimmAttention, name: str) -> None:
    """Accept timm's attention modules, with fused or separate projections."""
    children: dict[str, Types] = dict.fromkeys(
        ("qkv", "q_proj", "k_proj", "v_proj", "gate", "proj"), (nn.Linear,)
    )
    children |= dict.fromkeys(("q_norm", "k_norm", "norm"), NORM_OR_NONE)
    children |= dict.fromkeys(("attn_drop", "proj_drop"), DROPOUT)
    own = frozenset({"q_bias", "k_bias", "v_bias"}) if type(attn) is EvaAttention else frozenset()
    account(attn, name, children, own, called=False)
    account_attention_drop(attn, name)


def account_attention_drop(attn: TimmAttention, name: str) -> None:
    """Accept dropout of the attention map, which no form of attention calls once converted."""
    account(attn.attn_drop, f"{name}.attn_drop", {}, called=False)


def project_qkv(attn: TimmAttention, c: Tensor, place: Place) -> Tensor:
    """Compute q, k, v, and the attention gate where there is one, of some tokens.

    Args:
        attn: The block's attention module.
        c: (total, dim) normed tokens.
        place: Where they stand; its `rope` is timm's concatenated sine and cosine,
            (patches, 2 * rotary) or with heads in front.

    Returns:
        (total, 3 * heads * head_dim) or (total, 4 * heads * head_dim).
    """
    q, k, v = _project(attn, c)
    q, k = attn.q_norm(q), attn.k_norm(k)
    if place.rope is not None:
        assert place.positions is not None
        table = _rotation_table(place.rope, attn.num_prefix_tokens, place.positions)
        half = attn.rotate_half
        q = apply_rot_embed_cat(q, table, half=half).type_as(v)
        k = apply_rot_embed_cat(k, table, half=half).type_as(v)
    groups = attn.num_heads // k.shape[1]
    if groups > 1:
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    parts = [part.flatten(1) for part in (q, k, v)]
    if attn.gate is not None:
        parts.append(attn.gate(c).sigmoid())
    return torch.cat(parts, dim=1)


def _project(attn: TimmAttention, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Project to q (total, heads, dim) and k, v (total, key heads, dim), biases included."""
    if attn.qkv is None:
        parts = attn.q_proj(c), attn.k_proj(c), attn.v_proj(c)
    else:
        parts = _fused_projection(attn, c).chunk(3, dim=1)
    q, k, v = (x.unflatten(1, (-1, attn.head_dim)) for x in parts)
    return q, k, v


def _fused_projection(attn: TimmAttention, c: Tensor) -> Tensor:
    """Apply one projection to q, k, v; EVA holds its biases apart from the layer."""
    if getattr(attn, "q_bias", None) is None:
        return attn.qkv(c)
    bias = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
    if attn.qkv_bias_separate:
        return attn.qkv(c) + bias
    return functional.linear(c, attn.qkv.weight, bias)


def _rotation_table(rope: Tensor, prefix: int, positions: Tensor) -> Tensor:
    """Look up each token's rotation: (total, 1 or heads, 2 * rotary); none for prefix tokens."""
    while rope.ndim < 3:
        rope = rope[None]
    sine, cosine = rope.chunk(2, dim=-1)
    shape = (rope.shape[0], prefix, sine.shape[-1])
    still = torch.cat([sine.new_zeros(shape), cosine.new_ones(shape)], dim=-1)
    return torch.cat([still, rope], dim=1)[:, positions].transpose(0, 1)


def linear(layer: nn.Linear, bias: bool = False) -> TokenOperations:
    """Describe a linear layer; `bias` says that one is added from elsewhere."""
    return TokenOperations(layer.in_features, layer.out_features, bias or layer.bias is not None)


def mlp_linears(mlp: nn.Module) -> list[TokenOperations]:
    """List the linear layers of an MLP."""
    return [linear(layer) for layer in mlp.children() if isinstance(layer, nn.Linear)]


def qkv_linears(attn: TimmAttention) -> list[TokenOperations]:
    """List the layers between the QKV gate and the buffer."""
    separate = getattr(attn, "q_bias", None) is not None
    layers = [attn.qkv] if attn.qkv is not None else [attn.q_proj, attn.k_proj, attn.v_proj]
    layers += [attn.gate] if attn.gate is not None else []
    return [linear(layer, separate and layer is attn.qkv) for layer in layers]
