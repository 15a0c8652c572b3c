"""The number of pooled tokens that change on the demo clip."""

import pytest
import torch

from eventful.paper.clip import _frames, pooled_count, pooled_tokens

BUDGETS = (32, 100)


@pytest.mark.parametrize(
    ("updated", "cells"),
    [([], 0), ([0, 1, 6, 7], 1), ([0, 2, 4], 3), ([7, 8], 2), (range(36), 9), ([35], 1)],
)
def test_cells_by_hand(updated, cells):
    mask = torch.zeros(36, dtype=torch.bool)
    mask[list(updated)] = True
    assert pooled_count(mask) == cells


@pytest.fixture(scope="module")
def found():
    return pooled_tokens(320, BUDGETS)


def test_it_lies_between_the_bounds_and_apart_from_both(found):
    for r in BUDGETS:
        assert 1.05 * r / 4 < found[r] < 0.9 * r


def test_more_tokens_lie_in_more_cells_but_closer_together(found):
    few, many = BUDGETS
    assert found[few] < found[many]
    assert found[few] / few > found[many] / many


def test_frames_are_cropped_to_16_by_9_and_padded_below():
    """At 320: 20 x 11.25 tokens of picture in 20 x 20."""
    frame = next(_frames(320))
    assert frame.shape == (1, 400, 192)
    lines = frame.view(20, 20, 192)
    assert lines[:11].abs().sum(dim=2).min() > 0
    assert lines[11].view(20, 3, 8, 8)[:, :, 2:].abs().max() == 0
    assert lines[12:].abs().max() == 0


def test_the_values_of_a_token_are_pixels_next_to_each_other():
    """So that neighbours in a token differ less than pixels of different tokens do."""
    pixels = next(_frames(320)).view(20, 20, 3, 8, 8)[:11]
    inside = pixels.diff(dim=4).abs().mean()
    assert inside < 0.5 * pixels.diff(dim=1).abs().mean()
