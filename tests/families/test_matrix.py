"""The table of supported models is what the laws give."""

import json

import pytest

from tests.families.matrix import PAGE, RESULT, compiles, filled, keep_all_error, row
from tests.families.zoo import CASES

ROWS = json.loads(RESULT.read_text())["rows"]


def test_the_page_holds_what_the_result_holds_of_every_family():
    assert list(ROWS) == list(CASES)
    assert PAGE.read_text() == filled(PAGE.read_text(), ROWS)


@pytest.mark.parametrize("name", CASES)
def test_keep_all_is_as_close_as_the_table_says(name):
    assert keep_all_error(name) < max(1e-6, 10 * ROWS[name]["keep-all"])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_table_is_what_the_laws_give(name):
    found = row(name)
    known = {key: ROWS[name][key] for key in found}
    assert found | {"keep-all": 0.0} == known | {"keep-all": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT", "DINOv3", "SAM vision", "torchvision ViT", "YOLOS"])
def test_compiled_blocks_give_what_others_give(name):
    assert ROWS[name]["compile"]
    compiles(name)
