"""Settings for all tests."""

import pytest
import torch

from eventful.attention import Incremental

torch.set_num_threads(1)  # tensors are tiny here: a second thread costs more than it brings


@pytest.fixture(autouse=True)
def _crossover_of_many_tokens(monkeypatch):
    """Tests run few tokens, of which full attention would be faster; here updates count."""
    monkeypatch.setattr(
        Incremental, "full_is_cheaper", staticmethod(lambda active, tokens: active >= 0.42 * tokens)
    )
