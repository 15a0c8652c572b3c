"""What a stream hands to its blocks: the frame they share, and what each of them remembers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from eventful.attention import AttentionState, Seats, Windows
from eventful.block.buffer import TokenBuffer
from eventful.block.gate import GateState
from eventful.ops import Index
from eventful.policies import Policy

Stage = Literal["qkv", "proj", "mlp"]
STAGES: tuple[Stage, ...] = ("qkv", "proj", "mlp")
Grid = tuple[int, int]


class Place(NamedTuple):
    """Where tokens stand.

    Attributes:
        rope: Rotary positions of the whole frame, as the adapter's `to_qkv` takes them.
        grid: Height and width of the token grid, where windows or relative positions need it.
        positions: (total,) each token's place in its row; None for all tokens in order.
    """

    rope: Tensor | None = None
    grid: Grid | None = None
    positions: Tensor | None = None

    def at(self, positions: Tensor) -> Place:
        """The same frame, other tokens."""
        return self._replace(positions=positions)


class KeysValues(NamedTuple):
    """Keys and values of tokens, by head, so that a runtime can read a row where it lies.

    Attributes:
        k: (rows, heads, tokens, head_dim), as a rule.
        v: The same.
    """

    k: Tensor
    v: Tensor

    def to(self, dtype: torch.dtype | None) -> KeysValues:
        """In another dtype, if one is given."""
        return KeysValues(self.k.to(dtype), self.v.to(dtype))

    def copy(self) -> KeysValues:
        """In memory of their own."""
        return KeysValues(self.k.clone(), self.v.clone())

    def row(self, row: int) -> KeysValues:
        """One row of them, as a batch of one."""
        return KeysValues(self.k[row : row + 1], self.v[row : row + 1])

    def rows(self, rows: Tensor) -> KeysValues:
        """Copies of some rows."""
        return KeysValues(self.k.index_select(0, rows), self.v.index_select(0, rows))

    @classmethod
    def joined(cls, rows: Sequence[KeysValues]) -> KeysValues:
        """Copies of some, row after row."""
        return cls(torch.cat([kv.k for kv in rows]), torch.cat([kv.v for kv in rows]))

    def split(self, count: int) -> list[KeysValues]:
        """What `joined` joined of so many."""
        return [KeysValues(*parts) for parts in zip(*(x.chunk(count) for x in self), strict=True)]

    def copy_(self, other: KeysValues) -> None:
        """Write others over all of them."""
        for kept, values in zip(self, other, strict=True):
            kept.copy_(values)

    def write_(self, places: Tensor, new: KeysValues) -> None:
        """Write others over those at some places.

        Args:
            places: (total,), counted through all rows.
            new: (total, heads, head_dim) each.
        """
        tokens = self.k.shape[2]
        row, token = places.div(tokens, rounding_mode="floor"), places % tokens
        for kept, values in zip(self, new, strict=True):
            kept.transpose(1, 2)[row, token] = values.to(kept.dtype)


Step = Callable[[Any, Tensor, Place], Tensor]


@dataclass
class Pass:
    """The chosen tokens of one frame on their way through all blocks of a stream.

    Attributes:
        index: The tokens to compute: all of a dense row, none of a carried or held one. None
            stands for all of a first frame, whose number is known in the first block.
        keep: Keep keys and values for frames on which only some tokens are computed.
        linked: Blocks that take the output of the block before as it is.
        shown: What readers of a tap see, (batch, tokens, dim) by the tap's name; computed tokens
            are written over it.
        taps: Blocks whose whole output is wanted in `outputs`; None for all.
        state_dtype: What keys and values are kept in; None keeps them as they come.
        stale: (tokens,) of a single row, whose kept keys and values must not be written: -inf at
            the chosen tokens, 0 elsewhere. None to write theirs over those kept.
        seats: Where the chosen tokens sit in windows, once a block with such windows has asked.
        beside: For each row, the keys and values (1, heads, tokens, dim) by block that its chosen
            tokens attend to, theirs in the place of the kept ones; nothing is written. None for
            the stream's own, which are.
        each: The same, of rows that are of several streams: theirs are written over those kept.
        new: With `stale`, the chosen tokens' (total, heads, head_dim) keys and values, by block.
        tokens: (total, dim) the chosen tokens between two blocks.
        inputs: What each block was handed, where all taps are wanted.
        outputs: Outputs (batch, tokens, dim) of a frame of which every token is computed.
    """

    index: Index | None = None
    keep: bool = False
    linked: frozenset[str] = frozenset()
    shown: dict[str, Tensor] = field(default_factory=dict)
    taps: frozenset[str] | None = None
    state_dtype: torch.dtype | None = None
    stale: Tensor | None = None
    beside: Sequence[Mapping[str, KeysValues]] | None = None
    each: Sequence[Mapping[str, KeysValues]] | None = None
    new: dict[str, KeysValues] = field(default_factory=dict)
    tokens: Tensor | None = None
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    seats: dict[Windows, Seats] = field(default_factory=dict, init=False)

    def seats_in(self, windows: Windows) -> Seats:
        """Where the chosen tokens sit in some windows; made once for all blocks that have them."""
        assert self.index is not None
        if windows not in self.seats:
            self.seats[windows] = windows.seats(self.index)
        return self.seats[windows]

    def note(self, name: str, x: Tensor, y: Tensor) -> None:
        """Take note of what a block took and gave.

        An output that is wanted is copied, since the model may write to it; those of all blocks
        are noted as they are, to be compared with what the next block takes.
        """
        if self.taps is None:
            self.inputs[name], self.outputs[name] = x, y
        elif name in self.taps:
            self.outputs[name] = y.clone()


@dataclass
class Frame:
    """What all blocks of one stream share while a frame passes through them.

    Attributes:
        first: Runs a block on the first frame: (block, tokens, place) to tokens.
        update: Runs a block on later frames that are `fixed`. On others it is not compiled: where
            some rows are flushed, shapes depend on values.
        state_dtype: What references and buffers are kept in; None keeps them as they come.
        on_first_gate: Called once a frame, by the first gate and before any state changes, with
            its reference u and its input c, (batch, patch tokens, dim) each; returns the batch
            rows of which every token is to be updated, and may raise.
        fixed: Updates have fixed shapes, look at nothing that only the device knows, and can be
            undone.
        bounded: Attention does a fixed amount of work too, which may turn out too small.
        anew: Compute attention in full from the buffers, into new state.
        flush: Rows of which every token is updated on this frame.
        reached: Whether the first gate has been reached on this frame.
        index: What the first gate let through, where it is the only one.
        work: The pass, under a frame policy; no gate is asked then.
        seen: The first gate's input, once it has been computed for `on_first_gate`.
    """

    first: Step
    update: Step
    state_dtype: torch.dtype | None = None
    on_first_gate: Callable[[Tensor, Tensor], list[int]] = lambda reference, c: []
    fixed: bool = False
    bounded: bool = False
    anew: bool = False
    flush: list[int] = field(default_factory=list)
    reached: bool = False
    index: Index | None = None
    work: Pass | None = None
    seen: Tensor | None = None


@dataclass
class BlockState:
    """Everything one block remembers for one stream; empty before the first frame.

    Attributes:
        gates: By stage.
        buffers: By stage, and "pooled": keys and values averaged over cells, where they are.
        attention: What the attention form remembers.
        kept: (batch, kept) the tokens that the block hands on, where it does not hand on all.
        kv: Under a frame policy, of all tokens; windows are rows of their own.
    """

    gates: dict[Stage, GateState] = field(default_factory=dict)
    buffers: dict[Stage | Literal["pooled"], TokenBuffer] = field(default_factory=dict)
    attention: AttentionState | None = None
    kept: Tensor | None = None
    kv: KeysValues | None = None

    @property
    def tokens(self) -> int:
        """N, the tokens of a frame that reach the block."""
        return self._whole.shape[1]

    @property
    def rows(self) -> int:
        """Batch rows that reach the block."""
        return len(self._whole)

    @property
    def _whole(self) -> Tensor:
        """(batch, tokens, dim) something kept of all tokens, under a token policy."""
        gate = self.gates.get("qkv")
        return self.buffers["mlp"].tokens if gate is None else gate.reference

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, by name; batch first, except for the order of windows."""
        named = {
            f"{stage}.{name}": tensor
            for stage, gate in self.gates.items()
            for name, tensor in gate.tensors().items()
        }
        for stage, buffer in self.buffers.items():
            named[f"{stage}.buffer"] = buffer.tokens
            if buffer.slots is not None:
                named[f"{stage}.slots"] = buffer.slots
        if self.attention is not None:
            named |= {f"attention.{name}": t for name, t in self.attention.tensors.items()}
        if self.kv is not None:
            named |= self.kv._asdict()
        if self.kept is not None:
            named["kept"] = self.kept
        return named

    def undo_(self) -> None:
        """Take the last frame's writes to references and buffers back, where they were kept."""
        for part in (*self.gates.values(), *self.buffers.values()):
            part.undo_()

    def forget_undo(self) -> None:
        """Let go of what `undo_` needs."""
        for part in (*self.gates.values(), *self.buffers.values()):
            part.before = None

    @classmethod
    def from_tensors(cls, named: dict[str, Tensor], turn: int) -> BlockState:
        """Build a state from what `tensors` gave and the attention state's turn."""
        if "mlp.buffer" not in named:
            return cls(kv=KeysValues(named["k"], named["v"]) if "k" in named else None)
        device = next(iter(named.values())).device
        nothing = (0,) * len(named["mlp.buffer"])  # was done on the last frame
        attention = AttentionState(
            turn=torch.tensor(turn, device=device), corrected=nothing, planned=nothing
        )
        attention.overflow = attention.overflow.to(device)
        state = cls(kept=named.get("kept"))
        for name, tensor in named.items():
            part, _, kind = name.partition(".")
            if part == "attention":
                attention.tensors[kind] = tensor
                state.attention = attention
            elif kind == "buffer":
                state.buffers[cast(Stage, part)] = TokenBuffer(tensor, named.get(f"{part}.slots"))
            elif kind == "reference":
                more = named.get(f"{part}.size"), named.get(f"{part}.age")
                state.gates[cast(Stage, part)] = GateState.of(tensor, *more)
        return state


@dataclass
class Binding:
    """Ties a stream's copy of a block to what the stream owns.

    Attributes:
        frame: Shared by all blocks of the stream.
        policies: One for each gate.
        state: What the block remembers.
        grid: Height and width of the block's token grid, where it was told.
        runs: How often the block has run, so that a skipped or repeated block is noticed.
    """

    frame: Frame
    policies: dict[Stage, Policy]
    state: BlockState = field(default_factory=BlockState)
    grid: Grid | None = None
    runs: int = 0
