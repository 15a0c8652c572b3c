"""How a budget is divided among gates: one price of error for all, and what it buys at each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from eventful.calibration.trials import Trial
from eventful.policies import Policy, Threshold, TopFraction

Kind = Literal["threshold", "top"]


def equally(gates: Sequence[str], share: float) -> dict[str, Policy]:
    """The same share of the tokens at all gates.

    Example:
        >>> equally(["a.qkv", "a.mlp"], 0.25)["a.mlp"]
        TopFraction(f=0.25)
    """
    return dict.fromkeys(gates, TopFraction(share))


def equal_share(trial: Trial) -> float:
    """The share of `equally` in a trial of it."""
    policy = next(iter(trial.policies.values()))
    assert isinstance(policy, TopFraction)
    return policy.f


@dataclass(frozen=True)
class Allocation:
    """Divides a budget by what gates saw, and by what their error is worth.

    Attributes:
        seen: (frames, tokens) errors at each gate, under an equal share.
        share: That share.
        slope: Error of the output saved by an operation at each gate, over the mean of all.
    """

    seen: Mapping[str, Tensor]
    share: float
    slope: Mapping[str, float]

    @classmethod
    def of(cls, equal: Trial, slope: Mapping[str, float]) -> Allocation:
        """Take what gates saw on a trial of an equal share; a gate without a slope has 1."""
        return cls(equal.seen, equal_share(equal), dict.fromkeys(equal.seen, 1.0) | dict(slope))

    def thresholds(self, price: float, weight: float) -> dict[str, float]:
        """The error above which a token is updated, at each gate.

            h = price * q / slope^weight

        q is the error that the equal share of tokens exceeds. With weight 0 and price 1 all gates
        get that share. With weight 1 a token is updated where this saves more of the output's
        error for each operation than a price that is the same for all gates.

        Example:
            >>> import torch
            >>> seen = {"a": torch.tensor([[1.0, 2.0, 3.0, 4.0]]), "b": torch.ones(1, 4)}
            >>> Allocation(seen, 0.5, {"a": 2.0, "b": 0.5}).thresholds(1.0, weight=1.0)
            {'a': 1.0, 'b': 2.0}
        """
        return {
            name: float(f"{price * margin(errors, self.share) / self.slope[name] ** weight:.6g}")
            for name, errors in self.seen.items()
        }

    def policies(self, kind: Kind, price: float, weight: float) -> dict[str, Policy]:
        """Thresholds, or shares as large as that of the tokens that exceed them."""
        levels = self.thresholds(price, weight)
        if kind == "threshold":
            return {name: Threshold(level) for name, level in levels.items()}
        return {name: _as_many(self.seen[name], level) for name, level in levels.items()}


def _as_many(seen: Tensor, level: float) -> TopFraction:
    """The share of a frame's tokens whose error exceeds a level, in the mean: a whole number."""
    tokens = seen.shape[1]
    count = round(float((seen > level).sum(dim=1).float().mean()))
    return TopFraction(min(1.0, round((count + 0.5) / tokens, 6)))


def margin(errors: Tensor, share: float) -> float:
    """The error that a share of all errors (frames, tokens) exceeds; above 0 if any is.

    Example:
        >>> import torch
        >>> margin(torch.tensor([[0.0, 1.0], [4.0, 2.0]]), 0.5)
        1.0
    """
    falling = errors.flatten().sort(descending=True).values
    value = float(falling[min(len(falling) - 1, round(share * len(falling)))])
    positive = falling[falling > 0]
    return value or float(positive[-1] if len(positive) else 1.0)
