"""A probe on patch tokens."""

import pytest
import torch

from eventful.evaluation.measures.probe import fit


def test_a_probe_finds_the_direction():
    torch.manual_seed(1)
    tokens = torch.randn(400, 7) * torch.tensor([1.0, 5, 1, 1, 1, 1, 0]) + 3
    labels = tokens[:, 1] > 4
    probe = fit(tokens, labels)
    assert ((probe(tokens) > 0.5) == labels).float().mean() > 0.98
    with torch.inference_mode():
        again = fit(tokens, labels)
    assert torch.equal(again.weight, probe.weight)
    for same in (torch.zeros(400, dtype=torch.bool), torch.ones(400, dtype=torch.bool)):
        with pytest.raises(ValueError, match="a probe needs patches on and off objects; all 400"):
            fit(tokens, same)
