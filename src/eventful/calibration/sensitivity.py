"""How much of the output's error each gate causes, and what it costs to leave less undone there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from eventful.calibration.allocation import equal_share
from eventful.calibration.trials import Figures, Policies, Trial
from eventful.policies import Policy, TopFraction

BOUND = 10.0


class Sensitivity(NamedTuple):
    """What changes when one gate alone lets fewer tokens through.

    Attributes:
        error: Error of the output that is added.
        share: Operations that are saved, over those of the dense model.
        left: Error that the gate leaves undone in addition, a frame.
        tokens: Tokens that it lets through less, a frame.
    """

    error: float
    share: float
    left: float
    tokens: float


def undone(policy: Policy, seen: Tensor) -> tuple[float, float]:
    """What a policy would have left undone of the errors seen, and what it would let through.

    Args:
        policy: Of a gate.
        seen: (frames, tokens) errors at the gate.

    Returns:
        The sum of the errors of tokens not let through, and the number of those that are; means
        over the frames.

    Example:
        >>> import torch
        >>> undone(TopFraction(0.5), torch.tensor([[1.0, 4.0], [2.0, 0.0]]))
        (0.5, 1.0)
    """
    chosen = policy.select(seen).mask()
    return float((seen * ~chosen).sum(dim=1).mean()), float(chosen.float().sum(dim=1).mean())


def sensitivities(start: Trial, trial_of: Callable[[Policies], Trial]) -> dict[str, Sensitivity]:
    """Let every gate in turn let half as many tokens through, and twice as many where it is one.

    The others let through what they did, since it is there that the answer is wanted: alone, with
    all others exact, gates matter otherwise than together (docs/calibrate.md).

    Args:
        start: All gates let the same share of tokens through.
        trial_of: Runs policies.

    Returns:
        Those of the gates that have a choice.
    """
    found, share = {}, equal_share(start)
    for name, seen in start.seen.items():
        factor = 0.5 if share * seen.shape[1] >= 2 else 2.0
        policy = TopFraction(min(1.0, share * factor))
        left, passed = undone(start.policies[name], seen)
        more_left, fewer = undone(policy, seen)
        if passed == fewer:
            continue
        trial = trial_of({**start.policies, name: policy})
        found[name] = Sensitivity(
            error=trial.figures.error - start.figures.error,
            share=start.figures.share - trial.figures.share,
            left=more_left - left,
            tokens=passed - fewer,
        )
    return found


def slopes(found: Mapping[str, Sensitivity]) -> dict[str, float]:
    """Error of the output that an operation saves at each gate, over the mean of all gates.

    Where fewer tokens lower the error, as among stale ones they may, a gate adds nothing to the
    mean. Slopes are bounded, since a short clip says little of the extremes.

    Returns:
        One for each gate; none at all where no gate saves any error.

    Example:
        >>> slopes({"a": Sensitivity(0.4, 0.1, 1.0, 1.0), "b": Sensitivity(0.4, 0.2, 1.0, 1.0),
        ...         "c": Sensitivity(-0.1, 0.1, 1.0, 1.0)})
        {'a': 2.0, 'b': 1.0, 'c': 0.1}
    """
    raw = {name: one.error / one.share for name, one in found.items() if one.share}
    mean = sum(max(0.0, slope) for slope in raw.values()) / max(1, len(raw))
    if not mean:
        return {}
    return {name: min(BOUND, max(1 / BOUND, slope / mean)) for name, slope in raw.items()}


def predict(start: Trial, found: Mapping[str, Sensitivity], policies: Policies) -> Figures:
    """Add up what gates do alone: error goes with what is left undone, cost with what is not."""
    error, share = start.figures.error, start.figures.share
    for name, one in found.items():
        left, passed = undone(start.policies[name], start.seen[name])
        more_left, fewer = undone(policies[name], start.seen[name])
        error += one.error * (more_left - left) / one.left if one.left else 0.0
        share -= one.share * (passed - fewer) / one.tokens
    return Figures(max(0.0, error), max(0.0, share))
