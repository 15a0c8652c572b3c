"""Builds the tiny models of `cases`, and runs them with and without a stream."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import eventful
from tests.families.cases import CASES
from tests.laws.frames import COSTS


def build(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A family's model: peaked attention, positions that matter, no weight at its default."""
    case = CASES[name]
    library = pytest.importorskip(case.library)
    if case.library == "torchvision":
        importlib.import_module("torchvision.models")
    torch.manual_seed(sum(map(ord, name)))
    model = case.make(library).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim < 2 or "norm" in key:
                weight.add_(0.3 * torch.randn_like(weight))
            elif any(part in key for part in ("position", "pos_emb", "token")):
                weight.normal_(std=0.6)
            elif weight.numel():
                weight.normal_(std=1.3 / (weight.numel() / weight.shape[0]) ** 0.5)
            if any(part in key for part in ("q_proj", "query", "in_proj", "qkv")):
                weight.mul_(2)
        for key, buffer in model.named_buffers():
            if key.endswith("attn_mask_probs"):  # as trained
                buffer.zero_()
    return model.to(dtype)


def video(name: str, frames: int, rows: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    """Noise that drifts, and a part of it that changes: (frames, rows, ...)."""
    generator = torch.Generator().manual_seed(3)
    shape = (rows, *CASES[name].size)
    first, drift = (torch.randn(shape, generator=generator) for _ in range(2))
    clip = [first + 0.02 * t * drift for t in range(frames)]
    for t, frame in enumerate(clip):
        frame[..., : 3 + t % 4] += 0.5 * t
    return torch.stack(clip).to(dtype)


def inputs(name: str, rows: int) -> dict[str, Any]:
    return CASES[name].inputs(rows)


def dense(name: str, model: nn.Module, frame: Tensor) -> list[Tensor]:
    """What a model that no stream runs gives."""
    method = getattr(model, CASES[name].method)
    key = "pixel_values_videos" if name == "V-JEPA 2" else "pixel_values"
    call = {} if CASES[name].library != "transformers" else {key: frame}
    args = () if call else (frame,)
    with torch.inference_mode():
        return tensors(method(*args, **call, **inputs(name, len(frame))))


def tensors(output: Any) -> list[Tensor]:
    """The floating-point tensors of an output."""
    found = [x for x in tree_leaves(output) if isinstance(x, Tensor) and x.is_floating_point()]
    assert found
    return found


def pixels(frame: Tensor) -> Tensor:
    """Frames of these models as pictures."""
    return frame.float().mul(0.2).add(0.5).clamp(0, 1)


def stream_of(name: str, model: nn.Module, policy: Any, **options: Any) -> eventful.Stream:
    """A stream on a copy of a model, without scene cuts."""
    model = eventful.convert(copy.deepcopy(model), policy, where=CASES[name].where)
    known = {"pixels": pixels} if CASES[name].patch else {}
    made = {"scene_cuts": None, "method": CASES[name].method, "costs": COSTS, **known} | options
    return eventful.Stream(model, **made)
