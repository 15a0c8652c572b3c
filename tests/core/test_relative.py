"""Relative positions against loops, and attention with them against their bias spread out."""

import pytest
import torch

from eventful.ops import RelativePositions, attend
from eventful.ops import attention as ops_attention
from eventful.ops.backends import BACKENDS

from .conftest import TOLERANCE, error

BATCH, HEADS, QUERIES, DIM = 3, 2, 7, 5
GRIDS = ((3, 5), (4, 1), (1, 6), (2, 2))
KEYS = torch.tensor([[4, 0, 3], [2, 2, 1], [0, 3, 3]])  # cells of a grid of at least five
CHOSEN = torch.tensor([[6, 0], [3, 3], [1, 5]])


def drawn(grid, dtype=torch.float64, batch=BATCH, queries=QUERIES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(batch, HEADS, queries, sum(grid), generator=generator)
    return RelativePositions(table.to(dtype), grid)


def by_loop(positions):
    """bias[i, j] = table_h[i, y_j] + table_w[i, x_j], one number after the other."""
    height, width = positions.grid
    batch, heads, queries, _ = positions.table.shape
    cells = torch.arange(height * width).expand(batch, -1)
    keys = cells if positions.keys is None else positions.keys
    bias = positions.table.new_full((batch, heads, queries, keys.shape[1]), torch.nan)
    for row in range(batch):
        for j, key in enumerate(keys[row].tolist()):
            y, x = divmod(key, width)
            table = positions.table[row]
            bias[row, :, :, j] = table[:, :, y] + table[:, :, height + x]
    return bias


def test_two_queries_of_two_heads_on_a_grid_of_two_by_three_by_hand():
    table = torch.tensor([[[10.0, 20.0, 1.0, 2.0, 3.0]], [[100.0, 50.0, 6.0, 5.0, 4.0]]])[None]
    positions = RelativePositions(table, (2, 3))
    expected = [[[[11, 12, 13, 21, 22, 23]], [[106, 105, 104, 56, 55, 54]]]]
    assert positions.bias().tolist() == expected
    some = positions.of_keys(torch.tensor([[5, 1, 3]]))
    assert some.bias().tolist() == [[[[23, 12, 21]], [[54, 105, 56]]]]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_bias_is_that_of_a_loop(grid):
    positions = drawn(grid)
    assert positions.bias().shape == (BATCH, HEADS, QUERIES, grid[0] * grid[1])
    assert torch.equal(positions.bias(), by_loop(positions))


@pytest.mark.parametrize("grid", [(3, 5), (5, 3), (1, 6)], ids=str)
def test_the_bias_on_some_keys_is_that_of_a_loop(grid):
    """Keys in any order, some of them twice, and others in every row."""
    some = drawn(grid).of_keys(KEYS)
    assert some.bias().shape == (BATCH, HEADS, QUERIES, 3)
    assert torch.equal(some.bias(), by_loop(some))


def test_choosing_queries_keys_and_rows_commutes_with_spreading_out():
    positions = drawn((3, 5))
    whole = positions.bias()
    rows = torch.arange(BATCH)[:, None]
    queries = whole.transpose(1, 2)[rows, CHOSEN].transpose(1, 2)
    keys = torch.stack([whole[row][:, :, KEYS[row]] for row in range(BATCH)])
    both = torch.stack([queries[row][:, :, KEYS[row]] for row in range(BATCH)])
    assert torch.equal(positions.of_queries(CHOSEN).bias(), queries)
    assert torch.equal(positions.of_keys(KEYS).bias(), keys)
    assert torch.equal(positions.of_queries(CHOSEN).of_keys(KEYS).bias(), both)
    assert torch.equal(positions.of_keys(KEYS).of_queries(CHOSEN).bias(), both)
    for part in (slice(1, 2), slice(1, 3), slice(0, 0)):
        assert torch.equal(positions.of_rows(part).bias(), whole[part])
        of_both = positions.of_keys(KEYS).of_queries(CHOSEN).of_rows(part)
        assert torch.equal(of_both.bias(), both[part])


def test_the_keys_chosen_last_count_by_their_place_in_the_grid():
    positions = drawn((3, 5))
    again = positions.of_keys(KEYS + 7).of_keys(KEYS)
    assert torch.equal(again.bias(), positions.of_keys(KEYS).bias())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_some_keys_have_the_bias_that_they_have_among_all(dtype):
    """To the bit: one sum of two numbers, however it is computed."""
    positions = drawn((3, 5), dtype)
    expected = torch.stack([positions.bias()[row][:, :, KEYS[row]] for row in range(BATCH)])
    found = positions.of_keys(KEYS).bias()
    assert found.dtype == dtype
    assert torch.equal(found, expected)


def qkv(keys, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = (QUERIES, keys, keys)
    return [torch.randn(BATCH, HEADS, n, DIM, generator=generator).to(dtype) for n in shapes]


def full(q, k, v, scale, bias):
    """Output and log-sum-exp in float64, from their definition."""
    scores = torch.einsum("bhid,bhjd->bhij", q.double(), k.double()) * scale + bias.double()
    weights = scores.exp()
    return weights @ v.double() / weights.sum(-1, keepdim=True), weights.sum(-1).log()


# So small that the bias is spread out by parts: over batch rows, over heads, over queries, and one
# query at a time even where a query's scores are more than that.
SPREADS = {None: 1, 15 * 7 * 2 * 2: 2, 15 * 7 * 2: 3, 15 * 7: 6, 15 * 3: 18, 15: 42, 1: 42}


@pytest.fixture(params=SPREADS, ids=str)
def spread(request, monkeypatch):
    """Returns how many parts there are; the last of them may be smaller."""
    if request.param is not None:
        monkeypatch.setattr(ops_attention, "_SPREAD", request.param)
    return SPREADS[request.param]


@pytest.fixture
def spread_out(monkeypatch):
    """The shapes of all biases that a backend is given."""
    shapes = []

    def noting(run):
        def wrapper(q, k, v, scale, bias):
            shapes.append(tuple(bias.shape))
            return run(q, k, v, scale, bias)

        return wrapper

    for name, run in list(BACKENDS.items()):
        monkeypatch.setitem(BACKENDS, name, noting(run))
    return shapes


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("backend", ["fused", "plain"])
def test_attention_is_that_with_the_bias_spread_out(backend, dtype, spread, spread_out):
    positions = drawn((3, 5), dtype)
    q, k, v = qkv(15, dtype)
    o, lse = attend(q, k, v, 0.4, positions, backend)
    assert len(spread_out) == spread
    assert sum(torch.Size(shape).numel() for shape in spread_out) == BATCH * HEADS * QUERIES * 15
    plain_o, plain_lse = attend(q, k, v, 0.4, positions.bias(), backend)
    assert (o.dtype, lse.dtype) == (plain_o.dtype, plain_lse.dtype)
    for found, whole, expected in zip(
        (o, lse),
        (plain_o, plain_lse),
        full(q, k, v, 0.4, positions.bias()),
        strict=True,
    ):
        assert error(found, whole) < TOLERANCE[dtype]
        assert error(found, expected) < TOLERANCE[dtype]
    assert error(full(q, k, v, 0.4, 0 * positions.bias())[0], o.double()) > 1e-2


@pytest.mark.parametrize("backend", ["fused", "plain"])
def test_attention_over_some_queries_and_keys_is_that_with_their_bias(backend, spread):
    """As an update of incremental attention asks: other queries and keys in every row."""
    positions = drawn((3, 5)).of_queries(CHOSEN).of_keys(KEYS)
    q, k, v = qkv(3)
    q = q[:, :, :2]
    found = attend(q, k, v, 0.4, positions, backend)
    expected = full(q, k, v, 0.4, by_loop(positions))
    for ours, theirs in zip(found, expected, strict=True):
        assert error(ours, theirs) < TOLERANCE[torch.float64]


@pytest.mark.parametrize("rows", [1, 4])
def test_parts_hold_every_row_head_and_query_once(rows, spread):
    parts = ops_attention._parts(rows, HEADS, QUERIES, 15)
    times = torch.zeros(rows, HEADS, QUERIES)
    for part in parts:
        times[part] += 1
        assert 0 < times[part].numel() * 15 <= max(ops_attention._SPREAD, 15)
    assert (times == 1).all()


@pytest.mark.parametrize("backend", ["fused", "plain"])
def test_no_keys_give_the_empty_state(backend):
    nothing = drawn((3, 5)).of_keys(torch.zeros(BATCH, 0, dtype=torch.int64))
    assert nothing.bias().shape == (BATCH, HEADS, QUERIES, 0)
    o, lse = attend(*qkv(0), 0.4, nothing, backend)
    assert torch.equal(o, torch.zeros(BATCH, HEADS, QUERIES, DIM, dtype=torch.float64))
    assert (lse == -torch.inf).all()
    assert lse.shape == (BATCH, HEADS, QUERIES)


@pytest.mark.parametrize("backend", ["fused", "plain"])
def test_no_queries_give_nothing(backend):
    nobody = drawn((3, 5)).of_queries(torch.zeros(BATCH, 0, dtype=torch.int64))
    q, k, v = qkv(15)
    o, lse = attend(q[:, :, :0], k, v, 0.4, nobody, backend)
    assert (o.shape, lse.shape) == ((BATCH, HEADS, 0, DIM), (BATCH, HEADS, 0))


@pytest.mark.parametrize("keys", [None, KEYS], ids=["all", "some"])
def test_the_compiler_is_told_the_truth_about_the_operator(keys):
    positions = drawn((3, 5), torch.float32)
    q, k, v = qkv(15 if keys is None else 3, torch.float32)
    table = positions.table
    arguments = (q, k, v, 0.4, None, table, keys, [3, 5], "fused")
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.eventful.attend.default, arguments, test_utils=tests)
