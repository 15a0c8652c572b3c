"""Folders as `save_pretrained` writes them: the tiny models of tests/families, and processors.

The models take larger pictures here, with larger patches, since motion is not seen in small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from tests.families.cases import CASES
from tests.families.zoo import build

_SIDES = ("image_size", "patch_size", "pretrain_image_size", "crop_size")
_FIXED = ("SAM 2 Hiera", "SAM 2 Hiera, one stage")  # their patches are of one size


def factor(name: str) -> int:
    """How much larger frames are than in tests/families."""
    if CASES[name].patch is None and name not in _FIXED:
        return 1  # clips and patches, in which no motion is followed
    return -(-48 // min(CASES[name].size[-2:]))


def sides(name: str) -> dict[str, int]:
    """Height and width of the frames that a family's model takes here."""
    height, width = CASES[name].size[-2:]
    return {"height": factor(name) * height, "width": factor(name) * width}


def _square(kind: str, edge: str, **options: Any) -> Callable[[str], Any]:
    """A processor whose size has another name than height and width."""
    return lambda name: getattr(transformers, kind)(
        size={edge: sides(name)["height"]}, **{k: v(name) for k, v in options.items()}
    )


def _sized(kind: str, **options: Any) -> Callable[[str], Any]:
    return lambda name: getattr(transformers, kind)(size=sides(name), **options)


def _eomt(name: str) -> Any:
    side = sides(name)["height"]
    size = {"shortest_edge": side, "longest_edge": side}
    return transformers.EomtImageProcessor(size=size, do_pad=True, do_split_image=False)


_PROCESSORS: Mapping[str, Callable[[str], Any]] = {
    "DPT": _sized("DPTImageProcessor"),
    "Depth Anything": _sized("DPTImageProcessor"),
    "ViTPose": _sized("VitPoseImageProcessor"),
    "YOLOS": _sized("YolosImageProcessor", do_pad=False),
    "LW-DETR": _sized("DeformableDetrImageProcessor", do_pad=False),
    "OWL-ViT detector": _sized("OwlViTImageProcessor", do_center_crop=False),
    "OWLv2 detector": _sized("Owlv2ImageProcessor"),
    "EoMT": _eomt,
    "EoMT, DINOv3": _eomt,
    "SAM": _square("SamImageProcessor", "longest_edge", pad_size=sides),
    "SigLIP 2 vision, full grid": lambda name: transformers.Siglip2ImageProcessor(
        patch_size=4, max_num_patches=25
    ),
    "ViViT, joint": _square("VivitImageProcessor", "shortest_edge", crop_size=sides),
    "VideoMAE": _square("VideoMAEImageProcessor", "shortest_edge", crop_size=sides),
    "V-JEPA 2": _square("VJEPA2VideoProcessor", "shortest_edge", crop_size=sides),
}

# What a folder's model is run for, and with; models of the others give features.
TASKS: Mapping[str, tuple[str, ...]] = {
    "DPT": ("depth",),
    "Depth Anything": ("depth",),
    "ViTPose": ("pose",),
    "YOLOS": ("detect",),
    "LW-DETR": ("detect",),
    "OWL-ViT detector": ("detect", "--text", "a cat"),
    "OWLv2 detector": ("detect", "--text", "a cat", "--text", "at"),
    "CLIPSeg": ("segment", "--text", "a cat"),
    "EoMT": ("segment",),
    "EoMT, DINOv3": ("segment",),
    "SAM": ("segment", "--point", "10,7"),
}


def write(name: str, folder: Path) -> Path:
    """A family's tiny model, its processor, and a tokenizer where it takes text."""
    enlarged(name).save_pretrained(folder)
    _PROCESSORS.get(name, _sized("ViTImageProcessor"))(name).save_pretrained(folder)
    if "--text" in TASKS.get(name, ()):
        write_tokenizer(folder)
    return folder


def enlarged(name: str) -> nn.Module:
    """A family's model for larger frames, with patches as much larger: the tokens are as many."""
    model: Any = build(name)
    by = factor(name)
    _enlarge(model.config, by, _SIDES[:1] if name in _FIXED else _SIDES)
    larger, weights = type(model)(model.config).eval(), model.state_dict()
    for key, weight in larger.state_dict().items():
        if weights[key].shape != weight.shape:
            patch = F.interpolate(weights[key], scale_factor=by) / by**2
            weights[key] = patch if patch.shape == weight.shape else weight
    larger.load_state_dict(weights)
    return larger


def _enlarge(config: Any, by: int, names: tuple[str, ...]) -> None:
    for key, value in list(vars(config).items()):
        if isinstance(value, transformers.PretrainedConfig):
            _enlarge(value, by, names)
        elif key in names and value is not None:
            many = isinstance(value, list | tuple)
            setattr(config, key, [by * side for side in value] if many else by * value)


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of CLIP's kind that knows a few letters."""
    tokens = ["!", "<|startoftext|>", "<|endoftext|>"]
    tokens += [f"{letter}{end}" for letter in "acdgot" for end in ("", "</w>")]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    made = transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=7)
    made.save_pretrained(folder)


def frames(count: int = 8, height: int = 68, width: int = 92) -> np.ndarray:
    """A bright square that moves over noise: uint8 (frames, height, width, 3)."""
    noise = torch.rand(3, height // 4, width // 4, generator=torch.Generator().manual_seed(0))
    still = F.interpolate(noise[None], (height, width), mode="bilinear")[0].permute(1, 2, 0)
    video = np.stack([(120 * still).to(torch.uint8).numpy()] * count)
    for t, frame in enumerate(video):
        frame[10 + t : 30 + t, 4 * t : 4 * t + 24] = 240
    return video
