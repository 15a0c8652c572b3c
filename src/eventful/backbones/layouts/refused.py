"""Blocks that are known and not covered, and why."""

from __future__ import annotations

from collections.abc import Mapping

from eventful.backbones.layouts.families import path

_BIAS = "adds a learned bias a head and offset to its scores, for which there is no attention form"
_REDUCED = "reduces its keys by convolutions, which need all tokens"
_PACKED = "packs the pictures of a call into one row"

_TRANSFORMERS = {
    "beit.BeitLayer": _BIAS,
    "swin.SwinLayer": _BIAS,
    "swinv2.Swinv2Layer": _BIAS,
    "segformer.SegformerLayer": _REDUCED,
    "pvt.PvtLayer": _REDUCED,
    "pvt_v2.PvtV2BlockLayer": _REDUCED,
    "cvt.CvtLayer": _REDUCED,
    "glpn.GLPNLayer": _REDUCED,
    "rf_detr.RfDetrDinov2Layer": "folds windows into the batch, each with a class token of its own",
    "pixtral.PixtralAttentionLayer": _PACKED,
    "qwen2_vl.Qwen2VLVisionBlock": _PACKED,
    "qwen2_5_vl.Qwen2_5_VLVisionBlock": _PACKED,
    "qwen3_vl.Qwen3VLVisionBlock": _PACKED,
    "timesformer.TimesformerLayer": "attends twice, over time and over space",
    "x_clip.XCLIPVisionEncoderLayer": "passes a message token between frames",
    "vit_mae.ViTMAELayer": "sees a random choice of the patches, another one on every frame",
    "vilt.ViltLayer": "sees words and patches together, some of them masked",
    "mllama.MllamaVisionEncoderLayer": "masks tiles, and gates its branches by tanh",
    "hiera.HieraLayer": "reorders tokens and reduces their number",
}
REFUSED: Mapping[str, str] = {
    **{path(name): reason for name, reason in _TRANSFORMERS.items()},
    "transformers.models.data2vec.modeling_data2vec_vision.Data2VecVisionLayer": _BIAS,
    "transformers.models.maskformer.modeling_maskformer_swin.MaskFormerSwinLayer": _BIAS,
}
