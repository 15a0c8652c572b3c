"""The eventful transformer block: gates and buffers around another block's own submodules."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from eventful import sampling
from eventful.attention import (
    FORMS,
    Attention,
    AttentionName,
    Bias,
    Keys,
    Mapped,
    Pooling,
    Windowed,
    Windows,
)
from eventful.buffers import TokenBuffer
from eventful.gates import GateKind, TokenGate
from eventful.ops import Index, RelativePositions
from eventful.policies import Policy
from eventful.state import Binding, Frame, Grid, Stage

Gating = Literal["paper"]
Prefix = Literal["always", "gated"]


@dataclass(frozen=True)
class Options:
    """How a block is made eventful.

    Args:
        gating: What a token that is not updated means. "paper": three gates a block; skip
            connections carry fresh inputs, buffers carry what was last computed.
        attention: A key of `eventful.attention.FORMS`.
        gate: "token" or "stgt", see `TokenGate`.
        gate_before_norm: Gate the input of the block's two layer norms instead of their output.
        prefix: "always" updates prefix tokens on every frame beside the policy's choice; "gated"
            lets them compete with the others.
        pooling: Side of the cells that keys and values are averaged over, where attention spans a
            frame whose token grid is known; 1 leaves them as they are.
        sampling: Tokens, prefix included, that the block hands on at most; None hands on all.
        half_precision: Round both factors of attention-value products to float16.

    Raises:
        ValueError: An option is none of these.
    """

    gating: Gating = "paper"
    attention: AttentionName = "incremental"
    gate: GateKind = "token"
    gate_before_norm: bool = False
    prefix: Prefix = "always"
    pooling: int = 1
    sampling: int | None = None
    half_precision: bool = False

    def __post_init__(self) -> None:
        choices = {
            "gating": ("paper",),
            "attention": tuple(FORMS),
            "gate": ("token", "stgt"),
            "gate_before_norm": (False, True),
            "prefix": ("always", "gated"),
            "half_precision": (False, True),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        for name in ("pooling", "sampling"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.half_precision and not issubclass(FORMS[self.attention], Mapped):
            raise ValueError(
                f"half_precision=True rounds the weights A that attention='cached' and 'query_key' "
                f"compute; attention={self.attention!r} holds none"
            )


class TokenOperations(NamedTuple):
    """A linear layer as the operation count sees it."""

    inputs: int
    outputs: int
    bias: bool


class EventfulBlock(nn.Module, ABC):
    """A transformer block that recomputes only what changed.

    It takes the place of a pre-norm block and holds that block's submodules under their own names.
    A family's adapter says what the token-wise parts are; this class runs them:

        b_qkv[J]  <- qkv(norm_1(x)[J])            J  chosen by the gate `qkv`
        o          = attention over b_qkv
        b_proj[J'] <- proj(o[J'])                 J' chosen by the gate `proj`
        x          = x + b_proj
        b_mlp[J"] <- mlp(norm_2(x)[J"])           J" chosen by the gate `mlp`
        x          = x + b_mlp

    Without a stream it is the original block.
    """

    binding: Binding | None = None
    has_grid = False  # whether `run` is told the token grid

    def __init__(
        self,
        original: nn.Module,
        name: str,
        prefix_tokens: int,
        options: Options,
        policies: dict[Stage, Policy],
    ) -> None:
        self.account(original, name)
        if options.sampling is not None and (self.has_grid or prefix_tokens < 1):
            raise ValueError(
                f"cannot convert {name} with sampling=...: tokens are chosen by the class token's "
                f"attention, and what is left has no grid; this model has "
                f"{'a grid' if self.has_grid else 'no class token'}"
            )
        super().__init__()
        vars(self).update(vars(original))  # the same parameters, submodules and hooks
        self._original = (original,)  # in a tuple: not a submodule, not in the state dict
        self.name = name
        self.prefix_tokens = prefix_tokens
        self.options = options
        self.default_policies = policies

    @property
    def original(self) -> nn.Module:
        """The block that this one stands for."""
        return self._original[0]

    @staticmethod
    @abstractmethod
    def account(original: nn.Module, name: str) -> None:
        """Check that `original` holds only what the adapter knows.

        Raises:
            ValueError: It holds something else; the message names it.
        """

    @property
    @abstractmethod
    def heads(self) -> int:
        """H, the number of heads."""

    @property
    @abstractmethod
    def head_dim(self) -> int:
        """d, the size of one head."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """Factor on the scores q . k."""

    @property
    def window_size(self) -> int:
        """Side of the windows that attention stays within; 0 where it spans the frame."""
        return 0

    @property
    def extra_width(self) -> int:
        """Columns that `to_qkv` returns behind q, k, v, for `mix`."""
        return 0

    def bias_grid(self, grid: Grid | None) -> Grid | None:
        """Height and width of the grid of lines that `relative_tables` is for; None without any."""
        return None

    def relative_tables(self, q: Tensor, positions: Tensor, grid: Grid) -> Tensor:
        """Compute the relative positions of queries on the lines and columns of their keys.

        Args:
            q: (total, heads, head_dim).
            positions: (total,) of the queries in the grid, line by line.
            grid: Height and width of the token grid.

        Returns:
            (total, heads, height + width) of `bias_grid`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no relative positions")

    def pooling(self, grid: Grid | None) -> Pooling | None:
        """The cells over which the block averages keys and values, if it does."""
        if self.options.pooling == 1 or self.window_size or grid is None:
            return None
        return Pooling(grid, self.options.pooling)

    def key_grid(self, grid: Grid | None) -> Grid | None:
        """Height and width of the grid of keys that relative positions refer to."""
        lines, pooling = self.bias_grid(grid), self.pooling(grid)
        return pooling.cells if lines and pooling else lines

    def table_width(self, grid: Grid | None) -> int:
        """Columns of the tables of relative positions, all heads', in the QKV buffer.

        Incremental attention buffers them. The other forms compute them for all queries on every
        frame, as the paper counts them.
        """
        lines = self.key_grid(grid)
        buffered = lines and self.options.attention == "incremental"
        return self.heads * sum(lines) if lines and buffered else 0

    def attention_form(self, fixed: bool = False) -> Attention:
        """The attention form that the options name."""
        name, half = self.options.attention, self.options.half_precision
        if self.window_size:
            size, keep = self.window_size**2, name == "incremental"
            return Windowed(self.heads, self.scale, fixed, size=size, keep=keep, half=half)
        form = FORMS[name]
        if issubclass(form, Mapped):
            return form(self.heads, self.scale, fixed, half)
        return form(self.heads, self.scale, fixed)

    @property
    def token_gate(self) -> TokenGate:
        """The gate that the options describe."""
        prefix = self.prefix_tokens if self.options.prefix == "always" else 0
        return TokenGate(self.options.gate, prefix)

    @abstractmethod
    def norm_1(self, x: Tensor) -> Tensor:
        """Normalise the input of the attention branch, (..., dim)."""

    @abstractmethod
    def to_qkv(
        self, c: Tensor, positions: Tensor, rope: Tensor | None, grid: Grid | None
    ) -> Tensor:
        """Project tokens (total, dim) to q, k, v (total, 3 * heads * head_dim), positions applied.

        Columns behind these (`extra_width`) are buffered too, for `mix`.
        """

    @abstractmethod
    def mix(self, o: Tensor, qkv: Tensor) -> Tensor:
        """Turn attention output (batch, tokens, heads * head_dim) into the projection's input."""

    @abstractmethod
    def to_out(self, c: Tensor) -> Tensor:
        """Apply what follows the projection gate up to the skip connection: (total, dim)."""

    @abstractmethod
    def norm_2(self, x: Tensor) -> Tensor:
        """Normalise the input of the MLP branch, (..., dim)."""

    @abstractmethod
    def to_mlp(self, c: Tensor) -> Tensor:
        """Apply what follows the MLP gate up to the skip connection: (total, dim)."""

    @abstractmethod
    def linears(self) -> dict[Stage, list[TokenOperations]]:
        """The linear layers that each gate guards, for the operation count."""

    def check_call(self, attn_mask: Tensor | None, is_causal: bool) -> None:
        """Refuse what an eventful block cannot do.

        Raises:
            ValueError: An attention mask was given.
            RuntimeError: The block is in train mode.
        """
        if attn_mask is not None or is_causal:
            raise ValueError(
                f"{self.name} is eventful and takes no attention mask (attn_mask=None, "
                f"is_causal=False); eventful.restore(model) brings the original block back"
            )
        if self.training and self.binding is None:
            raise RuntimeError(
                f"{self.name} is eventful and in train mode; call model.eval() to run it, or "
                f"eventful.restore(model) to train"
            )

    def run(self, x: Tensor, rope: Tensor | None = None, grid: Grid | None = None) -> Tensor:
        """Process the tokens (batch, tokens, dim) of one frame under the stream's policies.

        Args:
            x: The tokens.
            rope: Rotary positions, as the adapter's `to_qkv` takes them.
            grid: Height and width of the token grid, where windows or relative positions need it.
        """
        assert self.binding is not None
        binding, frame = self.binding, self.binding.frame
        binding.runs += 1
        binding.grid = grid
        first = not binding.state.gates
        if not frame.reached:
            frame.flush = [] if first else self._flush(x)
            frame.reached = True
        later = frame.update if frame.fixed else update
        return (frame.first if first else later)(self, x, rope, grid)

    def _flush(self, x: Tensor) -> list[int]:
        """Ask the stream which rows to flush, given the first gate's reference and input."""
        assert self.binding is not None
        c = x if self.options.gate_before_norm else self.norm_1(x)
        reference = self.binding.state.gates["qkv"].reference
        patches = slice(self.prefix_tokens, None)
        return self.binding.frame.on_first_gate(reference[:, patches], c[:, patches])

    def process(self, x: Tensor, rope: Tensor | None, grid: Grid | None) -> Tensor:
        """Do what `run` says: the equations of this class."""

        def to_qkv(c: Tensor, positions: Tensor) -> Tensor:
            qkv = self.to_qkv(c, positions, rope, grid)
            if not self.table_width(grid):
                return qkv
            assert grid is not None
            return torch.cat([qkv, self._tables(qkv, positions, grid).flatten(1)], dim=1)

        buffer = self._gated("qkv", x, self.norm_1, to_qkv)
        if self.window_size and buffer.slots is None:
            assert grid is not None
            windows = Windows(grid, self.window_size)
            nothing = x.new_zeros(1, x.shape[-1])
            padding = to_qkv(nothing, torch.zeros(1, dtype=torch.int64, device=x.device))
            buffer.reorder(windows.slots(x.device), windows.places, padding[0])
        qkv = buffer.tokens.to(x.dtype)
        c = self.mix(self._attend(buffer, qkv, grid), qkv[..., : self._width + self.extra_width])
        x, c = self._sample(x, c, qkv, rope)
        buffer = self._gated("proj", c, None, lambda c, _: self.to_out(c))
        x = x + buffer.tokens.to(x.dtype)
        buffer = self._gated("mlp", x, self.norm_2, lambda c, _: self.to_mlp(c))
        return x + buffer.tokens.to(x.dtype)

    @property
    def _width(self) -> int:
        """Columns of q, k and v."""
        return 3 * self.heads * self.head_dim

    def _gated(
        self,
        stage: Stage,
        x: Tensor,
        norm: Callable[[Tensor], Tensor] | None,
        f: Callable[[Tensor, Tensor], Tensor],
    ) -> TokenBuffer:
        """b[J] <- f(norm(x)[J]), J chosen by the stage's gate; on the first frame, all tokens."""
        assert self.binding is not None
        inside = norm if norm and self.options.gate_before_norm else None
        c = x if inside or not norm else norm(x)
        buffers, frame = self.binding.state.buffers, self.binding.frame
        index, c_new = self._choose(stage, c)
        new = f(inside(c_new) if inside else c_new, index.positions)
        if stage not in buffers:
            buffers[stage] = TokenBuffer.new(new, len(c), frame.state_dtype or new.dtype)
        else:
            buffers[stage].replace_(index, new, keep=stage == "qkv" or frame.fixed)
        return buffers[stage]

    def _choose(self, stage: Stage, c: Tensor) -> tuple[Index, Tensor]:
        """Let the gate pick J and c[J]: all tokens when there is no state yet."""
        assert self.binding is not None
        gates, frame = self.binding.state.gates, self.binding.frame
        gate = self.token_gate
        if stage not in gates:
            gates[stage] = gate.new_state(c, frame.state_dtype)
            return gates[stage].index, c.flatten(0, 1)
        error = gate.measure(gates[stage], c)
        policy = self.binding.policies[stage]
        return gate.update(gates[stage], c, policy, error, frame.flush, undo=frame.fixed)

    def _attend(self, buffer: TokenBuffer, qkv: Tensor, grid: Grid | None) -> Tensor:
        """Bring attention up to date over q, k, v, the first columns of the buffer."""
        assert self.binding is not None
        state, frame = self.binding.state, self.binding.frame
        form = self.attention_form(frame.bounded)
        bias = self._bias(qkv, grid)
        pooled = self._pool(buffer, qkv, grid)
        if state.attention is None or frame.anew:
            kv = None if pooled is None else pooled.tokens.to(qkv.dtype)
            output, attention = form.start(qkv[..., : self._width], bias, kv)
            if state.attention is not None:
                attention.turn = state.attention.turn
            state.attention = attention
        else:
            assert buffer.index is not None
            assert buffer.before is not None
            old = buffer.before[..., : self._width].to(qkv.dtype)
            keys = None if pooled is None else _keys(pooled, qkv.dtype)
            new = qkv[..., : self._width]
            output = form.update(state.attention, new, old, buffer.index, bias, keys)
        return output if buffer.slots is None else output.index_select(1, buffer.slots)

    def _pool(self, buffer: TokenBuffer, qkv: Tensor, grid: Grid | None) -> TokenBuffer | None:
        """Average keys and values over cells, and write those that hold an updated token."""
        assert self.binding is not None
        pooling, buffers = self.pooling(grid), self.binding.state.buffers
        if pooling is None:
            return None
        kv = pooling.pool(qkv[..., self._width // 3 : self._width])
        if "pooled" not in buffers:
            buffers["pooled"] = TokenBuffer.new(kv.flatten(0, 1), len(kv), buffer.tokens.dtype)
        else:
            assert buffer.index is not None
            index = pooling.index(buffer.index)
            buffers["pooled"].replace_(index, index.gather(kv))
        return buffers["pooled"]

    def _bias(self, qkv: Tensor, grid: Grid | None) -> Bias:
        """The relative positions of all queries, from the buffer or from the queries."""
        lines = self.key_grid(grid)
        if lines is None:
            return None
        assert grid is not None
        if self.table_width(grid):
            table = qkv[..., -self.table_width(grid) :].unflatten(-1, (self.heads, -1))
        else:
            batch, places, _ = qkv.shape
            side = self.window_size
            positions = torch.arange(places, device=qkv.device) % (side**2 or places)
            grid = (side, side) if side else grid
            table = self._tables(qkv.flatten(0, 1), positions.repeat(batch), grid)
            table = table.unflatten(0, (batch, places))
        return RelativePositions(table.transpose(1, 2), lines)

    def _tables(self, qkv: Tensor, positions: Tensor, grid: Grid) -> Tensor:
        """Tables of relative positions (total, heads, lines) of queries (total, ...)."""
        q = qkv[:, : self.heads * self.head_dim].unflatten(1, (self.heads, -1))
        table, pooling = self.relative_tables(q, positions, grid), self.pooling(grid)
        return table if pooling is None else pooling.pool_lines(table)

    def _sample(
        self, x: Tensor, c: Tensor, qkv: Tensor, rope: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Leave out the tokens (batch, tokens, dim) that the class token takes least from."""
        assert self.binding is not None
        kept, state = self.options.sampling, self.binding.state
        if kept is None or kept >= x.shape[1]:
            return x, c
        if rope is not None or kept <= self.prefix_tokens:
            raise ValueError(
                f"{self.name} cannot hand on {kept} tokens: sampling needs more than the "
                f"{self.prefix_tokens} prefix tokens, and a model without rotary positions"
            )
        score = sampling.class_scores(qkv[..., : self._width], self.heads, self.scale)
        slots = sampling.sample(score, kept, self.prefix_tokens, state.kept)
        flush = self.binding.frame.flush
        if state.kept is not None and flush:
            slots[flush] = sampling.sample(score[flush], kept, self.prefix_tokens)
        state.kept = slots
        return sampling.take(x, slots), sampling.take(c, slots)


def _keys(pooled: TokenBuffer, dtype: torch.dtype) -> Keys:
    assert pooled.index is not None
    assert pooled.before is not None
    return Keys(pooled.tokens.to(dtype), pooled.index, pooled.before.to(dtype))


def first_frame(block: EventfulBlock, x: Tensor, rope: Tensor | None, grid: Grid | None) -> Tensor:
    """Run a block on the first frame; what a stream compiles apart from `update`."""
    return block.process(x, rope, grid)


def update(block: EventfulBlock, x: Tensor, rope: Tensor | None, grid: Grid | None) -> Tensor:
    """Run a block on a later frame."""
    return block.process(x, rope, grid)


def eventful_blocks(model: nn.Module) -> dict[str, EventfulBlock]:
    """List a converted model's eventful blocks by their path in it, in order."""
    return {path: m for path, m in model.named_modules() if isinstance(m, EventfulBlock)}


def bound_copy(module: nn.Module, frame: Frame) -> nn.Module:
    """Copy a module tree down to its eventful blocks and bind those to a stream's frame.

    Weights, buffers, hooks and every module without such a block stay shared.
    """
    if not eventful_blocks(module):
        return module
    twin = copy.copy(module)
    twin.training = False
    if isinstance(twin, EventfulBlock):
        twin.binding = Binding(frame, dict(twin.default_policies))
        return twin
    twin._modules = {
        name: child if child is None else bound_copy(child, frame)
        for name, child in module._modules.items()
    }
    return twin
