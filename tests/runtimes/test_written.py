"""What runtimes do not know, written out."""

import pytest
import torch
from torch.nn import functional

from eventful import ops
from eventful.ops import RelativePositions
from eventful.runtimes import written
from tests.zoo import relative


@pytest.mark.parametrize(("before", "after"), [(4, 2), (14, 9), (9, 14), (7, 7), (16, 37)])
def test_bicubic_resampling_is_that_of_pytorch(before, after):
    x = torch.randn(2, 3, before, before + 1, dtype=torch.float64)
    options = {"size": (after, after + 2), "mode": "bicubic", "antialias": True}
    expected = functional.interpolate(x, **options)
    with written.WrittenOut():
        assert relative(functional.interpolate(x, **options), expected) < 1e-14


@pytest.mark.parametrize(
    "options",
    [
        {"size": 5, "mode": "bicubic"},
        {"scale_factor": 2.0, "mode": "bicubic", "antialias": True},
        {"size": 5, "mode": "bilinear", "antialias": True},
    ],
)
def test_other_resampling_stays_as_it_is(options):
    x = torch.randn(1, 2, 4, 4)
    expected = functional.interpolate(x, **options)
    with written.WrittenOut():
        assert torch.equal(functional.interpolate(x, **options), expected)


@pytest.mark.parametrize("spread", [1, 40, 1 << 20])
def test_relative_positions_some_queries_at_a_time(spread, monkeypatch):
    monkeypatch.setattr(written, "SPREAD", spread)
    q, k, v = torch.randn(3, 2, 3, 6, 4, dtype=torch.float64)
    bias = RelativePositions(torch.randn(2, 3, 6, 5, dtype=torch.float64), (2, 3))
    expected, _ = ops.attend(q, k, v, 0.5, bias)
    with written.WrittenOut():
        o, _ = ops.attend(q, k, v, 0.5, bias)
    assert relative(o, expected) < 1e-12
