"""Token buffers against plain loops."""

import pytest
import torch

from eventful.buffers import TokenBuffer
from eventful.ops import Index

from .conftest import ragged

SHAPE = (3, 11, 5)
EVERYTHING = torch.ones(1, *SHAPE[:2], dtype=torch.bool)


def frames():
    """Masks of ragged sets, of everything and of nothing, with new values for each."""
    generator = torch.Generator().manual_seed(0)
    for mask in torch.cat([ragged(5), EVERYTHING, ~EVERYTHING, ragged(1)]):
        yield mask, torch.randn(int(mask.sum()), SHAPE[-1], generator=generator)


@pytest.mark.parametrize("method", ["write_", "replace_"])
def test_a_buffer_holds_every_tokens_latest_values(method):
    buffer, expected = TokenBuffer(torch.zeros(SHAPE)), torch.zeros(SHAPE)
    for mask, values in frames():
        for value, (row, token) in zip(values, mask.nonzero().tolist(), strict=True):
            expected[row, token] = value
        getattr(buffer, method)(Index.from_mask(mask), values)
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
