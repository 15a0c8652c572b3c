"""What frame policies find in a model: grid, taps, costs, and which policies work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from eventful import Auto, Carry, FramePolicy, Policy, Skip, Stream, TopR, convert
from eventful.cli.choices import as_option
from eventful.convert import Where

# One of each kind of policy, by what its texts start with.
KINDS: Mapping[str, FramePolicy | Policy] = {
    "error, auto, time, latency": Auto(share=0.5),
    "carry": Carry(2),
    "skip": Skip(2),
    "top, fraction, threshold, all": TopR(1),
}


@dataclass(frozen=True, eq=False)
class Trial:
    """A model whose weights do not matter, and frames to try it with.

    Attributes:
        build: Makes the model, not converted.
        frames: Two frames, as `normalize` and `pixels` say.
        inputs: What else the model takes, by name.
        options: Further arguments of `Stream`, among them the method to run.
        where: Which blocks to convert.
        name: Of the frame among the method's arguments; None for the first one.
    """

    build: Callable[[], nn.Module]
    frames: Sequence[Tensor]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=lambda: {"normalize": True})
    where: Where | None = None
    name: str | None = None

    def dense(self, model: nn.Module) -> None:
        """Run a frame through a model that `build` has made, without a stream."""
        frame = self.frames[0].to(next(model.parameters()).device)
        if self.name is None:
            model(frame)
        else:
            getattr(model, self.options["method"])(**{self.name: frame}, **self.inputs)


def zeroed(model: nn.Module) -> nn.Module:
    """A model on the CPU with weights of zero, which takes no time to make."""
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    return model


def frame_costs(trial: Trial) -> dict[str, Any]:
    """Run two frames under one of each kind of policy.

    How blocks hang together does not depend on weights, so they are zero; nothing is downloaded.

    Returns:
        "policies": for each kind None, or why it does not work; and where `Auto` works "grid",
        "taps", "apart" (blocks that need all tokens) and "costs", in operations.
    """
    model = convert(trial.build(), where=trial.where)
    found: dict[str, Any] = {"policies": {}}
    for kind, policy in KINDS.items():
        try:
            stream = Stream(model, policy=policy, check=False, **trial.options)
            for frame in trial.frames:
                stream(frame, **trial.inputs)
        except (ValueError, RuntimeError) as error:
            found["policies"][kind] = as_option(error)
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
