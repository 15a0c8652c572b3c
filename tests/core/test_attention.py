"""The four attention forms against attention in float64, computed here from the equations."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eventful.attention import FORMS, Cached, Incremental, QueryKey, join_heads, split_heads
from eventful.ops import RelativePositions

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
        for x in copies:
            x.fill_(torch.nan)
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


GRID = (3, 5)  # of tokens, where there are relative positions


class Positioned(Buffered):
    """Buffered q, k, v on a grid, with the queries' tables of relative positions behind them."""

    def __init__(self, batch=BATCH, dtype=torch.float32, **options):
        super().__init__(batch, GRID[0] * GRID[1], HEADS, DIM, dtype, **options)
        self.table = self._tables(batch, self.tokens)

    def _tables(self, *shape):
        table = torch.randn(*shape, self.heads, sum(GRID), generator=self.generator)
        return table.to(self.dtype)

    @property
    def bias(self):
        return RelativePositions(self.table.transpose(1, 2), GRID)

    def change(self, mask):
        old, index = super().change(mask)
        self.table[mask] = self._tables(len(old))
        return old, index

    def weights(self):
        """softmax(q k^T scale + bias) and v in float64, (batch, heads, tokens, ...)."""
        x = self.qkv.double().numpy().reshape(self.batch, self.tokens, 3, self.heads, self.dim)
        q, k, v = np.moveaxis(x, (2, 3), (0, 2))
        scores = q @ np.swapaxes(k, -1, -2) * self.scale
        table = np.moveaxis(self.table.double().numpy(), 2, 1)
        for key in range(self.tokens):
            y, x = divmod(key, GRID[1])
            scores[..., key] += table[..., y] + table[..., GRID[0] + x]
        return softmax(scores), v

    def full(self):
        a, v = self.weights()
        return torch.from_numpy(np.moveaxis(a @ v, 1, 2).reshape(self.batch, self.tokens, -1))


def evenly(frames, batch=BATCH, tokens=GRID[0] * GRID[1]):
    """Masks of as many tokens in every row: none, some, so many that all is recomputed, all."""
    generator = torch.Generator().manual_seed(3)
    masks = torch.zeros(frames, batch, tokens, dtype=torch.bool)
    for frame in range(frames):
        count = (2, 0, 5, 1, tokens, 3, 8)[frame % 7]
        for row in masks[frame]:
            row[torch.randperm(tokens, generator=generator)[:count]] = True
    return masks


SETS = {"even": evenly, "ragged": lambda frames: ragged(frames, BATCH, GRID[0] * GRID[1])}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fixed", [False, True], ids=["", "fixed"])
@pytest.mark.parametrize("sets", SETS)
@pytest.mark.parametrize("name", EXACT)
def test_exact_forms_with_relative_positions_are_full_attention(name, sets, fixed, dtype):
    """The bias of updated queries changes with them, and that of all others stays."""
    buffered = Positioned(dtype=dtype)
    attention = form(name, buffered, fixed=fixed)
    output, state = attention.start(buffered.qkv, buffered.bias)
    assert error(output, buffered.full()) < TOLERANCE[dtype]
    assert error(output, super(Positioned, buffered).full()) > 0.1
    for mask in SETS[sets](100):
        old, index = buffered.change(mask)
        output = attention.update(state, buffered.qkv, old, index, buffered.bias)
        assert output.dtype == dtype
        if state.overflow:  # for lack of room; a stream would go on like this
            assert fixed
            output, state = attention.start(buffered.qkv, buffered.bias)
        assert error(output, buffered.full()) < tolerance(name, dtype)


class PositionedByHand(CachedByHand):
    def _current(self, buffered):
        return buffered.weights()


@pytest.mark.parametrize("sets", SETS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cached_with_relative_positions_follows_the_papers_delta_equations(dtype, sets):
    buffered = Positioned(dtype=dtype)
    attention, by_hand = form("cached", buffered), PositionedByHand(buffered)
    output, state = attention.start(buffered.qkv, buffered.bias)
    assert error(output, buffered.full()) < TOLERANCE[dtype]
    for mask in SETS[sets](14):
        old, index = buffered.change(mask)
        by_hand.update(buffered, mask)
        output = attention.update(state, buffered.qkv, old, index, buffered.bias)
        assert error(output, by_hand.output()) < TOLERANCE[dtype]


@pytest.mark.parametrize("sets", SETS)
@pytest.mark.parametrize("room", [1, 2, 4])
def test_overflow_is_set_exactly_when_more_rows_are_due_than_there_is_room_for(
    room, sets, monkeypatch
):
    """Without it no row is wrong. Scores are peaked, so that the guard sends rows back."""
    buffered = Positioned(peak=20.0)
    anyhow = form("incremental", buffered, max_age=None)
    attention = form("incremental", buffered, fixed=True, max_age=None)
    monkeypatch.setattr(attention, "spare_rows", lambda tokens: room)
    _, state = attention.start(buffered.qkv, buffered.bias)
    masks, seen = {"even": evenly(80), "ragged": buffered.masks(80, share=0.15)}[sets], []
    for mask in masks:
        if mask.sum(dim=1).max() > 5:
            continue  # rows beyond the crossover are computed in full
        old, index = buffered.change(mask)
        twin = copy.deepcopy(state)
        anyhow.update(twin, buffered.qkv, old, index, buffered.bias)
        due = max(np.subtract(twin.recomputed, index.counts))
        output = attention.update(state, buffered.qkv, old, index, buffered.bias)
        assert bool(state.overflow) == (due > room)
        assert not twin.overflow
        seen.append(bool(state.overflow))
        if state.overflow:
            _, state = attention.start(buffered.qkv, buffered.bias)
        else:
            assert error(output, buffered.full()) < KEPT[torch.float32]
            assert state.recomputed == tuple(count + room for count in index.counts)
    assert {True, False} == set(seen)


@pytest.mark.parametrize("active", [0, 1, 3])
@pytest.mark.parametrize("max_age", [1, 2, 4, 7, 11, 256])
def test_every_row_is_computed_anew_within_the_age_with_fixed_work_too(max_age, active):
    """An error put into every row is gone `max_age` frames later, and not at once."""
    buffered = Buffered(BATCH, TOKENS, HEADS, DIM, torch.float64, peak=0.1)
    attention = form("incremental", buffered, fixed=True, max_age=max_age)
    _, state = attention.start(buffered.qkv)
    state.turn.fill_(1000)  # as in the middle of a stream
    state.tensors["output"].add_(1.0)
    mask = torch.zeros(BATCH, TOKENS, dtype=torch.bool)
    mask[:, :active] = True
    errors = []
    for _ in range(min(max_age, TOKENS)):
        output = attention.update(state, buffered.qkv, *buffered.change(mask))
        assert not state.overflow
        errors.append(error(output, buffered.full()))
    assert errors[-1] < KEPT[torch.float64]
    assert max_age < 3 or errors[0] > 0.1


@pytest.mark.parametrize(("max_age", "rows"), [(256, 3), (7, 12), (1, 69), (None, 2)])
def test_there_is_room_for_the_rows_in_rotation_and_for_a_sixty_fourth(max_age, rows):
    """Of 67 tokens."""
    assert Incremental(HEADS, 1.0, max_age=max_age).spare_rows(67) == rows


def test_fixed_work_waits_for_no_number(monkeypatch):
    buffered = Positioned()
    index = buffered.change(evenly(1)[0])[1]
    old = torch.zeros(sum(index.counts), buffered.qkv.shape[2])
    runs = {}
    for fixed in (False, True):
        attention = form("incremental", buffered, fixed=fixed)
        _, state = attention.start(buffered.qkv, buffered.bias)
        runs[fixed] = (attention, state, buffered.qkv, old, index, buffered.bias)
    for look in ("item", "tolist", "nonzero", "__int__", "__bool__", "__float__", "__index__"):
        monkeypatch.setattr(torch.Tensor, look, _waits)
    (attention, *arguments), (fixed, *others) = runs[False], runs[True]
    with pytest.raises(LookupError):
        attention.update(*arguments)
    fixed.update(*others)


def _waits(*_):
    raise LookupError("this waits for the device")
