"""What a stream hands to its blocks: the frame they share, and what each of them remembers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, cast

from torch import Tensor

from eventful.attention import AttentionState
from eventful.buffers import TokenBuffer
from eventful.gates import GateState
from eventful.policies import Policy

Stage = Literal["qkv", "proj", "mlp"]
STAGES: tuple[Stage, ...] = ("qkv", "proj", "mlp")


@dataclass
class Frame:
    """What all blocks of one stream share while a frame passes through them.

    Attributes:
        on_first_gate: Called once a frame, by the first gate and before any state changes, with
            its reference u and its input c, (batch, patch tokens, dim) each; returns the batch
            rows of which every token is to be updated, and may raise.
        flush: These rows; empty until the first gate has been reached.
        reached: Whether any gate has been reached on this frame.
    """

    on_first_gate: Callable[[Tensor, Tensor], list[int]]
    flush: list[int] = field(default_factory=list)
    reached: bool = False

    def enter(self, reference: Tensor, c: Tensor) -> list[int]:
        """Return the rows to flush, asking for them at the first gate."""
        if not self.reached:
            self.flush = self.on_first_gate(reference, c)
            self.reached = True
        return self.flush


@dataclass
class BlockState:
    """Everything one block remembers for one stream; empty before the first frame."""

    gates: dict[Stage, GateState] = field(default_factory=dict)
    buffers: dict[Stage, TokenBuffer] = field(default_factory=dict)
    attention: AttentionState | None = None

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, by name; batch first."""
        named = {f"{stage}.reference": gate.reference for stage, gate in self.gates.items()}
        named |= {f"{stage}.buffer": buffer.tokens for stage, buffer in self.buffers.items()}
        if self.attention is not None:
            named |= {f"attention.{name}": t for name, t in self.attention.tensors.items()}
        return named

    @classmethod
    def from_tensors(cls, named: dict[str, Tensor], turn: int) -> BlockState:
        """Build a state from what `tensors` gave and the attention state's turn."""
        attention = AttentionState(turn=turn)
        state = cls(attention=attention)
        for name, tensor in named.items():
            part, _, kind = name.partition(".")
            if part == "attention":
                attention.tensors[kind] = tensor
            elif kind == "buffer":
                state.buffers[cast(Stage, part)] = TokenBuffer(tensor)
            else:
                state.gates[cast(Stage, part)] = GateState.of(tensor)
        return state


@dataclass
class Binding:
    """Ties a stream's copy of a block to what the stream owns.

    Attributes:
        frame: Shared by all blocks of the stream.
        policies: One for each gate.
        state: What the block remembers.
        runs: How often the block has run, so that a skipped or repeated block is noticed.
    """

    frame: Frame
    policies: dict[Stage, Policy]
    state: BlockState = field(default_factory=BlockState)
    runs: int = 0
