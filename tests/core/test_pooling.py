"""Keys and values averaged over cells: by hand, and attention kept up to date over them."""

import pytest
import torch

from eventful.attention import FORMS, Keys, Pooling, join_heads, split_heads
from eventful.block.buffer import TokenBuffer
from eventful.ops import Index, RelativePositions, attend

from .conftest import KEPT, Buffered, error, ragged

GRID = (3, 5)  # 2 x 3 cells, those at the border of fewer tokens
POOLING = Pooling(GRID, 2)
BATCH, TOKENS, HEADS, DIM = 2, 15, 2, 5
EXACT = ("dense", "query_key", "incremental")


def test_cells_average_the_tokens_that_they_hold():
    x = torch.arange(15.0).view(1, 15, 1)
    assert POOLING.cells == (2, 3)
    assert POOLING.count == 6
    #  0  1 |  2  3 |  4
    #  5  6 |  7  8 |  9
    # ------+-------+---
    # 10 11 | 12 13 | 14
    assert POOLING.pool(x).flatten().tolist() == [3, 5, 6.5, 10.5, 12.5, 14]


def test_lines_are_averaged_as_the_sum_over_their_cells_is():
    table = torch.randn(2, 3, 4, 8, dtype=torch.float64)
    tokens = RelativePositions(table, GRID).bias()
    cells = RelativePositions(POOLING.pool_lines(table), POOLING.cells).bias()
    expected = POOLING.pool(tokens.flatten(0, 2)[..., None])[..., 0]
    assert torch.allclose(cells.flatten(0, 2), expected, atol=1e-14)


def test_a_cell_is_in_the_set_if_one_of_its_tokens_is():
    index = Index.from_mask(
        torch.zeros(2, 15, dtype=torch.bool).index_fill(1, torch.tensor(9), True)
    )
    assert POOLING.index(index).flat.tolist() == [2, 8]
    rows = torch.zeros(2, 15, dtype=torch.bool)
    rows[1, [0, 1, 6, 12]] = True
    cells = POOLING.index(Index.from_mask(rows))
    assert (cells.counts, cells.flat.tolist()) == ((0, 2), [6, 10])


class Pooled(Buffered):
    """Buffered q, k, v whose keys and values are pooled, with relative positions of the cells."""

    def __init__(self, dtype):
        super().__init__(BATCH, TOKENS, HEADS, DIM, dtype)
        self.kv = TokenBuffer.new(self._pool().flatten(0, 1), BATCH, dtype)
        table = torch.randn(BATCH, HEADS, TOKENS, 5, generator=self.generator).to(dtype)
        self.bias = RelativePositions(table, POOLING.cells)

    def _pool(self):
        return POOLING.pool(self.qkv[..., HEADS * DIM :])

    def keys(self, index):
        """Bring the pooled buffer up to date."""
        cells = POOLING.index(index)
        self.kv.replace_(cells, cells.gather(self._pool()))
        return Keys(self.kv.tokens, cells, self.kv.before)

    def full(self):
        q = split_heads(self.qkv.double(), HEADS)[0]
        k, v = split_heads(self._pool().double(), HEADS, parts=2)
        return join_heads(attend(q, k, v, self.scale, self.bias.bias().double())[0])


@pytest.mark.parametrize("sets", [ragged(6, BATCH, TOKENS), "even"], ids=["ragged", "even"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", EXACT)
def test_exact_forms_are_full_attention_over_the_pooled_keys(name, dtype, sets):
    buffered = Pooled(dtype)
    form = FORMS[name](HEADS, buffered.scale)
    output, state = form.start(buffered.qkv, buffered.bias, buffered.kv.tokens)
    assert error(output, buffered.full()) < KEPT[dtype]
    for t in range(6):
        mask = torch.zeros(BATCH, TOKENS, dtype=torch.bool)
        mask = mask.index_fill(1, torch.tensor([t, t + 7]), True) if sets == "even" else sets[t]
        old, index = buffered.change(mask)
        keys = buffered.keys(index)
        output = form.update(state, buffered.qkv, old, index, buffered.bias, keys)
        assert error(output, buffered.full()) < KEPT[dtype]


def test_cached_over_pooled_keys_is_exact_where_all_of_them_change():
    """Every second token touches every cell, so that no column of A keeps an old norm."""
    buffered = Pooled(torch.float64)
    form = FORMS["cached"](HEADS, buffered.scale)
    _, state = form.start(buffered.qkv, buffered.bias, buffered.kv.tokens)
    mask = (torch.arange(TOKENS) % 2 == 0).expand(BATCH, -1)
    old, index = buffered.change(mask)
    keys = buffered.keys(index)
    assert keys.index.is_everything
    output = form.update(state, buffered.qkv, old, index, buffered.bias, keys)
    assert error(output, buffered.full()) < 1e-12


def test_half_precision_rounds_the_factors_of_the_attention_value_product():
    buffered = Buffered(BATCH, TOKENS, HEADS, DIM)
    for name in ("query_key", "cached"):
        exact, _ = FORMS[name](HEADS, buffered.scale).start(buffered.qkv)
        half, _ = FORMS[name](HEADS, buffered.scale, half=True).start(buffered.qkv)
        assert half.dtype == torch.float32
        assert 1e-5 < error(half, exact) < 2e-3
