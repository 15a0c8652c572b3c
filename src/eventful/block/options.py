"""How a block is made eventful."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eventful.attention import FORMS, AttentionName, Mapped
from eventful.block.gate import MEASURES, GateKind, Measure

Gating = Literal["paper", "hold", "input"]
Prefix = Literal["always", "gated"]


@dataclass(frozen=True)
class Options:
    """How a block is made eventful.

    Args:
        gating: What a token that is not updated means. "paper": three gates a block; skip
            connections carry fresh inputs, buffers carry what was last computed. "hold": the same,
            and the token keeps its old input in the skip connection too. "input": the first block's
            gate picks tokens for all blocks, and the others keep everything.
        attention: A key of `eventful.attention.FORMS`.
        gate: "token" or "stgt", see `TokenGate`.
        gate_before_norm: Gate the input of the block's two layer norms instead of their output.
        measure: By what a gate's policy picks tokens, see `TokenGate`.
        prefix: "always" updates prefix tokens on every frame beside the policy's choice; "gated"
            lets them compete with the others.
        pooling: Side of the cells that keys and values are averaged over, where attention spans a
            frame whose token grid is known; 1 leaves them as they are.
        sampling: Tokens, prefix included, that the block hands on at most; None hands on all.
        half_precision: Round both factors of attention-value products to float16, where attention
            spans the frame; within windows the paper leaves them as they are.
        guard: Share of its peak mass below which incremental attention computes a row anew, see
            `Incremental`; None picks it by dtype.
        max_age: Frames within which incremental attention computes every row anew; None never
            does.

    Raises:
        ValueError: An option is none of these.
    """

    gating: Gating = "paper"
    attention: AttentionName = "incremental"
    gate: GateKind = "token"
    gate_before_norm: bool = False
    measure: Measure = "error"
    prefix: Prefix = "always"
    pooling: int = 1
    sampling: int | None = None
    half_precision: bool = False
    guard: float | None = None
    max_age: int | None = 256

    def __post_init__(self) -> None:
        choices = {
            "gating": ("paper", "hold", "input"),
            "attention": tuple(FORMS),
            "gate": ("token", "stgt"),
            "gate_before_norm": (False, True),
            "measure": MEASURES,
            "prefix": ("always", "gated"),
            "half_precision": (False, True),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        for name in ("pooling", "sampling", "max_age"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.guard is not None and not 0 < self.guard <= 1:
            raise ValueError(f"guard must lie above 0 and be at most 1, got {self.guard!r}")
        if self.gating == "input":
            self._check_one_gate()
        if self.attention != "incremental" and (self.guard, self.max_age) != (None, 256):
            raise ValueError(
                f"guard and max_age say which rows attention='incremental' computes anew; "
                f"attention={self.attention!r} keeps no row's mass"
            )
        if self.half_precision and not issubclass(FORMS[self.attention], Mapped):
            raise ValueError(
                f"half_precision=True rounds the weights A that attention='cached' and 'query_key' "
                f"compute; attention={self.attention!r} holds none"
            )

    def _check_one_gate(self) -> None:
        """Refuse what is defined for three gates a block alone."""
        alone = {"attention": "incremental", "pooling": 1, "sampling": None}
        for name, value in alone.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"gating='input' computes updated tokens alone, over all keys; it takes "
                    f"{name}={value!r} only, got {getattr(self, name)!r}"
                )
