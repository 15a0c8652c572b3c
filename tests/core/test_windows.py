"""Windows of a token grid, and attention within them against a computation in float64."""

import numpy as np
import pytest
import torch

from eventful.attention import Windowed, Windows, join_heads
from eventful.ops import Index, RelativePositions

from .conftest import DTYPES, TOLERANCE, error, ragged, softmax

HEADS, DIM, SIDE = 2, 5, 2
GRID = (3, 5)  # two by three windows of 2 x 2, of which four hold padding
TOKENS, WINDOWS, PLACES, INSIDE = 15, 6, 24, SIDE**2
SCALE = DIM**-0.5
WINDOW_OF = [0, 0, 1, 1, 2, 0, 0, 1, 1, 2, 3, 3, 4, 4, 5]  # of each token


@pytest.mark.parametrize(
    ("grid", "side", "slots"),
    [
        # whole windows
        ((2, 4), 2, [0, 1, 4, 5, 2, 3, 6, 7]),
        # padded on the right, at the bottom, and on both sides
        ((2, 3), 2, [0, 1, 4, 2, 3, 6]),
        ((3, 2), 2, [0, 1, 2, 3, 4, 5]),
        (GRID, SIDE, [0, 1, 4, 5, 8, 2, 3, 6, 7, 10, 12, 13, 16, 17, 20]),
        # a square grid
        (
            (4, 4),
            3,
            [0, 1, 2, 9, 3, 4, 5, 12, 6, 7, 8, 15, 18, 19, 20, 27],
        ),
        # one window that is larger than the grid, and windows of one token
        ((2, 3), 4, [0, 1, 2, 4, 5, 6]),
        ((2, 3), 1, [0, 1, 2, 3, 4, 5]),
    ],
    ids=str,
)
def test_places_in_window_order_by_hand(grid, side, slots):
    assert Windows(grid, side).slots().tolist() == slots


@pytest.mark.parametrize(
    ("grid", "side", "across", "count", "places"),
    [
        (GRID, SIDE, 3, 6, 24),
        ((5, 3), 2, 2, 6, 24),
        ((4, 4), 3, 2, 4, 36),
        ((2, 3), 4, 1, 1, 16),
        ((64, 64), 14, 5, 25, 4900),
    ],
)
def test_windows_and_places_by_hand(grid, side, across, count, places):
    windows = Windows(grid, side)
    assert (windows.across, windows.count, windows.places) == (across, count, places)


@pytest.mark.parametrize("grid", [GRID, (5, 3), (4, 4), (7, 2)], ids=str)
@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_slots_lay_tokens_out_as_cutting_the_padded_grid_does(grid, side):
    tokens = np.arange(1, 1 + grid[0] * grid[1]).reshape(grid)
    bottom, right = (-length % side for length in grid)
    padded = np.pad(tokens, ((0, bottom), (0, right)))
    cut = [
        padded[y : y + side, x : x + side].reshape(-1)
        for y in range(0, padded.shape[0], side)
        for x in range(0, padded.shape[1], side)
    ]
    windows = Windows(grid, side)
    ours = np.zeros(windows.places, dtype=int)
    ours[windows.slots().numpy()] = tokens.reshape(-1)
    assert ours.tolist() == np.concatenate(cut).tolist()


class Buffered:
    """q, k, v and relative positions of tokens in window order; padding never changes."""

    def __init__(self, batch=3, dtype=torch.float64, biased=True):
        self.generator = torch.Generator().manual_seed(batch)
        self.slots = Windows(GRID, SIDE).slots()
        self.qkv = self._draw(batch, PLACES, 3 * HEADS * DIM).to(dtype)
        self.table = self._draw(batch, PLACES, HEADS, 2 * SIDE).to(dtype) if biased else None

    def _draw(self, *shape):
        return torch.randn(*shape, generator=self.generator)

    @property
    def bias(self):
        if self.table is None:
            return None
        return RelativePositions(self.table.transpose(1, 2), (SIDE, SIDE))

    def change(self, mask):
        """New values for the tokens of a mask (batch, tokens)."""
        index = Index.from_mask(mask).moved(self.slots, PLACES)
        old = index.gather(self.qkv).clone()
        index.scatter_(self.qkv, self._draw(len(old), 3 * HEADS * DIM))
        if self.table is not None:
            tables = self.table.flatten(2)
            index.scatter_(tables, self._draw(len(old), HEADS * 2 * SIDE))
            self.table = tables.unflatten(2, (HEADS, -1))
        return old, index

    def full(self):
        """Attention of every window and head by itself, in float64."""
        batch = len(self.qkv)
        x = self.qkv.double().numpy().reshape(batch, WINDOWS, INSIDE, 3, HEADS, DIM)
        o = np.empty((batch, WINDOWS, INSIDE, HEADS, DIM))
        for row in range(batch):
            for window in range(WINDOWS):
                for head in range(HEADS):
                    q, k, v = (x[row, window, :, part, head] for part in range(3))
                    scores = q @ k.T * SCALE
                    if self.table is not None:
                        scores = scores + self._spread_out(row, window, head)
                    o[row, window, :, head] = softmax(scores) @ v
        return torch.from_numpy(o.reshape(batch, PLACES, HEADS * DIM))

    def _spread_out(self, row, window, head):
        start = window * INSIDE
        table = self.table[row, start : start + INSIDE, head].double().numpy()
        bias = np.empty((INSIDE, INSIDE))
        for key in range(INSIDE):
            bias[:, key] = table[:, key // SIDE] + table[:, SIDE + key % SIDE]
        return bias


def windowed(fixed=False, **options):
    return Windowed(HEADS, SCALE, fixed, size=INSIDE, **options)


def even(batch, *counts, seed=0):
    """Masks of as many tokens in every row."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(len(counts), batch, TOKENS, dtype=torch.bool)
    for mask, count in zip(masks, counts, strict=True):
        for row in mask:
            row[torch.randperm(TOKENS, generator=generator)[:count]] = True
    return masks


KINDS = {
    "ragged": lambda batch: ragged(8, batch, TOKENS),
    "even": lambda batch: even(batch, 3, 0, 1, TOKENS, 2, 7, 14, 1),
}


def touched(mask):
    """For each row, the windows that hold a token of the mask."""
    return [{WINDOW_OF[token] for token in row.nonzero().flatten().tolist()} for row in mask]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("biased", [True, False], ids=["biased", "unbiased"])
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "anew"])
@pytest.mark.parametrize("fixed", [False, True], ids=["", "fixed"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_frame_is_full_attention_within_windows(batch, kind, fixed, keep, biased, dtype):
    buffered = Buffered(batch, dtype, biased)
    attention = windowed(fixed, keep=keep)
    output, state = attention.start(buffered.qkv, buffered.bias)
    assert output.dtype == dtype
    assert error(output, buffered.full()) < TOLERANCE[dtype]
    for mask in KINDS[kind](batch):
        before = buffered.full()
        old, index = buffered.change(mask)
        output = attention.update(state, buffered.qkv, old, index, buffered.bias)
        assert output.dtype == dtype
        assert error(output, buffered.full()) < TOLERANCE[dtype]
        assert not mask.any() or error(output, before) > 10 * TOLERANCE[dtype]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 3])
def test_windows_without_an_updated_token_are_left_to_the_bit(batch, kind):
    """What stands in them is not even looked at."""
    buffered = Buffered(batch)
    attention = windowed()
    _, state = attention.start(buffered.qkv, buffered.bias)
    for mask in KINDS[kind](batch):
        kept = state.tensors["output"]
        marks = torch.randn(kept.shape, generator=torch.Generator().manual_seed(9)).double()
        kept.copy_(marks)
        output = attention.update(state, buffered.qkv, *buffered.change(mask), buffered.bias)
        output = output.view(batch, WINDOWS, INSIDE, -1)
        full, marks = (x.view(batch, WINDOWS, INSIDE, -1) for x in (buffered.full(), marks))
        for row, windows in enumerate(touched(mask)):
            for window in range(WINDOWS):
                if window in windows:
                    assert error(output[row, window], full[row, window]) < 1e-12
                else:
                    assert torch.equal(output[row, window], marks[row, window])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 3])
def test_rows_computed_are_those_of_touched_windows(batch, kind):
    buffered = Buffered(batch)
    attention = windowed()
    _, state = attention.start(buffered.qkv, buffered.bias)
    assert (state.corrected, state.recomputed) == ((0,) * batch, (PLACES,) * batch)
    for mask in KINDS[kind](batch):
        attention.update(state, buffered.qkv, *buffered.change(mask), buffered.bias)
        assert state.recomputed == tuple(INSIDE * len(windows) for windows in touched(mask))
        assert state.corrected == (0,) * batch


def test_fixed_work_misses_no_window_however_the_tokens_lie():
    """One row's tokens in one window each, another's all in one, the third's in the last."""
    buffered = Buffered(3)
    attention = windowed(fixed=True)
    _, state = attention.start(buffered.qkv, buffered.bias)
    mask = torch.zeros(3, TOKENS, dtype=torch.bool)
    for row, tokens in enumerate(([0, 4, 12], [2, 3, 8], [4, 9, 14])):
        mask[row, tokens] = True
    assert touched(mask) == [{0, 2, 4}, {1}, {2, 5}]
    output = attention.update(state, buffered.qkv, *buffered.change(mask), buffered.bias)
    assert error(output, buffered.full()) < TOLERANCE[torch.float64]
    assert state.recomputed == (12, 12, 12)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6, 7, TOKENS])
def test_fixed_work_is_as_many_windows_as_can_hold_a_token(count):
    buffered = Buffered(3)
    attention = windowed(fixed=True)
    _, state = attention.start(buffered.qkv, buffered.bias)
    clustered = torch.zeros(3, TOKENS, dtype=torch.bool)
    clustered[:, :count] = True
    for mask in (clustered, *even(3, count, count)):
        state.tensors["output"].add_(1000.0)
        output = attention.update(state, buffered.qkv, *buffered.change(mask), buffered.bias)
        anew = (output.view(3 * WINDOWS, -1) < 500).all(dim=1)
        assert int(anew.sum()) == 3 * min(count, WINDOWS)
        assert state.recomputed == (INSIDE * min(count, WINDOWS),) * 3
        assert not state.overflow
        output.copy_(attention.start(buffered.qkv, buffered.bias)[0])


def test_fixed_work_waits_for_no_number(monkeypatch):
    buffered = Buffered(3)
    old, index = buffered.change(even(3, 2)[0])
    runs = {}
    for fixed in (False, True):
        _, state = windowed(fixed).start(buffered.qkv, buffered.bias)
        runs[fixed] = state, buffered.qkv, old, index, buffered.bias

    def waits(*_):
        raise LookupError("this waits for the device")

    for look in ("item", "tolist", "nonzero", "__int__", "__bool__", "__float__", "__index__"):
        monkeypatch.setattr(torch.Tensor, look, waits)
    with pytest.raises(LookupError):
        windowed().update(*runs[False])
    windowed(fixed=True).update(*runs[True])


def test_without_keeping_nothing_is_remembered_and_all_is_computed():
    buffered = Buffered(3)
    attention = windowed(keep=False)
    _, state = attention.start(buffered.qkv, buffered.bias)
    assert state.tensors == {}
    attention.update(state, buffered.qkv, *buffered.change(even(3, 1)[0]), buffered.bias)
    assert state.recomputed == (PLACES,) * 3


def test_padding_takes_part():
    """Its keys draw mass, as in the original blocks."""
    buffered = Buffered(1)
    output, _ = windowed().start(buffered.qkv, buffered.bias)
    inside = [11, 14]  # padding of window 2: the right column
    assert not set(inside) & set(buffered.slots.tolist())
    buffered.qkv[:, inside] += 1.0
    changed, _ = windowed().start(buffered.qkv, buffered.bias)
    tokens = buffered.slots[[4, 9]]
    assert error(changed[:, tokens], output[:, tokens]) > 1e-2


def test_inputs_are_left_as_they_are_and_nothing_of_them_is_kept():
    buffered = Buffered(3)
    attention = windowed()
    given = buffered.qkv.clone(), buffered.table.clone()
    copies = [x.clone() for x in given]
    bias = RelativePositions(copies[1].transpose(1, 2), (SIDE, SIDE))
    output, state = attention.start(copies[0], bias)
    assert all(map(torch.equal, copies, given))
    expected = output.clone()
    for copy in copies:
        copy.fill_(torch.nan)
    nothing = torch.zeros(3, TOKENS, dtype=torch.bool)
    found = attention.update(state, buffered.qkv, *buffered.change(nothing), buffered.bias)
    assert torch.equal(found, expected)


def test_heads_of_windows_are_joined_as_those_of_frames():
    """The last axis of the output is (heads, dim)."""
    buffered = Buffered(1, biased=False)
    output, _ = windowed().start(buffered.qkv)
    heads = torch.from_numpy(buffered.full().numpy().reshape(1, PLACES, HEADS, DIM))
    assert error(output, join_heads(heads.transpose(1, 2))) < TOLERANCE[torch.float64]
