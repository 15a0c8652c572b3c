"""Masks and frames on a grid of patches."""

import numpy as np
import pytest
import torch

from eventful.evaluation.measures.patches import fitted_frame, share


def loop_share(mask, grid):
    """Exact areas: every pixel is cut into as many parts as cells need."""
    big = np.kron(mask.astype(float), np.ones(grid))
    height, width = mask.shape
    cells = big.reshape(grid[0], height, grid[1], width)
    return cells.mean(axis=(1, 3))


def test_share_of_patches():
    mask = np.random.default_rng(2).random((7, 11)) < 0.4
    for grid in ((3, 5), (7, 11), (1, 1), (9, 2)):
        found = share(torch.from_numpy(mask), grid)
        assert found.numpy() == pytest.approx(loop_share(mask, grid), abs=1e-6)


def test_frames_at_the_models_size():
    image = torch.rand(3, 20, 30)
    assert fitted_frame(image, (14, 42)).shape == (1, 3, 14, 42)
    assert torch.equal(fitted_frame(image, (20, 30))[0], image)
