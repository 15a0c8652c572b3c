"""The families of pre-norm blocks over tokens and over grids: one line a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Rotation = Literal["given", "own"]
Behind = tuple[None, ...]


@dataclass(frozen=True)
class Family:
    """What the children of a block do not say.

    Attributes:
        prefix: Class tokens in front of the patches.
        more: Fields of the model's configuration that count further tokens in front of them.
        suffix: Field of the configuration that counts tokens behind the patches.
        rotation: Rotary positions: "given" to the block as (cos, sin) of the last tokens, halves
            rotated; or the attention's "own", from the places of the tokens.
        norm: What the model calls the norm behind its last block, where outputs pass through it.
        behind: What the block returns behind its output, in a tuple; None if it returns its output
            itself.
        late: Field of the configuration that counts last blocks that further tokens join; they
            stay as they are.
        channels_first: Whether a grid comes as (batch, dim, height, width).
    """

    prefix: int = 0
    more: tuple[str, ...] = ()
    suffix: str | None = None
    rotation: Rotation | None = None
    norm: str = ""
    behind: Behind | None = None
    late: str | None = None
    channels_first: bool = False

    def tokens(self, config: Any) -> tuple[int, int]:
        """How many tokens stand in front of the patches, and behind them."""
        prefix = self.prefix + sum(int(getattr(config, field, 0)) for field in self.more)
        return prefix, int(getattr(config, self.suffix, 0)) if self.suffix else 0


_REGISTERS = ("num_register_tokens",)
_TRANSFORMERS: Mapping[str, Family] = {
    "aimv2.Aimv2EncoderLayer": Family(norm="rms_norm"),
    "altclip.AltCLIPEncoderLayer": Family(1),
    "blip.BlipEncoderLayer": Family(1, norm="post_layernorm"),
    "blip_2.Blip2EncoderLayer": Family(1, norm="post_layernorm"),
    "chinese_clip.ChineseCLIPVisionLayer": Family(1),
    "clip.CLIPEncoderLayer": Family(1),
    "clipseg.CLIPSegEncoderLayer": Family(1),
    "deit.DeiTLayer": Family(2, norm="layernorm"),
    "dinov2.Dinov2Layer": Family(1, norm="layernorm"),
    "dinov2_with_registers.Dinov2WithRegistersLayer": Family(1, _REGISTERS, norm="layernorm"),
    "dinov3_vit.DINOv3ViTLayer": Family(1, _REGISTERS, rotation="given", norm="norm"),
    "dpt.DPTViTLayer": Family(1),
    "eomt.EomtLayer": Family(1, _REGISTERS, norm="layernorm", late="num_blocks"),
    "eomt_dinov3.EomtDinov3Layer": Family(
        1, _REGISTERS, rotation="given", norm="layernorm", late="num_blocks"
    ),
    "flava.FlavaLayer": Family(1, norm="layernorm", behind=()),
    "idefics3.Idefics3EncoderLayer": Family(norm="post_layernorm"),
    "ijepa.IJepaLayer": Family(norm="layernorm"),
    "instructblip.InstructBlipEncoderLayer": Family(1, norm="post_layernorm"),
    "internvl.InternVLVisionLayer": Family(1, norm="layernorm"),
    "janus.JanusVisionEncoderLayer": Family(norm="post_layernorm"),
    "metaclip_2.MetaClip2EncoderLayer": Family(1),
    "owlv2.Owlv2EncoderLayer": Family(1, norm="post_layernorm"),
    "owlvit.OwlViTEncoderLayer": Family(1, norm="post_layernorm"),
    "pixio.PixioLayer": Family(0, ("n_cls_tokens",), norm="layernorm"),
    "siglip.SiglipEncoderLayer": Family(norm="post_layernorm"),
    "siglip2.Siglip2EncoderLayer": Family(norm="post_layernorm"),
    "smolvlm.SmolVLMEncoderLayer": Family(norm="post_layernorm"),
    "videomae.VideoMAELayer": Family(norm="layernorm"),
    "vit.ViTLayer": Family(1, norm="layernorm"),
    "vit_msn.ViTMSNLayer": Family(1, norm="layernorm"),
    "vitpose_backbone.VitPoseBackboneLayer": Family(norm="layernorm"),
    "vivit.VivitLayer": Family(1, norm="layernorm"),
    "vjepa2.VJEPA2Layer": Family(rotation="own", norm="layernorm", behind=(None,)),
    "yolos.YolosLayer": Family(1, suffix="num_detection_tokens", norm="layernorm"),
}
_GRIDS: Mapping[str, Family] = {
    "got_ocr2.GotOcr2VisionLayer": Family(),
    "sam.SamVisionLayer": Family(),
    "sam2.Sam2MultiScaleBlock": Family(),
    "sam3.Sam3ViTLayer": Family(rotation="own"),
    "sam_hq.SamHQVisionLayer": Family(),
    "vitdet.VitDetLayer": Family(behind=(), channels_first=True),
}


def path(name: str) -> str:
    """Where transformers defines a class that is given as `folder.Class`."""
    folder, kind = name.split(".")
    return f"transformers.models.{folder}.modeling_{folder}.{kind}"


TOKENS: Mapping[str, Family] = {
    **{path(name): family for name, family in _TRANSFORMERS.items()},
    "torchvision.models.vision_transformer.EncoderBlock": Family(1, norm="ln"),
    "open_clip.transformer.ResidualAttentionBlock": Family(1, norm="ln_post"),
}
GRIDS: Mapping[str, Family] = {path(name): family for name, family in _GRIDS.items()}
FOLDED: Mapping[str, Family] = {path("lw_detr.LwDetrViTLayer"): Family()}
FAMILIES: Mapping[str, Family] = {**TOKENS, **GRIDS, **FOLDED}
