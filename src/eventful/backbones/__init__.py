"""Adapters: how each model family's block maps onto `EventfulBlock`, one file a shape of block.

An adapter is found by the exact type of the block, so that a subclass that computes something
else is never mistaken for it. Its module is imported only when such a block turns up.
`eventful.backbones.layouts` lists the types that differ in names only.
"""

from __future__ import annotations

from importlib import import_module

from torch import nn

from eventful.backbones.layouts import FOLDED, GRIDS, REFUSED, TOKENS
from eventful.block.block import EventfulBlock

ADAPTERS = {
    **dict.fromkeys(TOKENS, "eventful.backbones.prenorm:PreNormBlock"),
    **dict.fromkeys(FOLDED, "eventful.backbones.folded:FoldedBlock"),
    **dict.fromkeys(GRIDS, "eventful.backbones.grid:GridBlock"),
    "timm.models.vision_transformer.Block": "eventful.backbones.timm_vit:TimmBlock",
    "timm.models.vision_transformer_sam.Block": "eventful.backbones.timm_sam:TimmSamBlock",
    "timm.models.eva.EvaBlock": "eventful.backbones.timm_eva:TimmEvaBlock",
    "eventful.models.vitdet.backbone.Block": "eventful.backbones.vitdet:VitDetBlock",
}


LIBRARIES = sorted({path.partition(".")[0] for path in ADAPTERS})


def adapter_for(module: nn.Module) -> type[EventfulBlock] | None:
    """Return the adapter of a block's exact type, or None."""
    kind = type(module)
    location = ADAPTERS.get(f"{kind.__module__}.{kind.__qualname__}")
    if location is None:
        return None
    path, name = location.split(":")
    return getattr(import_module(path), name)


def described(module: nn.Module) -> str:
    """Say what a block without an adapter is, and why there is none where that is known."""
    path = f"{type(module).__module__}.{type(module).__qualname__}"
    return f"a {path}, which {REFUSED[path]}" if path in REFUSED else f"a {path}"


__all__ = ["ADAPTERS", "LIBRARIES", "adapter_for", "described"]
