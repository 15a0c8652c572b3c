"""Tiny random models of families that other libraries bring: one entry a family."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
WIDE = SIZES | {"intermediate_size": 40}
RATIO = SIZES | {"mlp_ratio": 2}
SQUARE = {"image_size": 20, "patch_size": 4}  # 5 x 5 patches
OBLONG = {"image_size": (12, 20), "patch_size": 4}  # 3 x 5
WINDOWS = SIZES | SQUARE | {"mlp_dim": 40, "window_size": 2, "global_attn_indexes": [1]}
VITDET = RATIO | {"image_size": (12, 20), "patch_size": 4, "window_size": 2}
VITDET |= {"window_block_indices": [0, 2], "use_relative_position_embeddings": True}
VITDET |= {"residual_block_indices": [1]}
TEXT = WIDE | {"vocab_size": 30, "max_position_embeddings": 9, "eos_token_id": 2}


@dataclass(frozen=True)
class Case:
    """A family's tiny model, and what it takes.

    Attributes:
        library: What has to be installed.
        make: Makes the model, given the library.
        size: A frame without its batch.
        inputs: What else the model takes, given a number of rows.
        method: The method to run.
        patch: Side of a patch; None where a frame is no picture.
        converted: Blocks that are converted; the others stay as they are.
        where: Says which of them, as for `eventful.convert`.
        single: The largest error in float32; a random mask decoder amplifies rounding.
    """

    library: str
    make: Callable[[Any], nn.Module]
    size: tuple[int, ...] = (3, 20, 20)
    inputs: Callable[[int], dict[str, Any]] = field(default=lambda rows: {})
    method: str = "forward"
    patch: int | None = 4
    converted: int = 3
    where: Callable[[str, Any], bool] | None = None
    single: float = 2e-5


def _hf(model: str, config: str, options: Mapping[str, Any], **case: Any) -> Case:
    return Case("transformers", lambda t: getattr(t, model)(getattr(t, config)(**options)), **case)


def _backbone(options: Mapping[str, Any] = RATIO, **more: Any) -> Callable[[Any], Any]:
    features = {"out_indices": [1, 3], "reshape_hidden_states": False}
    return lambda t: t.Dinov2Config(**options, **SQUARE, **features, **more)


def _depth_anything(t: Any) -> nn.Module:
    config = t.DepthAnythingConfig(
        backbone_config=_backbone()(t),
        patch_size=4,
        reassemble_hidden_size=24,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 12],
        fusion_hidden_size=8,
        head_in_index=-1,
        head_hidden_size=8,
    )
    return t.DepthAnythingForDepthEstimation(config)


def _dpt(t: Any) -> nn.Module:
    config = t.DPTConfig(
        **WIDE | SQUARE | {"num_hidden_layers": 4},
        is_hybrid=False,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    )
    return t.DPTForDepthEstimation(config)


def _vitpose(t: Any) -> nn.Module:
    backbone = t.VitPoseBackboneConfig(**RATIO, image_size=(24, 40), patch_size=(8, 8))
    return t.VitPoseForPoseEstimation(t.VitPoseConfig(backbone_config=backbone, num_labels=5))


def _eomt(t: Any) -> nn.Module:
    options = {"num_blocks": 1, "num_queries": 6, "num_upscale_blocks": 1, "num_labels": 5}
    return t.EomtForUniversalSegmentation(t.EomtConfig(**RATIO, **SQUARE, **options))


def _eomt_dinov3(t: Any) -> nn.Module:
    options = {"num_blocks": 1, "num_queries": 6, "num_upscale_blocks": 1, "num_labels": 5}
    config = t.EomtDinov3Config(**WIDE, **SQUARE, num_register_tokens=2, **options)
    return t.EomtDinov3ForUniversalSegmentation(config)


def _two_towers(model: str, config: str) -> Callable[[Any], nn.Module]:
    def make(t: Any) -> nn.Module:
        towers = {"text_config": TEXT, "vision_config": WIDE | SQUARE, "projection_dim": 24}
        return getattr(t, model)(getattr(t, config)(**towers))

    return make


def _llava(t: Any) -> nn.Module:
    text = {"num_key_value_heads": 3, "vocab_size": 40, "max_position_embeddings": 64}
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**WIDE, **SQUARE),
        text_config=t.LlamaConfig(**WIDE, **text, head_dim=8),
        image_token_index=39,
        image_seq_length=25,
        vision_feature_layer=-1,
    )
    return t.LlavaForConditionalGeneration(config)


def _sam(t: Any) -> nn.Module:
    config = t.SamConfig(
        vision_config=WINDOWS | {"output_channels": 8, "num_pos_feats": 4},
        prompt_encoder_config={"hidden_size": 8, "image_size": 20, "patch_size": 4},
        mask_decoder_config={
            "hidden_size": 8,
            "mlp_dim": 10,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 8,
        },
    )
    return t.SamModel(config)


def _got_ocr2(t: Any) -> nn.Module:
    made = importlib.import_module("transformers.models.got_ocr2.modeling_got_ocr2")
    return made.GotOcr2VisionEncoder(t.GotOcr2VisionConfig(**WINDOWS, output_channels=8))


def _lw_detr_backbone(t: Any) -> Any:
    windows = {"num_windows": 4, "window_block_indices": [0, 2], "out_indices": [1, 3]}
    sizes = {"image_size": 32, "pretrain_image_size": 32, "patch_size": 4}
    return t.LwDetrViTConfig(**RATIO, **sizes, **windows)


def _lw_detr(t: Any) -> nn.Module:
    config = t.LwDetrConfig(
        backbone_config=_lw_detr_backbone(t),
        d_model=16,
        decoder_ffn_dim=20,
        decoder_layers=2,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        num_queries=5,
        projector_scale_factors=[1.0],
        group_detr=1,
        num_labels=3,
    )
    return t.LwDetrForObjectDetection(config)


def _hiera(t: Any) -> nn.Module:
    config = t.Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[32, 48],
        blocks_per_stage=[2, 2],
        embed_dim_per_stage=[8, 16],
        num_attention_heads_per_stage=[1, 2],
        window_size_per_stage=[4, 2],
        global_attention_blocks=[3],
        num_query_pool_stages=1,
        window_positional_embedding_background_size=[3, 3],
    )
    return t.Sam2HieraDetModel(config)


def _points(rows: int) -> dict[str, Any]:
    return {"input_points": torch.tensor([[[[5.0, 9.0]]]]).repeat(rows, 1, 1, 1)}


def _ids(rows: int) -> dict[str, Any]:
    return {"input_ids": torch.tensor([[5, 7, 2], [3, 11, 2]])}


def _asked(rows: int) -> dict[str, Any]:
    return {"input_ids": torch.tensor([[5, 7, 2]]).repeat(rows, 1)}


def _naflex(rows: int) -> dict[str, Any]:
    mask = torch.ones(rows, 15, dtype=torch.long)
    return {"pixel_attention_mask": mask, "spatial_shapes": torch.tensor([[3, 5]] * rows)}


def _llava_ids(rows: int) -> dict[str, Any]:
    ids = torch.tensor([[5, *[39] * 25, 7]]).repeat(rows, 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}


def _torchvision(library: Any) -> nn.Module:
    sizes = {"num_layers": 3, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 40, "num_classes": 7}
    return library.models.VisionTransformer(image_size=20, patch_size=4, **sizes)


def _open_clip(library: Any, **options: Any) -> nn.Module:
    vision = {"image_size": (12, 20), "patch_size": 4, "width": 24, "layers": 3, "head_width": 8}
    text = {"context_length": 5, "vocab_size": 30, "width": 24, "heads": 3, "layers": 2}
    return library.CLIP(embed_dim=7, vision_cfg=vision | options, text_cfg=text)


CASES: Mapping[str, Case] = {
    "ViT": _hf("ViTModel", "ViTConfig", WIDE | OBLONG, size=(3, 12, 20)),
    "ViT classifier": _hf(
        "ViTForImageClassification", "ViTConfig", WIDE | OBLONG, size=(3, 12, 20)
    ),
    "DeiT": _hf("DeiTModel", "DeiTConfig", WIDE | OBLONG, size=(3, 12, 20)),
    "ViT-MSN": _hf("ViTMSNModel", "ViTMSNConfig", WIDE | OBLONG, size=(3, 12, 20)),
    "I-JEPA": _hf("IJepaModel", "IJepaConfig", WIDE | OBLONG, size=(3, 12, 20)),
    "Pixio": _hf("PixioModel", "PixioConfig", RATIO | SQUARE),
    "DINOv2": _hf("Dinov2Model", "Dinov2Config", RATIO | SQUARE, size=(3, 12, 20)),
    "DINOv2, gated MLP": _hf(
        "Dinov2Model", "Dinov2Config", RATIO | SQUARE | {"use_swiglu_ffn": True}, size=(3, 12, 20)
    ),
    "DINOv2 with registers": _hf(
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        RATIO | SQUARE | {"num_register_tokens": 2},
        size=(3, 12, 20),
    ),
    "DINOv2 backbone": Case(
        "transformers", lambda t: t.Dinov2Backbone(_backbone()(t)), size=(3, 12, 20)
    ),
    "DINOv3": _hf(
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        WIDE | SQUARE | {"num_register_tokens": 2},
        size=(3, 12, 20),
    ),
    "DINOv3, gated MLP": _hf(
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        WIDE | SQUARE | {"num_register_tokens": 2, "use_gated_mlp": True},
        size=(3, 12, 20),
    ),
    "CLIP vision": _hf("CLIPVisionModel", "CLIPVisionConfig", WIDE | SQUARE),
    "CLIP": Case("transformers", _two_towers("CLIPModel", "CLIPConfig"), inputs=_ids),
    "CLIPSeg": Case(
        "transformers",
        lambda t: t.CLIPSegForImageSegmentation(
            t.CLIPSegConfig(
                text_config=TEXT,
                vision_config=WIDE | SQUARE,
                projection_dim=7,
                extract_layers=[0, 2],
                reduce_dim=6,
                decoder_num_attention_heads=3,
                decoder_intermediate_size=10,
            )
        ),
        inputs=_asked,
    ),
    "MetaCLIP 2 vision": _hf("MetaClip2VisionModel", "MetaClip2VisionConfig", WIDE | SQUARE),
    "AltCLIP vision": _hf("AltCLIPVisionModel", "AltCLIPVisionConfig", WIDE | SQUARE),
    "Chinese-CLIP vision": _hf("ChineseCLIPVisionModel", "ChineseCLIPVisionConfig", WIDE | SQUARE),
    "SigLIP vision": _hf("SiglipVisionModel", "SiglipVisionConfig", WIDE | SQUARE),
    "SigLIP": Case("transformers", _two_towers("SiglipModel", "SiglipConfig"), inputs=_ids),
    "SigLIP 2 vision, full grid": _hf(
        "Siglip2VisionModel",
        "Siglip2VisionConfig",
        WIDE | {"patch_size": 4, "num_patches": 25},
        size=(15, 48),
        inputs=_naflex,
        patch=None,
    ),
    "OWL-ViT vision": _hf("OwlViTVisionModel", "OwlViTVisionConfig", WIDE | SQUARE),
    "OWL-ViT detector": Case(
        "transformers", _two_towers("OwlViTForObjectDetection", "OwlViTConfig"), inputs=_asked
    ),
    "OWLv2 detector": Case(
        "transformers", _two_towers("Owlv2ForObjectDetection", "Owlv2Config"), inputs=_asked
    ),
    "Idefics3 vision": _hf(
        "Idefics3VisionTransformer", "Idefics3VisionConfig", WIDE | SQUARE, size=(3, 12, 20)
    ),
    "SmolVLM vision": _hf(
        "SmolVLMVisionTransformer", "SmolVLMVisionConfig", WIDE | SQUARE, size=(3, 12, 20)
    ),
    "LLaVA": Case("transformers", _llava, inputs=_llava_ids),
    "InternVL vision": _hf(
        "InternVLVisionModel",
        "InternVLVisionConfig",
        WIDE | {"image_size": [20, 20], "patch_size": [4, 4], "use_qk_norm": True},
        size=(3, 12, 20),
    ),
    "AIMv2 vision": _hf("Aimv2VisionModel", "Aimv2VisionConfig", WIDE | SQUARE),
    "Janus vision": _hf("JanusVisionModel", "JanusVisionConfig", RATIO | SQUARE),
    "BLIP vision": _hf("BlipVisionModel", "BlipVisionConfig", WIDE | SQUARE),
    "BLIP-2 vision": _hf("Blip2VisionModel", "Blip2VisionConfig", WIDE | SQUARE),
    "InstructBLIP vision": _hf(
        "InstructBlipVisionModel", "InstructBlipVisionConfig", WIDE | SQUARE
    ),
    "FLAVA image": _hf("FlavaImageModel", "FlavaImageConfig", WIDE | SQUARE),
    "YOLOS": _hf(
        "YolosForObjectDetection",
        "YolosConfig",
        WIDE | {"image_size": [12, 20], "patch_size": 4, "num_detection_tokens": 5},
        size=(3, 12, 20),
    ),
    "DPT": Case("transformers", _dpt, converted=4),
    "Depth Anything": Case("transformers", _depth_anything, size=(3, 12, 20)),
    "ViTPose": Case("transformers", _vitpose, size=(3, 24, 40), patch=8),
    "EoMT": Case("transformers", _eomt, converted=2),
    "EoMT, DINOv3": Case("transformers", _eomt_dinov3, converted=2),
    "ViViT, joint": _hf(
        "VivitModel",
        "VivitConfig",
        WIDE | {"image_size": 20, "num_frames": 4, "tubelet_size": [2, 4, 4]},
        size=(4, 3, 20, 20),
        patch=None,
    ),
    "VideoMAE": _hf(
        "VideoMAEModel",
        "VideoMAEConfig",
        WIDE | SQUARE | {"num_frames": 4, "tubelet_size": 2},
        size=(4, 3, 20, 20),
        patch=None,
    ),
    "V-JEPA 2": _hf(
        "VJEPA2Model",
        "VJEPA2Config",
        RATIO
        | {"hidden_size": 36, "crop_size": 20, "patch_size": 4, "frames_per_clip": 4}
        | {"pred_hidden_size": 36, "pred_num_attention_heads": 3, "pred_num_hidden_layers": 2},
        size=(4, 3, 20, 20),
        inputs=lambda rows: {"skip_predictor": True},
        patch=None,
    ),
    "SAM vision": _hf("SamVisionModel", "SamVisionConfig", WINDOWS, size=(3, 20, 20)),
    "SAM": Case("transformers", _sam, inputs=_points, single=1e-3),
    "SAM-HQ vision": _hf("SamHQVisionModel", "SamHQVisionConfig", WINDOWS),
    "GOT-OCR2 vision": Case("transformers", _got_ocr2),
    "ViTDet": _hf("VitDetBackbone", "VitDetConfig", VITDET, size=(3, 12, 20), converted=2),
    "SAM 2 Hiera": Case("transformers", _hiera, size=(3, 32, 48), patch=None, converted=3),
    "SAM 2 Hiera, one stage": Case(
        "transformers",
        _hiera,
        size=(3, 32, 48),
        converted=2,
        where=lambda name, block: block.dim_out == 8,
    ),
    "SAM 3 vision": _hf(
        "Sam3ViTModel",
        "Sam3ViTConfig",
        WIDE | {"image_size": 24, "patch_size": 4, "window_size": 2, "global_attn_indexes": [1]},
        size=(3, 24, 24),
    ),
    "LW-DETR backbone": Case(
        "transformers", lambda t: t.LwDetrViTBackbone(_lw_detr_backbone(t)), size=(3, 32, 32)
    ),
    "LW-DETR": Case("transformers", _lw_detr, size=(3, 32, 32)),
    "torchvision ViT": Case("torchvision", _torchvision),
    "open_clip": Case("open_clip", _open_clip, size=(3, 12, 20)),
    "open_clip, layer scale": Case(
        "open_clip", lambda o: _open_clip(o, ls_init_value=0.5), size=(3, 12, 20)
    ),
}
