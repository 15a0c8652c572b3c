"""Scripts as modules, small videos for them, and a watch over what is committed."""

import importlib
import json
import math
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
COMMITTED = ("benchmarks/results", "docs", "README.md", "src/eventful/models/data")


def finite(value):
    """Whether all figures of a result are finite ones."""
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@pytest.fixture
def script():
    """A script of benchmarks/ by its name."""
    if not BENCHMARKS.is_dir():
        pytest.skip("the benchmarks are not installed with the package")
    for library in ("av", "cv2", "matplotlib", "timm"):
        pytest.importorskip(library)

    def script(name):
        sys.path.insert(0, str(BENCHMARKS))
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(str(BENCHMARKS))

    return script


@pytest.fixture
def run(script, tmp_path):
    """Call a script's `main`, results going to a file of the test's own; returns them."""

    def run(name, *arguments):
        out = tmp_path / f"{name}.json"
        script(name).main([*map(str, arguments), "--out", str(out)])
        return json.loads(out.read_text())

    return run


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Three sequences of DAVIS, CDnet's highway, vtest and TUD-Campus: some small frames each."""
    pytest.importorskip("av")
    from tests.evaluation import annotated_data as data  # noqa: PLC0415 - optional libraries

    root = tmp_path_factory.mktemp("data")
    data.write_davis(root / "davis2016", {"blackswan": 7, "breakdance": 7, "parkour": 7})
    data.write_cdnet(root / "cdnet2014", frames=34, labelled=(2, 33))
    data.write_people(root, frames=30)
    return root


@pytest.fixture
def data(videos, monkeypatch):
    """Scripts find the small videos in EVENTFUL_DATA."""
    monkeypatch.setenv("EVENTFUL_DATA", str(videos))


@pytest.fixture
def tiny(script, monkeypatch):
    """Give a script a network of two narrow blocks in the place of the demo's."""
    from tests.evaluation import annotated_data as data  # noqa: PLC0415 - optional libraries

    return lambda name: monkeypatch.setattr(script(name), "saliency_vit", data.network)


def _files():
    places = [ROOT / name for name in COMMITTED]
    paths = [path for place in places for path in (place, *place.rglob("*"))]
    return {path: path.stat().st_mtime_ns for path in paths if path.is_file()}


@pytest.fixture(autouse=True)
def _what_is_committed_stays():
    before = _files()
    yield
    assert _files() == before
