"""A model and a cache of its spatial outputs."""

import pytest

from eventful.finetuning import (
    cache_spatial_outputs,
)
from tests.finetuning.tiny import videos, vivit


@pytest.fixture
def model():
    return vivit()


@pytest.fixture
def cache(model, tmp_path):
    return cache_spatial_outputs(model, videos(), None, tmp_path / "cache")
