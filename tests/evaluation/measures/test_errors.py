"""Relative errors of patch tokens."""

import numpy as np
import pytest
import torch

from eventful.evaluation.measures.errors import TokenErrors, summarised


def test_errors_of_tokens():
    torch.manual_seed(0)
    dense, other = torch.randn(2, 5, 3)
    objects = torch.tensor([True, False, True, False, False])
    errors = TokenErrors()
    errors.add(other, dense, objects)
    errors.add(other, dense, torch.zeros(5, dtype=torch.bool))
    errors.add(dense, dense, None)
    whole = ((other - dense) ** 2).sum().sqrt() / (dense**2).sum().sqrt()
    own = (((other - dense)[[0, 2]]) ** 2).sum().sqrt() / (dense[[0, 2]] ** 2).sum().sqrt()
    arrays = errors.arrays()
    assert arrays["error"] == pytest.approx([float(whole), float(whole), 0.0])
    assert arrays["error_objects"] == pytest.approx([float(own), np.nan, np.nan], nan_ok=True)
    assert summarised(arrays["error"]).mean == pytest.approx(2 / 3 * float(whole))
    assert summarised(np.array([np.nan])) == (None, None, None)
