"""Adaptive token sampling: scores against a loop, and slots that keep their tokens."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from eventful.block.sampling import class_scores, sample, take

HEADS, DIM, TOKENS = 2, 3, 7


def test_scores_are_the_class_tokens_row_times_the_norms_of_values():
    qkv = torch.randn(2, TOKENS, 3 * HEADS * DIM, dtype=torch.float64)
    x = qkv.view(2, TOKENS, 3, HEADS, DIM)
    expected = torch.zeros(2, TOKENS, dtype=torch.float64)
    for row in range(2):
        for head in range(HEADS):
            q, k, v = x[row, :, :, head].unbind(1)
            a = torch.exp(k @ q[0] * 0.7)
            expected[row] += a / a.sum() * v.norm(dim=1)
    assert torch.allclose(class_scores(qkv, HEADS, 0.7), expected)


def test_tokens_are_taken_by_slot():
    x = torch.arange(2.0 * TOKENS).view(2, TOKENS, 1)
    slots = torch.tensor([[0, 5, 2], [0, 1, 6]])
    assert take(x, slots)[..., 0].tolist() == [[0, 5, 2], [7, 8, 13]]


@given(
    seed=st.integers(0, 999),
    kept=st.integers(2, TOKENS),
    prefix=st.integers(1, 2),
    frames=st.just(4),
)
def test_a_token_that_stays_chosen_stays_in_its_slot(seed, kept, prefix, frames):
    generator = torch.Generator().manual_seed(seed)
    kept = max(kept, prefix + 1)
    before = None
    for _ in range(frames):
        score = torch.rand(3, TOKENS, generator=generator)
        slots = sample(score, kept, prefix, before)
        for row in range(3):
            rest = score[row, prefix:].argsort(descending=True)[: kept - prefix] + prefix
            chosen = {*range(prefix), *rest.tolist()}
            tokens = slots[row].tolist()
            assert set(tokens) == chosen
            assert len(tokens) == kept
            if before is None:
                assert tokens == sorted(tokens)
                continue
            old = before[row].tolist()
            assert all(new == then for new, then in zip(tokens, old, strict=True) if then in chosen)
            fresh = [new for new, then in zip(tokens, old, strict=True) if then not in chosen]
            assert fresh == sorted(fresh)
        before = slots
