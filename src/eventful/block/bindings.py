"""A stream's blocks seen together: what is bound to them, by the names of blocks and gates."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from eventful.attention import Windows
from eventful.block.block import EventfulBlock
from eventful.block.gate import GateState
from eventful.block.state import Binding
from eventful.policies import Policy

Blocks = Mapping[str, EventfulBlock]


def binding(block: EventfulBlock) -> Binding:
    """What ties a stream's copy of a block to the stream."""
    assert block.binding is not None
    return block.binding


def windows_of(block: EventfulBlock) -> Windows | None:
    """The windows that a stream's block attends within, if it does, once its grid is known."""
    grid = None if block.binding is None else block.binding.grid
    return Windows(grid, block.window_size) if block.window_size and grid else None


def policies(blocks: Blocks) -> dict[str, Policy]:
    """The policy of every gate."""
    return {
        f"{name}.{stage}": binding(block).policies[stage]
        for name, block in blocks.items()
        for stage in block.stages
    }


def set_policies(blocks: Blocks, chosen: Mapping[str, Policy]) -> None:
    """Give gates their policies, from the next choice on."""
    for name, policy in chosen.items():
        block, _, stage = name.rpartition(".")
        binding(blocks[block]).policies[stage] = policy  # type: ignore[index]


def gate_states(blocks: Blocks) -> list[GateState]:
    """What all gates remember, in order."""
    states = [binding(block).state for block in blocks.values()]
    return [gate for state in states for gate in state.gates.values()]


def state_bytes(blocks: Blocks) -> int:
    """Memory of all that is remembered."""
    states = [binding(block).state for block in blocks.values()]
    return sum(tensor.nbytes for state in states for tensor in state.tensors().values())


def choices(blocks: Blocks) -> dict[str, int]:
    """How many tokens each gate's policy chooses from; a gate is known from its first frame on."""
    return {
        f"{name}.{stage}": gate.reference.shape[1] - block.token_gate.always
        for name, block in blocks.items()
        for stage, gate in binding(block).state.gates.items()
    }


def check_policies(
    policies: Mapping[str, Policy], choices: Mapping[str, int], like: Tensor, fixed: bool
) -> None:
    """Let every policy choose once, so that one that does not fit fails before any change.

    Args:
        policies: One for each gate.
        choices: How many tokens each chooses from.
        like: Any tensor on the device and of the dtype of the state.
        fixed: Whether each must let through a fixed number, as compiled blocks need it.

    Raises:
        ValueError: A policy does not fit.
    """
    for name, policy in policies.items():
        policy.select(like.new_zeros(1, choices[name]))
        if fixed and policy.count(choices[name]) is None:
            raise ValueError(
                f"compile=True needs policies that update a fixed number of tokens, such as "
                f"TopR(256) or TopFraction(0.25); {name} has {policy}"
            )
