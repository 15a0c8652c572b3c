"""Small models of every supported kind, with weights that make mistakes show."""

import copy
from collections.abc import Mapping

import torch
from timm.layers import LayerNorm, SwiGLUPacked
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM

import eventful
from eventful.models.vitdet import ViTDetBackbone

SIZE = (12, 20)  # a 3 x 5 grid of 4 x 4 patches
_COMMON = {
    "img_size": SIZE,
    "patch_size": 4,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 3,
    "num_classes": 7,
}
_ROTARY = {"use_rot_pos_emb": True, "use_abs_pos_emb": False}


def _vit(**options):
    return VisionTransformer(**_COMMON, **options)


def _eva(**options):
    return Eva(**_COMMON, **options)


def _sam(**options):
    """Windows of 2 x 2 on a 3 x 5 grid, so padded on both sides, and one global block."""
    return VisionTransformerSAM(
        **_COMMON, window_size=2, global_attn_indexes=(1,), neck_chans=0, **options
    )


def _sam_resampled():
    """Relative positions made for another grid than the frames have."""
    model = _sam(use_rel_pos=True, qk_norm=True)
    attn = model.blocks[1].attn
    attn.rel_pos_h = torch.nn.Parameter(torch.zeros(13, attn.head_dim))
    attn.rel_pos_w = torch.nn.Parameter(torch.zeros(13, attn.head_dim))
    return model


def _vitdet(img_size=SIZE, **options):
    """The windows of `_sam`; absolute positions are resized from 2 x 2."""
    options |= {key: _COMMON[key] for key in ("patch_size", "embed_dim", "depth", "num_heads")}
    return ViTDetBackbone(img_size, window_size=2, global_blocks=(1,), position_grid=2, **options)


def _gated():
    """Attention gates are an option of the block that no `Eva` argument reaches."""
    model = _eva(**_ROTARY)
    options = {"gated_attn": True, "scale_attn_inner": True, "qk_norm": True}
    model.blocks = torch.nn.ModuleList(
        EvaBlock(24, 3, norm_layer=LayerNorm, **options) for _ in model.blocks
    )
    return model


FAMILIES = {
    "plain": _vit,
    "layer_scale": lambda: _vit(init_values=0.5, drop_path_rate=0.1),
    "qk_norm": lambda: _vit(qk_norm=True),
    "registers": lambda: _vit(reg_tokens=4, no_embed_class=True),
    "no_class_token": lambda: _vit(class_token=False, global_pool="avg"),
    "swiglu": lambda: _vit(mlp_layer=SwiGLUPacked, init_values=0.5),
    "inner_norms": lambda: _vit(scale_attn_norm=True, scale_mlp_norm=True),
    "eva02": lambda: _eva(
        qkv_fused=False,
        swiglu_mlp=True,
        scale_mlp=True,
        scale_attn_inner=True,
        use_rot_pos_emb=True,
        ref_feat_shape=(4, 4),
    ),
    "dinov3": lambda: _eva(
        **_ROTARY,
        rope_type="dinov3",
        num_reg_tokens=4,
        init_values=0.5,
        rope_rotate_half=True,
        use_fc_norm=False,
    ),
    "rope_mixed": lambda: _eva(**_ROTARY, rope_type="mixed", class_token=False, global_pool="avg"),
    "gated": _gated,
    "sam": lambda: _sam(use_rel_pos=True, init_values=0.5, drop_path_rate=0.1),
    "sam_resampled": _sam_resampled,
    "sam_no_positions": lambda: _sam(use_abs_pos=False),
    "grouped": lambda: _eva(**_ROTARY, attn_type="rope", num_kv_heads=1, qkv_fused=False),
    "vitdet": _vitdet,
    "vitdet_paper_positions": lambda: _vitdet((28, 16), rel_positions="paper"),
}
ROTARY = ("eva02", "dinov3", "rope_mixed", "gated", "grouped")


def build(name: str, dtype: torch.dtype = torch.float32):
    """A model of the family: peaked attention, positions that matter, no weight at its default."""
    torch.manual_seed(sum(map(ord, name)))
    model = FAMILIES[name]().eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim > 1 and "blocks" in key:
                weight.normal_(std=1.3 / weight.shape[-1] ** 0.5)
            elif "rope" in key:
                weight.mul_(2)
            elif "bias" in key or "norm" in key or "gamma" in key:
                weight.add_(0.3 * torch.randn_like(weight))
            else:
                weight.normal_(std=0.6)
        for block in model.blocks:
            for layer in (block.attn.qkv, getattr(block.attn, "q_proj", None)):
                if layer is not None:
                    layer.weight.mul_(2.5)
    return model.to(dtype)


def clip(frames: int, batch: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0):
    """A moving square over a noisy background that drifts slowly: (frames, batch, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    height, width = SIZE
    background = torch.randn(batch, 3, height, width, generator=generator)
    drift = 0.02 * torch.randn(batch, 3, height, width, generator=generator)
    video = []
    for t in range(frames):
        frame = background + t * drift
        for row in range(batch):
            x, y = (2 * t + 3 * row) % (width - 5), (t + 5 * row) % (height - 5)
            frame[row, :, y : y + 5, x : x + 5] = 2.0
        video.append(frame)
    return torch.stack(video).to(dtype)


def relative(y: torch.Tensor, reference: torch.Tensor) -> float:
    """Relative error in the Frobenius norm, computed in float64."""
    y, reference = y.double(), reference.double()
    return ((y - reference).norm() / reference.norm()).item()


# Largest relative error by dtype. In bfloat16 it is that of one attention: see `tolerance`.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2}


def tolerance(model: torch.nn.Module, video: torch.Tensor) -> float:
    """How far from the dense features of a whole model others of the video's dtype may lie.

    In bfloat16 some forty roundings of up to half an eps, which peaked attention enlarges, take the
    features as far from the exact ones as is measured here. Features that round independently are
    as far away in another direction: the square root of two from each other.
    """
    if video.dtype != torch.bfloat16:
        return TOLERANCE[video.dtype]
    exact = copy.deepcopy(model).double()
    with torch.inference_mode():
        errors = [
            relative(model.forward_features(frame), exact.forward_features(frame.double()))
            for frame in video
        ]
    return 2**0.5 * max(errors)


def stream_of(name: str, policy, dtype: torch.dtype = torch.float32, **options):
    """A stream without scene cuts on a model of the family; `options` are those of `convert`."""
    model = eventful.convert(build(name, dtype), policy, **options)
    return eventful.Stream(model, scene_cuts=None, method="forward_features")


def same(a, b) -> bool:
    """Whether two structures, such as snapshots, are equal, their tensors to the bit."""
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
