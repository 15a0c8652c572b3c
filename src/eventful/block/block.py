"""The eventful transformer block: gates and buffers around another block's own submodules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor, nn

from eventful.attention import FORMS, Attention, Incremental, Mapped, Pooling, Windowed
from eventful.block.gate import TokenGate
from eventful.block.options import Options
from eventful.block.state import STAGES, Binding, Grid, Place, Stage
from eventful.ops import Index
from eventful.policies import FramePolicy, Policy


class TokenOperations(NamedTuple):
    """A linear layer as the operation count sees it."""

    inputs: int
    outputs: int
    bias: bool


class EventfulBlock(nn.Module, ABC):
    """A transformer block that recomputes only what changed.

    It takes the place of a pre-norm block and holds that block's submodules under their own names.
    A family's adapter says what the token-wise parts are; `eventful.block.gating` runs them.
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
        frame_policy: FramePolicy | None = None,
        taps: tuple[str, ...] | None = None,
        suffix_tokens: int = 0,
    ) -> None:
        self.account(original, name)
        whole = self.has_grid or prefix_tokens < 1 or suffix_tokens > 0
        if options.sampling is not None and whole:
            raise ValueError(
                f"cannot convert {name} with sampling=...: tokens are chosen by the class token's "
                f"attention, and what is left has no grid; this model has "
                f"{_why_whole(self.has_grid, prefix_tokens)}"
            )
        super().__init__()
        vars(self).update(vars(original))  # the same parameters, submodules and hooks
        self._original = (original,)  # in a tuple: not a submodule, not in the state dict
        self.name = name
        self.prefix_tokens = prefix_tokens
        self.suffix_tokens = suffix_tokens
        self.options = options
        self.default_policies = policies
        self.frame_policy = frame_policy
        self.taps = taps

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The gates that the block has."""
        return tuple(self.default_policies)

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

    @classmethod
    def left_alone(cls, model: nn.Module, name: str) -> str | None:
        """Say why a block of a model is not to be converted although its type is known, if so."""
        return None

    @classmethod
    def special_tokens(cls, model: nn.Module, name: str) -> tuple[int, int]:
        """Count the class, register and other tokens in front of the patches and behind them.

        Those in front are read off the closest module that states them as `num_prefix_tokens`.
        """
        parts = name.split(".")
        for end in range(len(parts), -1, -1):
            count = getattr(model.get_submodule(".".join(parts[:end])), "num_prefix_tokens", None)
            if isinstance(count, int):
                return count, 0
        return 0, 0

    @property
    def final_norms(self) -> tuple[str, ...]:
        """What the model calls the norm that it puts behind its last block."""
        return ("norm",)

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
    def dim(self) -> int:
        """D, the size of a token."""
        return self.linears()["proj"][-1].outputs

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
        raise TypeError(
            f"{type(self).__name__} states a bias_grid and must give its relative_tables too"
        )

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
        name = self.options.attention
        if self.window_size:
            size, keep = self.window_size**2, name == "incremental"
            return Windowed(self.heads, self.scale, fixed, size=size, keep=keep)
        form = FORMS[name]
        if issubclass(form, Mapped):
            return form(self.heads, self.scale, fixed, self.options.half_precision)
        if issubclass(form, Incremental):
            guard, max_age = self.options.guard, self.options.max_age
            return form(self.heads, self.scale, fixed, guard, max_age)
        return form(self.heads, self.scale, fixed)

    @property
    def token_gate(self) -> TokenGate:
        """The gate that the options describe."""
        always = self.options.prefix == "always"
        prefix, suffix = (self.prefix_tokens, self.suffix_tokens) if always else (0, 0)
        return TokenGate(self.options.gate, prefix, self.options.measure, suffix)

    @property
    def updated(self) -> dict[Stage, Index]:
        """The tokens that were updated on a stream's last frame, by operation."""
        if self.binding is None:
            return {}
        if self.options.gating != "input":
            return {stage: gate.index for stage, gate in self.binding.state.gates.items()}
        assert self.binding.frame.index is not None
        return dict.fromkeys(STAGES, self.binding.frame.index)

    @abstractmethod
    def norm_1(self, x: Tensor) -> Tensor:
        """Normalise the input of the attention branch, (..., dim)."""

    @abstractmethod
    def to_qkv(self, c: Tensor, place: Place) -> Tensor:
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

    @property
    def width(self) -> int:
        """Columns of q, k and v."""
        return 3 * self.heads * self.head_dim


def _why_whole(has_grid: bool, prefix_tokens: int) -> str:
    if has_grid:
        return "a grid"
    return "tokens behind the patches" if prefix_tokens else "no class token"


def eventful_blocks(model: nn.Module) -> dict[str, EventfulBlock]:
    """List a converted model's eventful blocks by their path in it, in order."""
    return {path: m for path, m in model.named_modules() if isinstance(m, EventfulBlock)}


def tokens_of(output: Any) -> Tensor:
    """The tokens that a block gives, where some give further values behind them."""
    return output[0] if isinstance(output, tuple) else output
