"""Scores of maps, against rank statistics and plain loops."""

import math

import numpy as np
import pytest
import torch

from eventful.evaluation.measures.maps import MapCounts, MapScores, map_scores


def scores_of(*frames):
    counts = MapCounts()
    for values, mask in frames:
        counts.add(torch.as_tensor(values), torch.as_tensor(mask))
    return map_scores(counts.arrays())


def rank_auc(values, mask):
    """The statistic of Mann and Whitney, pair by pair, ties half."""
    inside, outside = values[mask][:, None], values[~mask][None]
    return ((inside > outside) + 0.5 * (inside == outside)).mean()


def loop_f_beta(values, mask):
    best = 0.0
    for level in range(256):
        found = values >= level / 255
        hits = (found & mask).sum()
        if hits:
            precision, recall = hits / found.sum(), hits / mask.sum()
            best = max(best, 1.3 * precision * recall / (0.3 * precision + recall))
    return best


@pytest.mark.parametrize("shape", ["even", "low", "steps"])
def test_map_scores_are_those_of_plain_computations(shape):
    rng = np.random.default_rng(3)
    values = rng.random((11, 17)).astype(np.float32)
    if shape == "low":
        values = values**7  # most of them near zero, where few thresholds lie
    elif shape == "steps":
        values = np.round(values * 5) / 5 * 0.99 + 0.003  # ties
    mask = rng.random((11, 17)) < 0.2 + 0.5 * values
    scores = scores_of((values[:4], mask[:4]), (values[4:], mask[4:]))
    assert scores.auc == pytest.approx(rank_auc(values, mask), abs=1e-3)
    assert scores.f_beta == pytest.approx(loop_f_beta(values, mask))
    assert scores.mae == pytest.approx(np.abs(values - mask).mean(), rel=1e-6)


def test_maps_at_their_ends():
    """Values of exactly 0 and 1 have no finite log-odds."""
    ones = scores_of(([0.0, 1.0, 1.0], [False, True, True]))
    assert ones == MapScores(1.0, pytest.approx(1.0), 0.0)
    assert scores_of(([0.5, 0.5], [False, False])) == MapScores(None, None, 0.5)
    assert scores_of(([0.5, 0.5], [True, True])).auc is None
    assert scores_of() == MapScores(None, None, None)


def test_maps_that_are_none():
    counts = MapCounts()
    with pytest.raises(ValueError, match=r"a map \(3,\) for a mask \(5,\)"):
        counts.add(torch.zeros(3), torch.zeros(5, dtype=torch.bool))
    for bad in (math.nan, 1.5):
        with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
            counts.add(torch.tensor([0.5, bad]), torch.tensor([True, False]))
