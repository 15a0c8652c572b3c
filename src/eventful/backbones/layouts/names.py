"""What the parts of a pre-norm block are called: one line a spelling."""

from __future__ import annotations

from collections.abc import Collection
from itertools import product
from typing import NamedTuple


class Branches(NamedTuple):
    """The frame of a block: the norm in front of each branch, and the factor behind it.

    Attributes:
        norms: The two norms.
        scales: The parameters that the outputs of the two branches are multiplied by, if any.
    """

    norms: tuple[str, ...]
    scales: tuple[str, ...] = ()


class Attention(NamedTuple):
    """The linear layers of attention.

    Attributes:
        qkv: Three projections, one that gives all three, or the weight and bias of one.
        out: The output projection.
        norms: Norms of q and k, if any.
    """

    qkv: tuple[str, ...]
    out: str
    norms: tuple[str, ...] = ()


class Mlp(NamedTuple):
    """An MLP: `last(act(first(x)))`, or `last(act(first(x)) * up(x))` if it is gated.

    Attributes:
        first: The layer in front of the activation.
        act: The activation. Where it is no module, the MLP is gated by SiLU, and `first` gives both
            halves, the one for the activation first.
        last: The output layer.
        up: What the activated values are multiplied by, where the MLP is gated.
    """

    first: str
    act: str | None
    last: str
    up: str | None = None


class Positions(NamedTuple):
    """What a block itself holds of positions.

    Attributes:
        relative: Relative positions of lines and of columns.
        rotary: What its rotary positions are made from, or (cos, sin) themselves.
    """

    relative: tuple[str, ...] = ()
    rotary: tuple[str, ...] = ()


class Layout(NamedTuple):
    """Where a block keeps its parts: paths from the block to modules and parameters."""

    branches: Branches
    attention: Attention
    mlp: Mlp
    positions: Positions = Positions()

    @property
    def norms(self) -> tuple[str, ...]:
        """All norms."""
        return *self.branches.norms, *self.attention.norms

    @property
    def linears(self) -> tuple[str, ...]:
        """All linear layers that are modules."""
        fused = len(self.attention.qkv) == 2
        mlp = self.mlp
        layers = (*(() if fused else self.attention.qkv), self.attention.out, mlp.first, mlp.last)
        return layers if mlp.up is None else (*layers, mlp.up)

    @property
    def activations(self) -> tuple[str, ...]:
        """All activations that are modules."""
        return () if self.mlp.act is None else (self.mlp.act,)

    @property
    def parameters(self) -> tuple[str, ...]:
        """All parameters that stand by themselves."""
        fused = self.attention.qkv if len(self.attention.qkv) == 2 else ()
        return *self.branches.scales, *fused, *self.positions.relative, *self.positions.rotary

    @property
    def names(self) -> frozenset[str]:
        """All parts."""
        return frozenset({*self.norms, *self.linears, *self.parameters, *self.activations})

    @property
    def home(self) -> str:
        """The module that knows the number of heads."""
        return self.attention.qkv[0].rpartition(".")[0]


def _in(path: str, names: str) -> tuple[str, ...]:
    return tuple(f"{path}.{name}" for name in names.split())


BRANCHES = (
    Branches(("layernorm_before", "layernorm_after")),
    Branches(("layernorm_before", "layernorm_after"), ("lambda_1", "lambda_2")),
    Branches(("layernorm_before", "layernorm_after"), ("gamma_1", "gamma_2")),
    Branches(("norm1", "norm2")),
    Branches(("norm1", "norm2"), ("layer_scale1.lambda1", "layer_scale2.lambda1")),
    Branches(("norm1", "norm2"), ("ls1.gamma", "ls2.gamma")),
    Branches(("layer_norm1", "layer_norm2")),
    Branches(("rms_norm1", "rms_norm2")),
    Branches(("ln_1", "ln_2")),
    Branches(("ln_1", "ln_2"), ("ls_1.gamma", "ls_2.gamma")),
)
ATTENTIONS = (
    Attention(_in("attention", "q_proj k_proj v_proj"), "attention.o_proj"),
    Attention(_in("attention", "q_proj k_proj v_proj"), "attention.out_proj"),
    Attention(_in("attention", "q_proj k_proj v_proj"), "attention.projection_layer"),
    Attention(
        _in("attention", "q_proj k_proj v_proj"),
        "attention.projection_layer",
        _in("attention", "q_norm k_norm"),
    ),
    Attention(_in("attention", "query key value"), "attention.proj"),
    Attention(_in("attention.attention", "query key value"), "attention.output.dense"),
    Attention(_in("attention.attention", "query key value"), "attention.output"),
    Attention(_in("self_attn", "q_proj k_proj v_proj"), "self_attn.out_proj"),
    Attention(_in("self_attn", "q_proj k_proj v_proj"), "self_attn.projection_layer"),
    Attention(
        _in("self_attn", "q_proj k_proj v_proj"),
        "self_attn.projection_layer",
        _in("self_attn", "q_norm k_norm"),
    ),
    Attention(("self_attn.qkv",), "self_attn.projection"),
    Attention(("attn.qkv",), "attn.proj"),
    Attention(("attention.qkv",), "attention.proj"),
    Attention(_in("attn", "in_proj_weight in_proj_bias"), "attn.out_proj"),
    Attention(_in("self_attention", "in_proj_weight in_proj_bias"), "self_attention.out_proj"),
)
MLPS = (
    Mlp("mlp.fc1", "mlp.activation_fn", "mlp.fc2"),
    Mlp("mlp.fc1", "mlp.activation", "mlp.fc2"),
    Mlp("mlp.fc1", "mlp.act", "mlp.fc2"),
    Mlp("mlp.lin1", "mlp.act", "mlp.lin2"),
    Mlp("mlp.proj_in", "mlp.activation", "mlp.proj_out"),
    Mlp("mlp.up_proj", "mlp.act_fn", "mlp.down_proj"),
    Mlp("mlp.gate_proj", "mlp.act_fn", "mlp.down_proj", "mlp.up_proj"),
    Mlp("ffn.gate_proj", "ffn.act_fn", "ffn.down_proj", "ffn.up_proj"),
    Mlp("intermediate.fc1", "intermediate.act", "intermediate.fc2"),
    Mlp("intermediate.dense", "intermediate.intermediate_act_fn", "output.dense"),
    Mlp("mlp.weights_in", None, "mlp.weights_out"),
    Mlp("mlp.c_fc", "mlp.gelu", "mlp.c_proj"),
    Mlp("mlp.0", "mlp.1", "mlp.3"),
)
POSITIONS = (
    Positions(),
    Positions(relative=_in("attn", "rel_pos_h rel_pos_w")),
    Positions(relative=_in("attention", "rel_pos_h rel_pos_w")),
    Positions(rotary=("rotary_emb.inv_freq", "rotary_emb.original_inv_freq", "position_ids")),
    Positions(rotary=_in("rotary_emb", "rope_embeddings_cos rope_embeddings_sin")),
)
LAYOUTS = tuple(Layout(*parts) for parts in product(BRANCHES, ATTENTIONS, MLPS, POSITIONS))
_BY_NAMES = {layout.names: layout for layout in LAYOUTS}
assert len(_BY_NAMES) == len(LAYOUTS)  # else two layouts could account for one block


def layout_of(names: Collection[str]) -> Layout | None:
    """The layout that accounts for all parts of a block and has no others; None without any.

    Args:
        names: The paths of the block's parts.

    Example:
        >>> layout = layout_of(
        ...     ["ln_1", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj"]
        ...     + ["ln_2", "mlp.c_fc", "mlp.gelu", "mlp.c_proj"]
        ... )
        >>> layout.branches.norms, layout.home
        (('ln_1', 'ln_2'), 'attn')
        >>> layout_of(["ln_1", "attn.in_proj_weight"]) is None
        True
    """
    return _BY_NAMES.get(frozenset(names))


def nearest(names: Collection[str]) -> Layout:
    """The layout that differs least from a block's parts, for messages."""
    return min(LAYOUTS, key=lambda layout: len(layout.names ^ set(names)))
