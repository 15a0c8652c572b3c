"""Settings for all tests."""

import pytest

from eventful.attention import Incremental


@pytest.fixture(autouse=True)
def _crossover_of_many_tokens(monkeypatch):
    """Tests run few tokens, of which full attention would be faster; here updates count."""

    def full_is_cheaper(active, tokens, changed=None):
        return active >= 0.42 * tokens

    monkeypatch.setattr(Incremental, "full_is_cheaper", staticmethod(full_is_cheaper))
