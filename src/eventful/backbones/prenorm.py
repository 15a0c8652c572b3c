"""Pre-norm blocks over tokens, whatever their parts are called: `layouts` has the names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional

from eventful.backbones.named import NamedBlock, part_of
from eventful.block.gating import run
from eventful.block.state import Place


@final
class PreNormBlock(NamedBlock):
    """Gates a block over tokens (batch, tokens, dim), with rotary positions or without."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Process tokens (batch, tokens, dim), with the signature of the original block."""
        self.check_call(None, False)
        if self.binding is None:
            return self.original.forward(*args, **kwargs)
        x, given = self.read(args, kwargs)
        return self.returned(run(self, x, Place(self._rotation(x, given))))

    def _rotation(self, x: Tensor, given: Mapping[str, Any]) -> Tensor | None:
        """Rotary positions, tokens second: (cos, sin) stacked, or the places of the tokens."""
        if self.family.rotation is None:
            return None
        if self.family.rotation == "own":
            return torch.stack(part_of(self, self.layout.home).get_position_ids(x))
        cosine, sine = (y.flatten(0, -2) for y in given["position_embeddings"])
        still = x.shape[1] - len(cosine)  # tokens in front are not rotated
        front = (0, 0, still, 0)
        return torch.stack([functional.pad(cosine, front, value=1.0), functional.pad(sine, front)])

    def rotate(self, q: Tensor, k: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """Rotate q and k (total, heads, dim) by what `_rotation` gives of their tokens."""
        if place.rope is None:
            return q, k
        assert place.positions is not None
        rope = place.rope[:, place.positions]
        if self.family.rotation == "given":
            cosine, sine = rope[:, :, None]
            return _turned(q, cosine, sine), _turned(k, cosine, sine)
        turn = part_of(self, self.layout.home).apply_rotary_embeddings
        q, k = (turn(x.transpose(0, 1)[None], tuple(rope))[0].transpose(0, 1) for x in (q, k))
        return q, k


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate x (total, heads, dim), whose second half goes with its first."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine
