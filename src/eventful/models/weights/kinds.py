"""The published checkpoints that can be converted, each for a preset of `eventful.models`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module

import torch
from torch import nn

from eventful.models.weights import vitdet, vivit
from eventful.models.weights.renaming import Drop, Rename, Shapes

_VITDET, _VIVIT = "eventful.models.vitdet.presets", "eventful.models.vivit"


@dataclass(frozen=True)
class Kind:
    """One of the checkpoints that can be converted.

    Args:
        name: What it is called here; that of a preset of `eventful.models`, if there is one kind
            for the preset.
        module: Where the preset is defined; it is imported when it is needed.
        source: Where it comes from.
        rules: How our parameters are called in it.
        drops: What it may hold beside them.
        preset: The preset that it is for [the one of its name].

    Example:
        >>> KINDS["vivit_b_kinetics"].source
        'TAdaConv model zoo, ViViT Fact. Enc., Kinetics-400 (.pyth)'
    """

    name: str
    module: str
    source: str
    rules: Sequence[Rename]
    drops: Sequence[Drop] = ()
    preset: str = ""

    def shapes(self) -> Shapes:
        """Names and shapes of the preset's parameters, without memory for them."""
        with torch.device("meta"):
            return shapes_of(getattr(import_module(self.module), self.preset or self.name)())


def shapes_of(model: nn.Module) -> Shapes:
    """Names and shapes of all that a model saves.

    Example:
        >>> shapes_of(nn.Linear(3, 5))
        {'weight': (5, 3), 'bias': (5,)}
    """
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "vitdet_b_vid",
            _VITDET,
            "Eventful Transformers, frcnn_vitdet_final.pth, ImageNet VID (.pth)",
            vitdet.FASTER_RCNN,
            vitdet.DROPS,
        ),
        Kind(
            "vitdet_b_coco",
            _VITDET,
            "Detectron2 ViTDet, Cascade Mask R-CNN, ViT-B, COCO (.pkl or .pth)",
            vitdet.CASCADE_MASK_RCNN,
            vitdet.DROPS,
        ),
        Kind(
            "vitdet_l_coco",
            _VITDET,
            "Detectron2 ViTDet, Cascade Mask R-CNN, ViT-L, COCO (.pkl or .pth)",
            vitdet.CASCADE_MASK_RCNN,
            vitdet.DROPS,
        ),
        Kind(
            "vivit_b_epic",
            _VIVIT,
            "TAdaConv model zoo, ViViT Fact. Enc., EPIC-Kitchens 100 (.pyth)",
            vivit.EPIC,
            vivit.EPIC_DROPS,
        ),
        Kind(
            "vivit_b_kinetics",
            _VIVIT,
            "TAdaConv model zoo, ViViT Fact. Enc., Kinetics-400 (.pyth)",
            vivit.KINETICS,
        ),
        *(
            Kind(
                f"{preset}_tuned",
                _VIVIT,
                "Eventful Transformers, ViViT with a fine-tuned temporal model (.pth)",
                vivit.TUNED,
                preset=preset,
            )
            for preset in ("vivit_b_epic", "vivit_b_kinetics")
        ),
    )
}


def find_kind(name: str) -> Kind:
    """Look a kind up.

    Raises:
        ValueError: There is none of that name.

    Example:
        >>> find_kind("vivit_b_epic").name
        'vivit_b_epic'
    """
    if name not in KINDS:
        near = get_close_matches(name, KINDS, n=1)
        hint = f"; do you mean {near[0]!r}?" if near else ""
        raise ValueError(f"expected a kind out of {', '.join(KINDS)}, got {name!r}{hint}")
    return KINDS[name]
