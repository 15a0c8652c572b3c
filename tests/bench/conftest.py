"""How the tests call `eventful bench`."""

import json

import pytest
from typer.testing import CliRunner

from eventful.cli.app import app


@pytest.fixture
def bench(tmp_path):
    """Run `eventful bench --quick` without compiling; returns its result and what it wrote."""

    def bench(suite, *options, out=tmp_path):
        fast = () if "--runtimes" in options else ("--no-runtimes",)
        arguments = ["bench", suite, "--quick", "--no-compile", *fast, "--out", out, *options]
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        path = out / f"{suite}.json"
        return result, json.loads(path.read_text()) if path.exists() else None

    return bench
