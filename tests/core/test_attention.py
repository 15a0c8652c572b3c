"""The four attention forms against attention in float64, computed here from the equations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eventful.attention import FORMS, Cached, Incremental, QueryKey, join_heads, split_heads

from .conftest import DTYPES, KEPT, TOLERANCE, Buffered, error, ragged, softmax

EXACT = ("dense", "query_key", "incremental")
BATCH, TOKENS, HEADS, DIM = 3, 11, 2, 5


def form(name, buffered, **options):
    return FORMS[name](buffered.heads, buffered.scale, **options)


def tolerance(name, dtype):
    return KEPT[dtype] if name == "incremental" else TOLERANCE[dtype]


def test_heads_are_split_as_a_projection_lays_them_out():
    """(batch, tokens, 3, heads, dim); joining gives (batch, tokens, heads, dim)."""
    qkv = torch.arange(BATCH * TOKENS * 3 * HEADS * DIM).view(BATCH, TOKENS, -1)
    for part, x in enumerate(split_heads(qkv, HEADS)):
        assert x.shape == (BATCH, HEADS, TOKENS, DIM)
        joined = join_heads(x)
        for token in range(TOKENS):
            for head in range(HEADS):
                start = (part * HEADS + head) * DIM
                expected = qkv[:, token, start : start + DIM]
                assert torch.equal(x[:, head, token], expected)
                assert torch.equal(joined[:, token, head * DIM : (head + 1) * DIM], expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_exact_forms_are_full_attention_over_the_buffers(name, dtype):
    """Ragged rows, with none, one and all of the tokens among them."""
    buffered = Buffered(BATCH, TOKENS, HEADS, DIM, dtype)
    attention = form(name, buffered)
    output, state = attention.start(buffered.qkv)
    assert output.dtype == dtype
    assert error(output, buffered.full()) < TOLERANCE[dtype]
    for mask in ragged(8, BATCH, TOKENS):
        old, index = buffered.change(mask)
        output = attention.update(state, buffered.qkv, old, index)
        assert output.dtype == dtype
        assert error(output, buffered.full()) < tolerance(name, dtype)


class CachedByHand:
    """The paper's delta product (section 4.3) in float64, one updated token after the other.

    With the references v_r and A_r: v_d = v_n - v_r, A_d = A_n - A_r of the updated token's
    column, and (A v) gains A_n v_d + A_d (v_n - v_d).
    """

    def __init__(self, buffered):
        self.heads, self.scale = buffered.heads, buffered.scale
        a, v = self._current(buffered)
        self.a_reference, self.v_reference, self.product = a.copy(), v.copy(), a @ v

    def _current(self, buffered):
        batch, tokens, _ = buffered.qkv.shape
        x = buffered.qkv.double().numpy().reshape(batch, tokens, 3, self.heads, -1)
        q, k, v = np.moveaxis(x, (2, 3), (0, 2))
        return softmax(q @ np.swapaxes(k, -1, -2) * self.scale), v

    def update(self, buffered, mask):
        a, v = self._current(buffered)
        for row, token in mask.nonzero().tolist():
            for head in range(self.heads):
                at = row, head, token
                a_new, v_new = a[row, head, :, token], v[at]
                v_delta = v_new - self.v_reference[at]
                a_delta = a_new - self.a_reference[row, head, :, token]
                self.product[row, head] += np.outer(a_new, v_delta)
                self.product[row, head] += np.outer(a_delta, v_new - v_delta)
                self.a_reference[row, head, :, token], self.v_reference[at] = a_new, v_new

    def output(self):
        joined = np.moveaxis(self.product, 1, 2)
        return torch.from_numpy(joined.reshape(*joined.shape[:2], -1).copy())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cached_follows_the_papers_delta_equations(dtype):
    buffered = Buffered(BATCH, TOKENS, HEADS, DIM, dtype)
    attention, by_hand = form("cached", buffered), CachedByHand(buffered)
    output, state = attention.start(buffered.qkv)
    assert error(output, buffered.full()) < TOLERANCE[dtype]
    for mask in ragged(9, BATCH, TOKENS):
        old, index = buffered.change(mask)
        by_hand.update(buffered, mask)
        output = attention.update(state, buffered.qkv, old, index)
        assert output.dtype == dtype
        assert error(output, by_hand.output()) < TOLERANCE[dtype]


def test_cached_is_not_full_attention_until_every_token_is_updated():
    buffered = Buffered(BATCH, TOKENS, HEADS, DIM, torch.float64)
    attention = form("cached", buffered)
    _, state = attention.start(buffered.qkv)
    some = torch.zeros(BATCH, TOKENS, dtype=torch.bool)
    some[:, 2:5] = True
    output = attention.update(state, buffered.qkv, *buffered.change(some))
    assert error(output, buffered.full()) > 1e-3
    output = attention.update(state, buffered.qkv, *buffered.change(torch.ones_like(some)))
    assert error(output, buffered.full()) < TOLERANCE[torch.float64]


sets = st.lists(st.integers(0, 2 ** (BATCH * TOKENS) - 1), min_size=1, max_size=10)


def masks_of(numbers):
    """Masks (frames, batch, tokens) from the bits of whole numbers."""
    bits = [[n >> bit & 1 for bit in range(BATCH * TOKENS)] for n in numbers]
    return torch.tensor(bits, dtype=torch.bool).view(-1, BATCH, TOKENS)


def after(updates, masks, dtype, checks, seed=0, **options):
    """Errors of incremental attention after the given numbers of updates, masks in turn."""
    buffered = Buffered(BATCH, TOKENS, HEADS, DIM, dtype, seed=seed)
    attention = form("incremental", buffered, **options)
    _, state = attention.start(buffered.qkv)
    errors = []
    for update in range(1, updates + 1):
        old, index = buffered.change(masks[update % len(masks)])
        output = attention.update(state, buffered.qkv, old, index)
        if update in checks:
            errors.append(error(output, buffered.full()))
    return errors


@settings(deadline=None, max_examples=40)
@given(
    numbers=sets,
    dtype=st.sampled_from(DTYPES),
    max_age=st.sampled_from([None, 1, 3, 256]),
    seed=st.integers(0, 99),
)
def test_law_3_holds_for_any_index_sets(numbers, dtype, max_age, seed):
    errors = after(10, masks_of(numbers), dtype, {1, 10}, seed, max_age=max_age)
    assert max(errors) < KEPT[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_law_3_holds_after_a_thousand_updates(share, dtype):
    masks = Buffered(BATCH, TOKENS).masks(1000, share)
    errors = after(1000, masks, dtype, {1, 10, 100, *range(300, 1001, 100)})
    assert max(errors) < KEPT[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(deadline=None, max_examples=15)
@given(numbers=sets, seed=st.integers(0, 99))
def test_law_3_holds_after_a_thousand_updates_with_any_index_sets(dtype, numbers, seed):
    errors = after(1000, masks_of(numbers), dtype, {*range(100, 1001, 100)}, seed)
    assert max(errors) < KEPT[dtype]


@pytest.mark.parametrize(
    ("active", "corrected", "recomputed"),
    [(0, 0, 0), (1, 10, 1), (4, 7, 4), (5, 0, 11), (11, 0, 11)],
)
def test_rows_are_corrected_while_that_is_faster(active, corrected, recomputed):
    """Of 11 tokens the crossover at a share of 0.42 lies between 4 and 5."""
    buffered = Buffered(1, TOKENS, HEADS, DIM, peak=0.01)
    attention = form("incremental", buffered, max_age=None)
    _, state = attention.start(buffered.qkv)
    assert (state.corrected, state.recomputed) == ((0,), (TOKENS,))
    old, index = buffered.change(torch.arange(TOKENS)[None] < active)
    attention.update(state, buffered.qkv, old, index)
    assert (state.corrected, state.recomputed) == ((corrected,), (recomputed,))


@pytest.mark.parametrize("heads", [1, HEADS])
@pytest.mark.parametrize("name", FORMS)
def test_inputs_are_left_as_they_are_and_nothing_of_them_is_kept(name, heads):
    """A twin is given copies, which are destroyed after every call, and yet says the same."""
    buffered = Buffered(BATCH, TOKENS, heads, DIM)
    attention = form(name, buffered)
    copies = [buffered.qkv.clone()]
    output, state = attention.start(buffered.qkv)
    twin_output, twin = attention.start(*copies)
    for mask in ragged(6, BATCH, TOKENS):
        for copy in copies:
            copy.fill_(torch.nan)
        assert torch.equal(twin_output, output)
        old, index = buffered.change(mask)
        copies = [buffered.qkv.clone(), old.clone()]
        output = attention.update(state, buffered.qkv, old, index)
        assert torch.equal(buffered.qkv, copies[0])
        assert torch.equal(old, copies[1])
        twin_output = attention.update(twin, *copies, index)


@pytest.mark.parametrize("name", FORMS)
def test_forms_read_from_the_front_of_a_wider_buffer(name):
    """Some blocks buffer more columns than q, k and v."""
    buffered = Buffered(BATCH, TOKENS, HEADS, DIM)
    attention = form(name, buffered)

    def widened(x):
        wide = torch.cat([x, torch.full_like(x[..., :4], torch.nan)], dim=-1)
        return wide[..., :-4]

    _, state = attention.start(buffered.qkv)
    _, wide_state = attention.start(widened(buffered.qkv))
    for mask in ragged(4, BATCH, TOKENS):
        old, index = buffered.change(mask)
        expected = attention.update(state, buffered.qkv, old, index)
        found = attention.update(wide_state, widened(buffered.qkv), widened(old), index)
        assert error(found, expected) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("kind", [QueryKey, Cached, Incremental])
def test_half_types_keep_their_state_in_float32(kind):
    buffered = Buffered(dtype=torch.bfloat16)
    _, state = kind(buffered.heads, buffered.scale).start(buffered.qkv)
    assert {t.dtype for t in state.tensors.values()} == {torch.float32}
