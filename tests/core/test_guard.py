"""Rounding in incremental attention: where it grows without a guard, and that the guard stops it.

Most of these stories are `Watched`: the queries of two tokens look along an axis of their own in
head 0, on which the keys' masses can be set at will. All else is random and mild.
"""

import math
from itertools import pairwise

import pytest
import torch

from eventful.attention import Incremental, join_heads, split_heads
from eventful.ops import Index, attend, replace_keys

from .conftest import KEPT, TOLERANCE, Buffered, error, full_attention

LIMIT = KEPT[torch.float32]  # 1e-4
TOKENS, HEADS, DIM, WATCHERS = 11, 2, 5, 2
NOTHING = -30.0  # a key's log mass


def test_float32_is_kept_to_one_in_ten_thousand():
    assert pytest.approx(1e-4) == LIMIT


class Watched:
    """q, k, v (1, tokens, ...) in which the last two tokens see key j with weight e^log_mass[j]."""

    def __init__(self, log_mass, seed=0, dtype=torch.float32):
        self.generator = torch.Generator().manual_seed(seed)
        self.scale = 1.0
        x = self._mild(1, TOKENS)
        x[0, -WATCHERS:, 0, 0] = torch.eye(DIM)[0]
        x[0, :, 1, 0, 0] = torch.tensor(log_mass)
        self.qkv = x.flatten(2).to(dtype)

    def _mild(self, *shape):
        x = 0.5 * torch.randn(*shape, 3, HEADS, DIM, generator=self.generator)
        x[..., 0, 0, 0] = 0  # no other query looks along the watchers' axis
        return x

    def replace_(self, token, log_mass):
        """New q, k, v for one token; the watchers see its key with the given weight."""
        old = self.qkv[:, token].clone()
        new = self._mild(1)
        new[:, 1, 0, 0] = log_mass
        self.qkv[:, token] = new.flatten(1).to(self.qkv.dtype)
        return old, Index.from_positions(torch.tensor([[token]]), TOKENS)

    def full(self):
        return full_attention(self.qkv, HEADS, self.scale)


class GuardedByUpdate:
    """A guard without a memory: a row is redone if an update removes all but 0.05 of its mass."""

    def start(self, qkv, scale):
        self.scale = scale
        self.o, self.lse = attend(*split_heads(qkv, HEADS), scale)

    def update(self, qkv, old, token):
        """Returns the output and which rows fell under the guard."""
        q, k, v = split_heads(qkv, HEADS)
        _, old_k, old_v = split_heads(old[None], HEADS)
        removed = attend(q, old_k, old_v, self.scale)
        added = attend(q, k[:, :, [token]], v[:, :, [token]], self.scale)
        fell = (1 - (removed[1] - self.lse).exp() < 0.05).any(dim=1)[0]
        self.o, self.lse = replace_keys(self.o, self.lse, removed, added)
        redo = fell.clone()
        redo[token] = True
        self.o[:, :, redo], self.lse[:, :, redo] = attend(q[:, :, redo], k, v, self.scale)
        return join_heads(self.o), fell


@pytest.mark.parametrize(
    ("guard", "dtype", "share"),
    [
        (None, torch.float64, 0.05),
        (None, torch.float32, 0.05),
        (None, torch.bfloat16, 0.5),
        (None, torch.float16, 0.5),
        (0.3, torch.float32, 0.3),
        (0.3, torch.bfloat16, 0.3),
    ],
    ids=str,
)
def test_rows_that_keep_less_than_the_guard_are_computed_anew(guard, dtype, share):
    for left, redone in ((1.1 * share, 0), (0.9 * share, WATCHERS)):
        rest = math.log(left / (1 - left))
        watched = Watched([0.0, rest] + [NOTHING] * (TOKENS - 2), dtype=dtype)
        attention = Incremental(HEADS, watched.scale, guard=guard, max_age=None)
        _, state = attention.start(watched.qkv)
        attention.update(state, watched.qkv, *watched.replace_(0, NOTHING))
        assert state.recomputed == (1 + redone,)


PEAKED = {"peak": 20.0, "seed": 1}


def peaked_errors(frames=40, **options):
    """Errors of incremental attention on scores of standard deviation 20, and rows recomputed."""
    buffered = Buffered(3, TOKENS, HEADS, DIM, **PEAKED)
    attention = Incremental(HEADS, buffered.scale, **options)
    _, state = attention.start(buffered.qkv)
    errors, rows = [], 0
    for mask in buffered.masks(frames, share=0.15):
        output = attention.update(state, buffered.qkv, *buffered.change(mask))
        errors.append(error(output, buffered.full()))
        rows += sum(state.recomputed) - int(mask.sum())
    return errors, rows / (frames * 3 * TOKENS)


@pytest.mark.parametrize("max_age", [None, 256])
def test_peaked_attention_fails_without_a_guard(max_age):
    errors, _ = peaked_errors(guard=1e-30, max_age=max_age)
    assert max(errors) > 1e-2


def test_peaked_attention_holds_with_the_guard():
    errors, share = peaked_errors(max_age=None)
    assert max(errors) < LIMIT
    assert 0 < share < 0.5


SHARE = 0.055  # of the mass is left after every removal: more than a guard of 0.05 asks for


def geometric():
    """Each key of the first nine has 0.055 of the mass of the one before it."""
    keys = TOKENS - WATCHERS
    return Watched([math.log(SHARE) * key for key in range(keys)] + [NOTHING] * WATCHERS)


def test_a_guard_on_each_update_misses_losses_that_compound():
    watched, naive = geometric(), GuardedByUpdate()
    naive.start(watched.qkv, watched.scale)
    errors = []
    for token in range(5):
        old, _ = watched.replace_(token, NOTHING)
        output, fell = naive.update(watched.qkv, old, token)
        assert not fell.any()
        errors.append(error(output, watched.full()))
    assert errors[-1] > 1e-2
    assert all(later > 3 * sooner for sooner, later in pairwise(errors[1:]))


def test_a_guard_that_remembers_the_peak_catches_them():
    """Every second update takes the watchers' mass under 0.05 of what it was: they are redone."""
    watched = geometric()
    attention = Incremental(HEADS, watched.scale, max_age=None)
    _, state = attention.start(watched.qkv)
    rows = []
    for token in range(8):
        output = attention.update(state, watched.qkv, *watched.replace_(token, NOTHING))
        assert error(output, watched.full()) < LIMIT
        rows.append(state.recomputed[0])
    assert rows == [1, 1 + WATCHERS] * 4


@pytest.mark.parametrize("seed", range(3))
def test_a_dominant_key_replaced_by_its_equal_costs_neither_accuracy_nor_rows(seed):
    watched = Watched([8.0] + [0.0] * (TOKENS - 1), seed)
    attention = Incremental(HEADS, watched.scale, max_age=None)
    _, state = attention.start(watched.qkv)
    errors, rows = [], 0
    for _ in range(300):
        output = attention.update(state, watched.qkv, *watched.replace_(0, 8.0))
        errors.append(error(output, watched.full()))
        rows += state.recomputed[0] - 1
    assert max(errors) < 2 * TOLERANCE[torch.float32]
    assert max(errors[200:]) < 5 * max(errors[:100])
    assert rows <= 3


@pytest.mark.parametrize("active", [0, 1])
@pytest.mark.parametrize("max_age", [1, 2, 3, 4, 5, 7, 10, 11, 256])
def test_every_row_is_computed_anew_within_the_age(max_age, active):
    """An error put into every row is gone `max_age` frames later, and not at once."""
    buffered = Buffered(3, TOKENS, HEADS, DIM, torch.float64, peak=0.1)
    attention = Incremental(HEADS, buffered.scale, max_age=max_age)
    _, state = attention.start(buffered.qkv)
    state.turn.fill_(1000)  # as in the middle of a stream
    state.tensors["output"].add_(1.0)
    mask = torch.zeros(3, TOKENS, dtype=torch.bool)
    mask[:, :active] = True
    errors, rows = [], []
    for _ in range(min(max_age, TOKENS)):
        output = attention.update(state, buffered.qkv, *buffered.change(mask))
        errors.append(error(output, buffered.full()))
        rows.append(max(state.recomputed))
    assert errors[-1] < KEPT[torch.float64]
    assert max_age == 1 or errors[0] > 0.1
    assert active or max(rows) == math.ceil(TOKENS / max_age)


def test_without_an_age_no_row_is_computed_anew_for_its_age():
    buffered = Buffered(3, TOKENS, HEADS, DIM)
    attention = Incremental(HEADS, buffered.scale, max_age=None)
    _, state = attention.start(buffered.qkv)
    state.tensors["output"].fill_(7.0)
    nothing = torch.zeros(3, TOKENS, dtype=torch.bool)
    for _ in range(30):
        output = attention.update(state, buffered.qkv, *buffered.change(nothing))
        assert state.recomputed == (0, 0, 0)
    assert (output == 7).all()


@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.float32, 1e4), (torch.bfloat16, 50.0)], ids=["float32", "bfloat16"]
)
def test_a_key_whose_value_outweighs_all_others_leaves_rounding_at_its_own_size(dtype, size):
    """Its mass is about a fifth, so it may go: the guard is on mass, not on values."""
    buffered = Buffered(1, TOKENS, HEADS, DIM, dtype)
    x = buffered.qkv.view(1, TOKENS, 3, HEADS, DIM)
    x[:, 0, 2] *= size
    x[:, 1:, 0, :, 0] = 1.0
    x[:, 0, 1] = 2.5 * torch.eye(DIM, dtype=dtype)[0]
    attention = Incremental(HEADS, buffered.scale)
    _, state = attention.start(buffered.qkv)
    largest = x[:, 0, 2].abs().max().double()
    output = attention.update(
        state, buffered.qkv, *buffered.change(torch.arange(TOKENS)[None] == 0)
    )
    worst = (output.double() - buffered.full()).abs().max()
    assert worst < TOLERANCE[dtype] * largest
    assert worst > TOLERANCE[dtype] * buffered.full().abs().max()  # else the limit is no more
