"""How many pooled tokens change when r tokens do, on the demo clip.

The spatiotemporal rows of the paper depend on where the chosen tokens lie: a pooled cell of 2 x 2
is updated if any of its four tokens is. ImageNet VID and its weights cannot be shipped, so the
numbers here come from a stand-in for video and gate:

- The clip of `eventful.models.demo_clip`, cropped at its centre to 16:9, the common shape of VID's
  videos, then resized and padded as the paper does. State is reset at its hard cuts.
- Gates choose by the change of pixels: a token's value is its patch at half resolution (8 x 8
  pixels, 3 colours), as any orthogonal embedding of such a patch would have it. A real gate sees
  tokens behind layer norm, and in deeper blocks what attention has mixed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache

from torch import Tensor
from torch.nn import functional

from eventful.block.gate import TokenGate
from eventful.policies import TopR

CUTS = (30, 76, 137, 187, 242)
_PATCH = 8  # half the model's


@cache
def pooled_tokens(size: int, budgets: tuple[int, ...]) -> dict[int, float]:
    """Measure the mean number of updated pooled tokens a frame, first frames left out.

    Args:
        size: Side of the model's square input in pixels, a multiple of 32.
        budgets: Values of r.

    Returns:
        For each r, between r / 4 and min(r, N / 4).

    Raises:
        ModuleNotFoundError: A package of the extra `demo` is missing.

    Example:
        >>> pooled = pooled_tokens(224, (49, 196))
        >>> 49 / 4 < pooled[49] < 49 and pooled[196] == 49
        True
    """
    gate, total, updates = TokenGate(), Counter[int](), 0
    states = {}
    for number, c in enumerate(_frames(size)):
        if number == 0 or number in CUTS:
            states = {r: gate.new_state(c) for r in budgets}
            continue
        updates += 1
        for r, state in states.items():
            index, _ = gate.update(state, c, TopR(r), gate.measure(state, c), flush=[])
            total[r] += pooled_count(index.mask()[0])
    return {r: total[r] / updates for r in budgets}


def pooled_count(mask: Tensor) -> int:
    """Count the 2 x 2 cells of a square grid that hold an updated token.

    Args:
        mask: (tokens,) whether each token is updated; an even number of tokens a line.

    Example:
        >>> import torch
        >>> pooled_count(torch.tensor([True, True, False, False] + [False] * 8 + [True] * 4))
        3
    """
    side = round(len(mask) ** 0.5)
    cells = mask.view(side // 2, 2, side // 2, 2)
    return int(cells.any(dim=3).any(dim=1).sum())


def _frames(size: int) -> Iterator[Tensor]:
    """Yield each frame's tokens, (1, tokens, 192), as the module says."""
    from eventful.models import demo_clip  # noqa: PLC0415 - optional libraries
    from eventful.video import read  # noqa: PLC0415

    half = size // 2
    for frame in read(demo_clip()):
        height = frame.shape[2]
        width = round(height * 16 / 9)
        left = (frame.shape[3] - width) // 2
        cropped = frame[..., left : left + width]
        shape = round(height * half / width), half
        resized = functional.interpolate(cropped, shape, mode="bilinear", antialias=True)
        padded = functional.pad(resized, (0, 0, 0, half - shape[0]))
        patches = padded.unflatten(3, (-1, _PATCH)).unflatten(2, (-1, _PATCH))
        yield patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
