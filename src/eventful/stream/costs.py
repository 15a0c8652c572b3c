"""What each kind of frame costs, so that a policy can weigh one against another."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from eventful.policies import Auto, FramePolicy

Unit = Literal["operations", "ms"]


@dataclass(frozen=True)
class Costs:
    """The cost of a frame of one row, motion and the rest of the model included.

    A partial frame of M tokens costs `partial + M * token`.

    Attributes:
        dense: All tokens.
        carried: None; the last output is moved.
        held: None; the last output as it is.
        partial: A partial frame of no token.
        token: Each of its tokens.
        unit: "operations" (multiply-accumulates) or "ms", measured on this machine.
        back: What it adds that a frame is seen from the dense frame after it too.

    Example:
        >>> costs = Costs(dense=100.0, carried=4.0, held=1.0, partial=6.0, token=0.1)
        >>> costs.of(50), round(costs.share(50), 3), costs.tokens(0.2)
        (11.0, 0.11, 140)
    """

    dense: float
    carried: float
    held: float
    partial: float
    token: float
    unit: Unit = "ms"
    back: float = 0.0

    def of(self, tokens: int) -> float:
        """A frame that computes so many tokens beside the prefix; a carried one for none."""
        return self.partial + tokens * self.token if tokens else self.carried

    def share(self, tokens: int) -> float:
        """The same over a dense frame's cost, at most 1."""
        return min(1.0, self.of(tokens) / self.dense)

    def tokens(self, share: float) -> int:
        """How many tokens a partial frame may compute at a share of a dense frame's cost."""
        return max(0, int((share * self.dense - self.partial) / self.token + 1e-9))

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, for snapshots and manifests."""
        return asdict(self)

    def __str__(self) -> str:
        parts = {"carried": self.carried, "held": self.held}
        shares = ", ".join(
            f"{name} {100 * cost / self.dense:.1f} %" for name, cost in parts.items()
        )
        at = 100 * self.partial / self.dense, 100 * 100 * self.token / self.dense
        size = (
            f"{self.dense:.1f} ms" if self.unit == "ms" else f"{self.dense / 1e9:.2f} G operations"
        )
        return f"dense {size}; {shares}, partial {at[0]:.1f} % and {at[1]:.1f} % for 100 tokens"


def unit_for(policy: FramePolicy) -> Unit:
    """What costs have to be in for a policy."""
    return "operations" if isinstance(policy, Auto) and policy.share is not None else "ms"


def check_costs(policy: FramePolicy, given: Costs | None) -> None:
    """Refuse costs that say nothing about time where a time is to be held."""
    timed = isinstance(policy, Auto) and policy.latency_ms is not None
    if timed and given is not None and given.unit != "ms":
        raise ValueError(f"{policy} needs costs in milliseconds, got costs in {given.unit}")
