"""Index sets against plain loops over the mask."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eventful.ops import Index

property_test = settings(deadline=None, max_examples=60)


@st.composite
def masks(draw):
    """(batch, tokens); rows with none and with all of the tokens come up often."""
    tokens = draw(st.integers(1, 7))
    some = st.lists(st.booleans(), min_size=tokens, max_size=tokens)
    row = st.one_of(st.just([False] * tokens), st.just([True] * tokens), some)
    return torch.tensor(draw(st.lists(row, min_size=1, max_size=4)))


def selected(mask):
    """(row, token) of every selected token, in order."""
    rows = enumerate(mask.tolist())
    return [(row, token) for row, line in rows for token, on in enumerate(line) if on]


def counted(mask, dim=3):
    """(batch, tokens, dim) of different numbers."""
    return torch.arange(mask.numel() * dim, dtype=torch.float32).view(*mask.shape, dim)


@property_test
@given(masks())
def test_a_set_lists_the_tokens_of_its_mask(mask):
    index, tokens = Index.from_mask(mask), mask.shape[1]
    assert index.flat.tolist() == [row * tokens + token for row, token in selected(mask)]
    assert index.counts == tuple(sum(line) for line in mask.tolist())
    assert index.tokens == tokens
    assert index.positions.tolist() == [token for _, token in selected(mask)]
    of_row = [[t for r, t in selected(mask) if r == row] for row in range(len(mask))]
    assert [row.tolist() for row in index.rows()] == of_row
    assert torch.equal(index.mask(), mask)
    assert index.is_everything == (len(selected(mask)) == mask.numel())


@property_test
@given(masks())
def test_gather_picks_and_scatter_writes_the_selected_tokens_alone(mask):
    index, x = Index.from_mask(mask), counted(mask)
    expected = [x[row, token].tolist() for row, token in selected(mask)]
    assert index.gather(x).tolist() == expected

    values = -1 - torch.arange(len(expected) * 3, dtype=torch.float32).view(-1, 3)
    written = x.clone()
    for value, (row, token) in zip(values, selected(mask), strict=True):
        written[row, token] = value
    index.scatter_(x, values)
    assert torch.equal(x, written)


@property_test
@given(st.data())
def test_positions_in_any_order_make_an_ascending_set(data):
    tokens = data.draw(st.integers(1, 7))
    active = data.draw(st.integers(0, tokens))
    rows = data.draw(st.lists(st.permutations(range(tokens)), min_size=1, max_size=4))
    positions = torch.tensor([row[:active] for row in rows], dtype=torch.long)
    index = Index.from_positions(positions.view(len(rows), active), tokens)
    assert index.counts == (active,) * len(rows)
    assert [row.tolist() for row in index.rows()] == [sorted(row[:active]) for row in rows]
    assert index.flat.tolist() == sorted(index.flat.tolist())


def test_everything_is_the_set_of_all_tokens():
    index = Index.everything(3, 5)
    assert index.flat.tolist() == list(range(15))
    assert index.counts == (5, 5, 5)
    assert index.is_everything


@property_test
@given(masks(), st.integers(0, 3))
def test_a_set_behind_a_prefix_selects_the_whole_prefix(mask, prefix):
    index = Index.from_mask(mask).after_prefix(prefix)
    assert index.tokens == mask.shape[1] + prefix
    assert index.mask().tolist() == [[True] * prefix + line for line in mask.tolist()]
    assert index.counts == tuple(prefix + sum(line) for line in mask.tolist())


@property_test
@given(masks(), st.data())
def test_with_rows_adds_whole_rows_and_leaves_the_others(mask, data):
    rows = data.draw(st.lists(st.integers(0, len(mask) - 1)))
    index = Index.from_mask(mask).with_rows(rows)
    lines = enumerate(mask.tolist())
    assert index.mask().tolist() == [
        [True] * len(line) if row in rows else line for row, line in lines
    ]


@pytest.mark.parametrize("everything", [False, True])
def test_gather_reads_through_any_strides(everything):
    mask = torch.tensor([[True, False, True], [everything, True, everything]])
    mask |= everything
    x = counted(mask, dim=5)
    for view in (x.transpose(0, 1).contiguous().transpose(0, 1), x[:, :, 1:4]):
        expected = [view[row, token].tolist() for row, token in selected(mask)]
        assert Index.from_mask(mask).gather(view).tolist() == expected


def test_scatter_writes_through_strides_or_raises():
    """It must never write into a copy."""
    index = Index.from_mask(torch.tensor([[True, False, True], [False, True, False]]))
    wide = torch.zeros(2, 3, 5)
    index.scatter_(wide[:, :, 1:3], torch.ones(3, 2))
    assert wide.sum() == 6
    with pytest.raises(RuntimeError, match="view"):
        index.scatter_(torch.zeros(3, 2, 5).transpose(0, 1), torch.ones(3, 5))


@pytest.mark.parametrize("everything", [False, True])
def test_scatter_refuses_values_for_another_number_of_tokens(everything):
    index = Index.from_mask(torch.tensor([[True, everything, True]]))
    with pytest.raises((RuntimeError, IndexError)):
        index.scatter_(torch.zeros(1, 3, 2), torch.ones(1, 2))


def test_all_tokens_in_another_order_are_still_put_in_their_places():
    """A permutation without gaps is not the identity."""
    index = Index.everything(2, 3).moved(torch.tensor([1, 2, 0]), size=3)
    assert index.flat.tolist() == [1, 2, 0, 4, 5, 3]
    x = torch.zeros(2, 3, 1)
    index.scatter_(x, torch.arange(6.0)[:, None])
    assert x.flatten().tolist() == [2, 0, 1, 5, 3, 4]
    assert index.gather(x).flatten().tolist() == [0, 1, 2, 3, 4, 5]
