"""What frame policies find in a model: grid, taps, costs, and which policies work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from eventful import Auto, Carry, FramePolicy, Policy, Skip, Stream, TopR, convert

# One of each kind of policy, by what its texts start with.
KINDS: Mapping[str, FramePolicy | Policy] = {
    "error, auto, time, latency": Auto(share=0.5),
    "carry": Carry(2),
    "skip": Skip(2),
    "top, fraction, threshold, all": TopR(1),
}


def frame_costs(model: nn.Module, side: int) -> dict[str, Any]:
    """Run two frames under one of each kind of policy.

    How blocks hang together does not depend on weights, so they are zero; nothing is downloaded.

    Args:
        model: Built on no device, not converted.
        side: Of the frames in pixels.

    Returns:
        "policies": for each kind None, or why it does not work; and where `Auto` works "grid",
        "taps", "apart" (blocks that need all tokens) and "costs", in operations.
    """
    model = convert(model.to_empty(device="cpu"))
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    frames = torch.rand(2, 1, 3, side, side)
    found: dict[str, Any] = {"policies": {}}
    for kind, policy in KINDS.items():
        try:
            stream = Stream(model, policy=policy, normalize=True, check=False)
            for frame in frames:
                stream(frame)
        except (ValueError, RuntimeError) as error:
            found["policies"][kind] = str(error)
            continue
        found["policies"][kind] = None
        if isinstance(policy, Auto):
            found |= _layout(stream)
    return found


def _layout(stream: Stream) -> dict[str, Any]:
    layout, costs = stream.layout, stream.costs
    assert layout is not None
    assert costs is not None
    patches = layout.grid[0] * layout.grid[1]
    blocks = list(dict.fromkeys(name.rpartition(".")[0] for name in stream.gates))
    return {
        "tokens": layout.prefix + patches,
        "prefix_tokens": layout.prefix,
        "grid": list(layout.grid),
        "taps": list(layout.taps),
        "apart": [name for name in blocks[1:] if name not in layout.linked],
        "costs": costs.to_dict() | {"partial_eighth": costs.of(max(1, patches // 8))},
    }
