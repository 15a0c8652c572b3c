"""The eventful transformer block: gates and buffers around another block's own submodules."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn

from eventful.attention import FORMS, Attention, AttentionName
from eventful.buffers import TokenBuffer
from eventful.gates import GateKind, TokenGate
from eventful.ops import Index
from eventful.policies import Policy
from eventful.state import Binding, Frame, Stage

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

    Raises:
        ValueError: An option is none of these.
    """

    gating: Gating = "paper"
    attention: AttentionName = "incremental"
    gate: GateKind = "token"
    gate_before_norm: bool = False
    prefix: Prefix = "always"

    def __post_init__(self) -> None:
        choices = {
            "gating": ("paper",),
            "attention": tuple(FORMS),
            "gate": ("token", "stgt"),
            "gate_before_norm": (False, True),
            "prefix": ("always", "gated"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")


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

    def __init__(
        self,
        original: nn.Module,
        name: str,
        prefix_tokens: int,
        options: Options,
        policies: dict[Stage, Policy],
    ) -> None:
        self.account(original, name)
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
    def extra_width(self) -> int:
        """Columns that `to_qkv` returns behind q, k, v."""
        return 0

    @property
    def attention_form(self) -> Attention:
        """The attention form that the options name."""
        return FORMS[self.options.attention](self.heads, self.scale)

    @property
    def token_gate(self) -> TokenGate:
        """The gate that the options describe."""
        prefix = self.prefix_tokens if self.options.prefix == "always" else 0
        return TokenGate(self.options.gate, prefix)

    @abstractmethod
    def norm_1(self, x: Tensor) -> Tensor:
        """Normalise the input of the attention branch, (..., dim)."""

    @abstractmethod
    def to_qkv(self, c: Tensor, positions: Tensor, rope: Tensor | None) -> Tensor:
        """Project tokens (total, dim) to q, k, v (total, 3 * heads * head_dim), positions applied.

        Columns behind these are buffered too and reach `mix`.
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

    def run(self, x: Tensor, rope: Tensor | None = None) -> Tensor:
        """Process the tokens (batch, tokens, dim) of one frame under the stream's policies."""
        assert self.binding is not None
        self.binding.runs += 1
        qkv, old, index = self._gated(
            "qkv", x, self.norm_1, lambda c, index: self.to_qkv(c, index.positions, rope)
        )
        c = self.mix(self._attend(qkv, old, index), qkv)
        b, _, _ = self._gated("proj", c, None, lambda c, _: self.to_out(c))
        x = x + b
        b, _, _ = self._gated("mlp", x, self.norm_2, lambda c, _: self.to_mlp(c))
        return x + b

    def _gated(
        self,
        stage: Stage,
        x: Tensor,
        norm: Callable[[Tensor], Tensor] | None,
        f: Callable[[Tensor, Index], Tensor],
    ) -> tuple[Tensor, Tensor, Index]:
        """b[J] <- f(norm(x)[J]); returns b, what stood at J before, and J."""
        assert self.binding is not None
        inside = norm if norm and self.options.gate_before_norm else None
        c = x if inside or not norm else norm(x)
        state = self.binding.state
        index = self._choose(stage, c)
        c_new = index.gather(c)
        new = f(inside(c_new) if inside else c_new, index)
        if stage not in state.buffers:
            state.buffers[stage] = TokenBuffer(new.contiguous().unflatten(0, c.shape[:2]))
            return state.buffers[stage].tokens, new, index
        old = state.buffers[stage].replace_(index, new)
        return state.buffers[stage].tokens, old, index

    def _choose(self, stage: Stage, c: Tensor) -> Index:
        """Let the gate pick this frame's tokens: all of them when there is no state yet."""
        assert self.binding is not None
        gates, frame = self.binding.state.gates, self.binding.frame
        if stage not in gates:
            gates[stage] = self.token_gate.new_state(c)
            frame.reached = True
            return gates[stage].index
        gate, state = self.token_gate, gates[stage]
        flush = frame.enter(state.reference[:, self.prefix_tokens :], c[:, self.prefix_tokens :])
        error = gate.measure(state, c)
        return gate.update(state, c, self.binding.policies[stage], error, flush)

    def _attend(self, qkv: Tensor, old: Tensor, index: Index) -> Tensor:
        """Bring attention up to date over the first three parts of the buffer."""
        assert self.binding is not None
        state = self.binding.state
        width = 3 * self.heads * self.head_dim
        qkv, old = qkv[..., :width], old[..., :width]
        if state.attention is None:
            output, state.attention = self.attention_form.start(qkv)
            return output
        return self.attention_form.update(state.attention, qkv, old, index)


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
