"""Sequences of q, k, v as attention sees them in a stream: drawn at random, or recorded."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from eventful.bench.case import Setup, UnavailableError
from eventful.convert import convert
from eventful.ops import Index
from eventful.policies import Policy, TopR
from eventful.stream import Stream

STEPS = 8  # different updates before a sequence runs backwards
HEADS, DIM = 12, 64


@dataclass(frozen=True)
class Update:
    """One step of a sequence: the updated tokens and their new q, k, v (total, 3 * heads * dim)."""

    index: Index
    new: Tensor


@dataclass
class Sequence:
    """A buffer of q, k, v and the updates that are written into it, there and back without end.

    Every step changes tokens, since behind the last update the old values come back, last first.

    Attributes:
        qkv: (1, tokens, 3 * heads * dim), as of the latest step.
        old: What the latest step overwrote.
        index: Where.
    """

    qkv: Tensor
    updates: list[Update]
    old: Tensor
    index: Index

    @classmethod
    def of(cls, qkv: Tensor, forward: list[Update]) -> Sequence:
        """Begin with a whole buffer; `forward` are the updates on the way there."""
        back, now = [], qkv.clone()
        for update in forward:
            back.append(Update(update.index, update.index.gather(now).clone()))
            update.index.scatter_(now, update.new)
        return cls(qkv.clone(), forward + back[::-1], back[0].new, back[0].index)

    def advance(self, step: int) -> None:
        """Write the next update; steps must come in order."""
        update = self.updates[step % len(self.updates)]
        self.index, self.old = update.index, update.index.gather(self.qkv).clone()
        self.index.scatter_(self.qkv, update.new)


Source = Callable[[int, int, Setup], Sequence]


def random_sequence(tokens: int, active: int, setup: Setup) -> Sequence:
    """Draw 12 heads of 64 from a normal distribution, and other tokens to update on every step."""
    draw = torch.Generator().manual_seed(0)
    width = 3 * HEADS * DIM

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).to(setup.device, setup.dtype)

    updates = []
    for _ in range(STEPS):
        positions = torch.randperm(tokens, generator=draw)[None, :active].to(setup.device)
        updates.append(Update(Index.from_positions(positions, tokens), normal(active, width)))
    return Sequence.of(normal(1, tokens, width), updates)


def recorded_sequence(tokens: int, active: int, setup: Setup) -> Sequence:
    """Record q, k, v from the demo's backbone over frames of `vtest`.

    Its blocks have 6 heads each, so those of blocks 0 and 1 are put side by side; the gate of
    block 1 lets the tokens of block 0 through, so that one index set belongs to both. (Block 0 is
    where rows put most of their mass on few keys.) The class token is updated on every frame: it
    is one of `active`, and comes in addition to `tokens`.

    Raises:
        UnavailableError: $EVENTFUL_DATA does not name the folder with vtest/vtest.avi.
    """
    from eventful.models import saliency_vit  # noqa: PLC0415 - optional libraries
    from eventful.video import Reader  # noqa: PLC0415

    path = vtest()
    side = 14 * round(tokens**0.5)
    model = saliency_vit(side).backbone.to(setup.device, setup.dtype)
    leader = Leader(active - 1)
    convert(model, {"*": TopR(active - 1), "blocks.0.qkv": leader, "blocks.1.qkv": Same(leader)})
    stream = Stream(model, normalize=True, scene_cuts=None, method="forward_features")
    qkv, updates = torch.empty(0), []
    with Reader(path, side) as reader:
        for i, frame in enumerate(itertools.islice(reader, STEPS + 1)):
            stream(frame.image)
            if i == 0:
                qkv = _stacked(stream)
                continue
            index = leader.index.after_prefix(1)
            updates.append(Update(index, index.gather(_stacked(stream)).clone()))
    return Sequence.of(qkv, updates)


def vtest() -> Path:
    """The recorded clip.

    Raises:
        UnavailableError: It is not there.
    """
    root = os.environ.get("EVENTFUL_DATA")
    path = Path(root or ".") / "vtest" / "vtest.avi"
    if root is None or not path.is_file():
        found = "it is not set" if root is None else f"there is no {path}"
        raise UnavailableError(
            f"recorded q, k, v need EVENTFUL_DATA to name a folder that holds vtest/vtest.avi; "
            f"{found}"
        )
    return path


def _stacked(stream: Stream) -> Tensor:
    """The q, k, v buffers of the first two blocks as one, head by head."""
    tensors = stream.snapshot()["engine"]["tensors"]
    buffers = [tensors[f"blocks.{i}"]["qkv.buffer"].unflatten(-1, (3, -1)) for i in (0, 1)]
    return torch.cat(buffers, dim=-1).flatten(2)


class Leader(Policy):
    """Top-r, remembering what it chose last."""

    def __init__(self, r: int) -> None:
        self._top = TopR(r)
        self.index = Index.everything(1, 0)

    def select(self, error: Tensor) -> Index:
        """Choose the r largest errors."""
        self.index = self._top.select(error)
        return self.index


class Same(Policy):
    """Chooses what another policy chose last."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader

    def select(self, error: Tensor) -> Index:
        """Repeat the leader's choice."""
        return self._leader.index
