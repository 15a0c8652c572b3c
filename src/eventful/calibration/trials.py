"""Trials: policies run over a clip, beside the dense model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eventful.ops import Index
from eventful.policies import Policy
from eventful.stream import Stream

Policies = Mapping[str, Policy]
Output = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Figures:
    """What policies give and cost on a clip, over the frames that are not computed in full.

    Attributes:
        error: Mean over frames of ||y - y_dense|| / ||y_dense||.
        share: Operations over those of the dense model.
    """

    error: float
    share: float


@dataclass(frozen=True)
class Trial:
    """Policies that were run.

    Attributes:
        policies: One for each gate.
        figures: What they gave.
        seen: What each gate's policy chose by, (frames, tokens): errors of tokens, rows of a batch
            as further frames.
    """

    policies: Policies
    figures: Figures
    seen: Mapping[str, Tensor]


class Trials:
    """Runs policies over one clip.

    Args:
        model: A converted model.
        frames: As `Stream` takes them. Kept, with the dense model's outputs.
        output: Picks the tensor to compare from what the model's method returns.
        normalize: As of `Stream`.
        method: As of `Stream`.

    Raises:
        ValueError: The clip has fewer than two frames, nothing changes in it, or the model is not
            converted.
        TypeError: `output` gives no tensor.
    """

    def __init__(
        self,
        model: nn.Module,
        frames: Iterable[Tensor],
        output: Output,
        normalize: bool,
        method: str,
    ) -> None:
        self._frames = list(frames)
        _check(self._frames)
        self._output = output
        self._new = lambda: Stream(model, normalize=normalize, method=method)
        stream = self._new()
        self.gates = stream.gates
        self._dense = [self._flushed(stream, frame) for frame in self._frames]

    def _flushed(self, stream: Stream, frame: Tensor) -> Tensor:
        stream.reset()
        y = self._output(stream(frame))
        if not isinstance(y, Tensor):
            raise TypeError(
                f"calibration compares tensors, and the model returns a {type(y).__name__}; pass "
                f"output=..., which picks one"
            )
        return y

    def run(self, policies: Policies) -> Trial:
        """Run the clip.

        Raises:
            ValueError: All frames are computed in full, as scene cuts.
        """
        stream, errors, used, dense = self._new(), [], 0, 0
        seen = {name: _Seen(policies[name]) for name in self.gates}
        stream.policy = seen
        for frame, exact in zip(self._frames, self._dense, strict=True):
            y = self._output(stream(frame))
            if stream.stats.flushes[-1].frame == stream.stats.frames - 1:
                continue
            for one in seen.values():
                one.keep()
            errors.append(float((y - exact).norm() / exact.norm()))
            used += stream.stats.operations.total
            dense += stream.stats.dense_operations.total
        if not errors:
            raise ValueError("every frame of this clip is a scene cut; take a clip of one scene")
        figures = Figures(sum(errors) / len(errors), used / dense)
        return Trial(policies, figures, {name: torch.cat(one.kept) for name, one in seen.items()})


class _Seen(Policy):
    """Lets another policy choose, and keeps what it chose by."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.kept: list[Tensor] = []
        self._last: Tensor

    def select(self, error: Tensor) -> Index:
        self._last = error.float().cpu()
        return self.policy.select(error)

    def keep(self) -> None:
        self.kept.append(self._last)


def _check(frames: list[Tensor]) -> None:
    if len(frames) < 2:
        raise ValueError(
            f"calibration needs a clip of at least two frames, got {len(frames)}; some ten to "
            f"thirty will do"
        )
    if all(torch.equal(frame, frames[0]) for frame in frames[1:]):
        raise ValueError(
            "nothing changes in this clip, so that there is nothing to calibrate on; take one in "
            "which something moves"
        )
