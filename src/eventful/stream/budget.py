"""Budgets that can be moved: policies as one number, and what a budget leaves undone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from eventful.block import bindings
from eventful.block.bindings import Blocks
from eventful.policies import Policy, Threshold, TopFraction, TopR

_KINDS = (TopR, TopFraction, Threshold)


class Budget:
    """Policies of one kind that move together: the first gate's number leads, others keep pace.

    Args:
        policies: One for each gate, the first gate's first.

    Raises:
        ValueError: They are of several kinds, of one that has no number to move, or the number
            is 0, which no factor changes.

    Example:
        >>> Budget({"a.qkv": TopR(4), "a.mlp": TopR(2)}).at(6, 0.0, {"a.qkv": 9, "a.mlp": 9})
        {'a.qkv': TopR(r=6), 'a.mlp': TopR(r=3)}
    """

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        self.policies = dict(policies)
        self._numbers = {name: _number(policy) for name, policy in policies.items()}
        kinds = {type(policy) for policy in policies.values()}
        if len(kinds) > 1:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise ValueError(
                f"max_error and latency_ms move all gates together, so their policies must be of "
                f"one kind; these are of several: {names}"
            )
        self.kind = kinds.pop()

    def start(self, errors: Tensor) -> int:
        """How many tokens the policy itself lets through the first gate, in the busiest row."""
        return max(next(iter(self.policies.values())).select(errors).counts)

    def at(self, count: int, level: float, choices: Mapping[str, int]) -> dict[str, Policy]:
        """The policies that let so many tokens through the first gate.

        Args:
            count: Tokens of the first gate.
            level: An error that so many tokens exceed, for thresholds.
            choices: How many tokens each gate has to choose from.
        """
        first = next(iter(self._numbers))
        value = {TopR: count, TopFraction: (count + 0.5) / choices[first], Threshold: level}
        factor = value[self.kind] / self._numbers[first]
        return {
            name: self._policy(number * factor, choices[name])
            for name, number in self._numbers.items()
        }

    def _policy(self, number: float, tokens: int) -> Policy:
        if self.kind is TopR:
            return TopR(min(tokens, max(1, round(number))))
        return TopFraction(min(1.0, number)) if self.kind is TopFraction else Threshold(number)


def _number(policy: Policy) -> float:
    if type(policy) not in _KINDS:
        raise ValueError(
            f"max_error and latency_ms move a policy's number: TopR, TopFraction or Threshold; "
            f"{policy!r} has none that can be moved"
        )
    (field,) = dataclasses.fields(policy)  # type: ignore[arg-type]
    number = float(getattr(policy, field.name))
    if number == 0:
        raise ValueError(
            f"max_error and latency_ms need a policy above 0 to start at, got {policy}"
        )
    return number


def left_undone(reference: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Say what the first gate leaves undone for every number of tokens that it lets through.

        left[k] = sqrt(sum of ||u - c||^2 over all but the k + 1 tokens of the largest) / ||c||

    Args:
        reference: u (batch, tokens, dim).
        c: (batch, tokens, dim).

    Returns:
        `left` (batch, tokens), falling, and the tokens' errors (batch, tokens), falling.

    Example:
        >>> u = torch.tensor([[[1.0], [4.0], [6.0]]])
        >>> left_undone(u, torch.tensor([[[4.0], [0.0], [6.0]]]))[1]
        tensor([[4., 3., 0.]])
    """
    squares = (reference - c).float().square().sum(dim=2).sort(dim=1, descending=True).values
    behind = squares.flip(1).cumsum(1).flip(1) - squares
    behind[:, -1] = 0
    size = c.float().square().sum(dim=(1, 2)).clamp_min(torch.finfo(torch.float32).tiny)
    return (behind.clamp_min(0) / size[:, None]).sqrt(), squares.sqrt()


def held_back(blocks: Blocks) -> list[float]:
    """Measure what the last frame held back at the projection gates, behind attention.

        sqrt(sum over blocks of sum of ||u - c||^2 over tokens not let through / ||u||^2)

    Of all gates' errors this follows the error of the output best: nearly in proportion, with a
    factor that hardly depends on the video or on how old the state is (docs/targets.md). Where
    there are no such gates, all gates are summed over.

    Returns:
        One number a batch row.
    """
    gates = [
        gate
        for block in blocks.values()
        for stage, gate in bindings.binding(block).state.gates.items()
        if stage == "proj"
    ] or bindings.gate_states(blocks)
    total = torch.zeros(gates[0].error.shape[0], device=gates[0].error.device)
    for gate in gates:
        missed = (gate.error.float().square() * ~gate.index.mask()).sum(dim=1)
        size = gate.reference.float().square().sum(dim=(1, 2))
        total += missed / size.clamp_min(torch.finfo(torch.float32).tiny)
    return total.sqrt().tolist()


def floating(output: Any) -> Iterator[Tensor]:
    """List the floating-point tensors of an output: nested in mappings, sequences, dataclasses."""
    if isinstance(output, Tensor):
        yield from [output] if output.is_floating_point() else []
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from floating(part)
    elif isinstance(output, list | tuple):
        for part in output:
            yield from floating(part)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for field in dataclasses.fields(output):
            yield from floating(getattr(output, field.name))


def check_output(output: Any) -> None:
    """See that there is something to measure an error of.

    Raises:
        ValueError: The output holds no floating-point tensor.
    """
    if next(floating(output), None) is None:
        raise ValueError(
            f"max_error=... compares floating-point tensors, and the model's method returns none "
            f"(it returned {type(output).__name__}); choose another with Stream(..., method=...)"
        )


def relative_errors(output: Any, exact: Any, batch: int) -> list[float]:
    """Compare an output with the exact one: the largest ||y - y_exact|| / ||y_exact|| of a row.

    Norms are over all but the first axis where that is the batch, otherwise over the whole tensor,
    which then stands for every row. Of several tensors the one of the largest error counts.

    Returns:
        One number a batch row.

    Example:
        >>> y = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> relative_errors({"a": y * 1.5, "n": 3}, {"a": y, "n": 3}, batch=2)
        [0.5, 0.5]
    """
    worst = torch.zeros(batch, dtype=torch.float64)
    for y, expected in zip(floating(output), floating(exact), strict=True):
        rows = batch if y.ndim and len(y) == batch else 1
        gap = (y.float() - expected.float()).reshape(rows, -1).norm(dim=1)
        size = expected.float().reshape(rows, -1).norm(dim=1)
        error = (gap / size.clamp_min(torch.finfo(torch.float32).tiny)).double().cpu()
        worst = torch.maximum(worst, error)
    return worst.tolist()
