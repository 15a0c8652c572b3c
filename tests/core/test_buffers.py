"""Token buffers against plain loops."""

import pytest
import torch

from eventful.block.buffer import TokenBuffer
from eventful.ops import Index

from .conftest import ragged

SHAPE = (3, 11, 5)
EVERYTHING = torch.ones(1, *SHAPE[:2], dtype=torch.bool)


def frames():
    """Masks of ragged sets, of everything and of nothing, with new values for each."""
    generator = torch.Generator().manual_seed(0)
    for mask in torch.cat([ragged(5), EVERYTHING, ~EVERYTHING, ragged(1)]):
        yield mask, torch.randn(int(mask.sum()), SHAPE[-1], generator=generator)


@pytest.mark.parametrize("keep", [False, True])
def test_a_buffer_holds_every_tokens_latest_values(keep):
    buffer, expected = TokenBuffer(torch.zeros(SHAPE)), torch.zeros(SHAPE)
    for mask, values in frames():
        for value, (row, token) in zip(values, mask.nonzero().tolist(), strict=True):
            expected[row, token] = value
        old = buffer.replace_(Index.from_mask(mask), values, keep=keep)
        assert (old is not None) == keep
        assert torch.equal(buffer.tokens, expected)


def test_replace_returns_what_stood_there_and_keeps_it_apart():
    buffer = TokenBuffer(torch.zeros(SHAPE))
    for mask, values in frames():
        expected = buffer.tokens[mask]
        old = buffer.replace_(Index.from_mask(mask), values)
        assert torch.equal(old, expected)
        old.fill_(torch.nan)
        values.fill_(torch.nan)
        assert buffer.tokens.isfinite().all()


def test_undo_brings_back_what_the_last_frame_overwrote():
    buffer = TokenBuffer(torch.zeros(SHAPE))
    for mask, values in frames():
        before = buffer.tokens.clone()
        buffer.replace_(Index.from_mask(mask), values)
        buffer.undo_()
        assert torch.equal(buffer.tokens, before)
        buffer.undo_()  # there is nothing left to undo
        assert torch.equal(buffer.tokens, before)
        buffer.replace_(Index.from_mask(mask), values)


def test_tokens_in_another_order_are_found_by_their_slots():
    """Three tokens in five places, of which two are padding."""
    buffer = TokenBuffer(torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]]))
    buffer.reorder(torch.tensor([4, 0, 2]), places=5, padding=torch.tensor([9.0]))
    assert buffer.tokens.squeeze(-1).tolist() == [[2, 9, 3, 9, 1], [5, 9, 6, 9, 4]]
    index = Index.from_mask(torch.tensor([[True, False, True], [False, True, False]]))
    old = buffer.replace_(index, torch.tensor([[10.0], [30.0], [50.0]]))
    assert old.flatten().tolist() == [1, 3, 5]
    assert buffer.tokens.squeeze(-1).tolist() == [[2, 9, 30, 9, 10], [50, 9, 6, 9, 4]]
    buffer.undo_()
    assert buffer.tokens.squeeze(-1).tolist() == [[2, 9, 3, 9, 1], [5, 9, 6, 9, 4]]
