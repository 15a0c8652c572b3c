"""Token gates by hand, over several frames."""

from dataclasses import dataclass, field

import pytest
import torch

from eventful.block.gate import TokenGate
from eventful.ops import Index
from eventful.policies import KeepAll, Policy, Threshold, TopR


def run(gate, state, c, policy, flush=()):
    """One frame; returns the positions let through, row by row."""
    index, passed = gate.update(state, c, policy, gate.measure(state, c), list(flush))
    assert state.index is index
    assert torch.equal(passed, index.gather(c))
    return [row.tolist() for row in index.rows()]


def test_a_new_state_has_let_everything_through():
    c = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    state = TokenGate().new_state(c)
    assert torch.equal(state.reference, c)
    assert state.error.tolist() == [[0.0, 0.0, 0.0]]
    assert state.index.is_everything
    assert TokenGate().measure(state, c).tolist() == [[0.0, 0.0, 0.0]]


def test_three_frames_by_hand():
    """The reference moves only where tokens are let through; the error is to the reference."""
    gate = TokenGate()
    state = gate.new_state(torch.zeros(1, 3, 2))

    c = torch.tensor([[[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]]])
    assert gate.measure(state, c).tolist() == [[5.0, 2.0, 1.0]]
    assert run(gate, state, c, TopR(1)) == [[0]]
    assert state.error.tolist() == [[5.0, 2.0, 1.0]]
    assert state.reference.tolist() == [[[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]]]

    c = torch.tensor([[[3.0, 5.0], [0.0, 2.0], [0.0, 4.0]]])
    assert gate.measure(state, c).tolist() == [[1.0, 2.0, 4.0]]
    assert run(gate, state, c, TopR(2)) == [[1, 2]]
    assert state.reference.tolist() == [[[3.0, 4.0], [0.0, 2.0], [0.0, 4.0]]]

    c = torch.tensor([[[3.0, 4.0], [0.0, 2.0], [0.0, 4.0]]])
    assert run(gate, state, c, Threshold(0.0)) == [[]]
    assert state.error.tolist() == [[0.0, 0.0, 0.0]]


def test_three_frames_of_stgt_by_hand():
    """The reference is the previous input, let through or not."""
    gate = TokenGate("stgt")
    state = gate.new_state(torch.zeros(1, 3, 2))
    frames = [
        ([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]], [5.0, 2.0, 1.0], [0]),
        ([[3.0, 5.0], [0.0, 2.0], [1.0, 4.0]], [1.0, 0.0, 4.0], [2]),
        ([[0.0, 5.0], [0.0, 2.0], [1.0, 4.0]], [3.0, 0.0, 0.0], [0]),
    ]
    for c, error, chosen in frames:
        assert run(gate, state, torch.tensor([c]), TopR(1)) == [chosen]
        assert state.error.tolist() == [error]
        assert state.reference.tolist() == [c]


@pytest.mark.parametrize(
    ("kind", "let_through"), [("token", [5, 10, 15]), ("stgt", [])], ids=["token", "stgt"]
)
def test_slow_drift_adds_up_in_a_token_gate_and_is_lost_on_stgt(kind, let_through):
    """A quarter a frame passes a threshold of 1 on the fifth."""
    gate, drift = TokenGate(kind), torch.tensor([[[0.25], [0.0], [-0.25]]])
    state = gate.new_state(torch.zeros(1, 3, 1))
    frames = [t for t in range(1, 18) if run(gate, state, t * drift, Threshold(1.0)) == [[0, 2]]]
    assert frames == let_through


@dataclass(frozen=True)
class Spy(Policy):
    """Chooses nothing and remembers what it was shown."""

    seen: list = field(default_factory=list)

    def select(self, error):
        self.seen.append(error.clone())
        return Index.from_mask(torch.zeros_like(error, dtype=torch.bool))


@pytest.mark.parametrize("kind", ["token", "stgt"])
def test_prefix_tokens_always_pass_and_are_none_of_the_policys_business(kind):
    gate, policy = TokenGate(kind, prefix=2), Spy()
    state = gate.new_state(torch.zeros(2, 5, 1))
    c = torch.arange(10.0).view(2, 5, 1)
    assert run(gate, state, c, policy) == [[0, 1], [0, 1]]
    assert policy.seen[0].tolist() == [[2.0, 3.0, 4.0], [7.0, 8.0, 9.0]]
    assert state.reference[:, :2].flatten().tolist() == [0.0, 1.0, 5.0, 6.0]
    assert state.error.tolist() == c.squeeze(-1).tolist()
    assert run(gate, state, 2 * c, TopR(1)) == [[0, 1, 4], [0, 1, 4]]


def test_flushed_rows_are_let_through_whole_and_the_others_are_not():
    gate = TokenGate(prefix=1)
    state = gate.new_state(torch.zeros(3, 4, 1))
    c = torch.arange(1.0, 13.0).view(3, 4, 1)
    assert run(gate, state, c, TopR(1), flush=[1]) == [[0, 3], [0, 1, 2, 3], [0, 3]]
    expected = [[1, 0, 0, 4], [5, 6, 7, 8], [9, 0, 0, 12]]
    assert state.reference.squeeze(-1).tolist() == expected


@pytest.mark.parametrize("policy", [TopR(2), KeepAll()], ids=str)
@pytest.mark.parametrize("kind", ["token", "stgt"])
def test_the_state_never_aliases_the_frame(kind, policy):
    gate, c = TokenGate(kind), torch.ones(2, 3, 5)
    state = gate.new_state(c)
    c.fill_(torch.nan)
    assert (state.reference == 1).all()
    c.fill_(2.0)
    run(gate, state, c, policy)
    before = state.reference.clone()
    assert (before == 2).any()
    c.fill_(torch.nan)
    assert torch.equal(state.reference, before)


@pytest.mark.parametrize("kind", ["token", "stgt"])
def test_frames_of_any_strides_are_taken(kind):
    """Patches come out of a convolution channels first."""
    gate = TokenGate(kind)
    first, second = torch.arange(60.0).view(2, 2, 5, 3).transpose(2, 3).unbind(0)
    plain, strided = gate.new_state(first.contiguous()), gate.new_state(first)
    expected = run(gate, plain, second.contiguous(), TopR(2))
    assert run(gate, strided, second, TopR(2)) == expected
    assert torch.equal(strided.reference, plain.reference)


def test_an_unknown_kind_raises():
    with pytest.raises(ValueError, match="'token' or 'stgt', got 'delta'"):
        TokenGate("delta")
