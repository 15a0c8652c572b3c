"""What the laws run on: every supported kind of block."""

import pytest

from tests.zoo import FAMILIES


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param
