"""Tasks on tiny data sets with tiny models."""

import io

import pytest
from rich.console import Console

from eventful.evaluation import Choice
from tests.evaluation import data


@pytest.fixture
def vid_root(tmp_path):
    (tmp_path / "vid").mkdir()
    return data.write_vid(tmp_path / "vid")


@pytest.fixture
def vid(vid_root):
    """A fresh task on every call, as another run of the command has it."""
    return lambda: data.make_vid(data.detector(), Choice(vid_root))


@pytest.fixture(scope="session")
def kinetics_root(tmp_path_factory):
    return data.write_kinetics(tmp_path_factory.mktemp("kinetics"))


@pytest.fixture
def kinetics(kinetics_root):
    return lambda: data.make_kinetics(data.recogniser(3), Choice(kinetics_root))


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=150)
