"""Old import paths of public names."""

import importlib
import sys

import pytest

from eventful.moved import MOVED


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_a_former_name_gives_the_module_with_a_warning(old, new):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(new)


def test_a_name_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"eventful\.nothing"):
        importlib.import_module("eventful.nothing")
