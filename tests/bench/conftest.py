"""How the tests call `eventful bench`."""

import json

import pytest
from typer.testing import CliRunner

from eventful.cli.app import app


@pytest.fixture
def bench(tmp_path):
    """Run `eventful bench --quick --no-compile`; returns what came of it and the file's content."""

    def bench(suite, *options, out=tmp_path):
        arguments = ["bench", suite, "--quick", "--no-compile", "--out", out, *options]
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        path = out / f"{suite}.json"
        return result, json.loads(path.read_text()) if path.exists() else None

    return bench
