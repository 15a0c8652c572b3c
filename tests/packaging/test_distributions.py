"""What is published: sdist and wheel are whole, small, and run from an environment of their own."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

import eventful

ROOT = Path(__file__).parents[2]
if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("there is no source to build from", allow_module_level=True)

MOST = 20e6  # bytes
AT_RUN_TIME = {  # what is no Python
    "eventful/py.typed",
    *(f"eventful/models/data/{n}.safetensors" for n in ("people", "segmentation", "vehicles")),
}


def test_the_version_is_said_once_more_only():
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = (ROOT / "CHANGELOG.md").read_text().split("\n## [")
    assert released[1].startswith("Unreleased]")
    assert released[2].startswith(f"{eventful.__version__}] - {cited['date-released']}\n")
    assert cited["version"] == eventful.__version__


def test_the_citation_has_what_readers_of_it_need():
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited.keys() >= {"cff-version", "message", "title", "authors", "license"}
    (paper,) = cited["references"]
    assert paper.keys() >= {"type", "title", "authors", "year", "url"}
    assert [author["family-names"] for author in paper["authors"]] == ["Dutson", "Li", "Gupta"]


def run(*command, **options):
    """Run a command in a process of its own; its output where it succeeds."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An sdist, and the wheel that is built from it."""
    for tool in ("build", "hatchling", "twine"):
        pytest.importorskip(tool)
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.mark.slow
def test_both_are_small_and_described(built):
    sdist, wheel = built
    assert sdist.name == f"eventful_transformers-{eventful.__version__}.tar.gz"
    assert wheel.name == f"eventful_transformers-{eventful.__version__}-py3-none-any.whl"
    assert all(0 < file.stat().st_size < MOST for file in built)
    run(sys.executable, "-m", "twine", "check", "--strict", *built)
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (one for one in opened.namelist() if one.endswith("/METADATA"))
        metadata = Parser().parsestr(opened.read(name).decode())
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    said = {f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)}
    assert said < set(metadata.get_all("Classifier"))
    assert {"timm", "transformers", "demo", "live", "archive"} < {
        *metadata.get_all("Provides-Extra")
    }


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built):
    source = ROOT / "src"
    files = (path for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc")
    wanted = {path.relative_to(source).as_posix(): path.read_bytes() for path in files}
    with zipfile.ZipFile(built[1]) as opened:
        held = {name: opened.read(name) for name in opened.namelist()}
    held = {name: text for name, text in held.items() if ".dist-info/" not in name}
    assert held == wanted
    assert held.keys() >= AT_RUN_TIME
    large = {name for name, text in held.items() if len(text) > 300_000}
    assert large < AT_RUN_TIME  # no results of benchmarks, nor weights that are not used


@pytest.mark.slow
def test_the_sdist_holds_what_tests_and_documentation_need(built):
    with tarfile.open(built[0]) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    for wanted in ("pyproject.toml", "LICENSE", "README.md", "CITATION.cff", "SECURITY.md"):
        assert wanted in names
    assert {"conftest.py", "tests/zoo.py", "docs/index.md", "mkdocs.yml"} < names
    assert not [name for name in names if name.startswith("benchmarks/")]


@pytest.mark.slow
def test_the_wheel_runs_where_nothing_else_of_the_project_is(built, tmp_path):
    place = tmp_path / "clean"
    venv.create(place, with_pip=False, symlinks=True)
    (library,) = place.glob("lib/python3*/site-packages")
    python = place / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", python, "install", "--no-deps")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    clean = {"cwd": tmp_path, "env": environment}
    run(*pip, "--no-index", built[1], **clean)
    # What it needs comes from here, after its own; installing PyTorch again would take minutes.
    others = {
        str(Path(pytest.importorskip(name).__file__).parents[1]) for name in ("torch", "typer")
    }
    (library / "others.pth").write_text("\n".join(others) + "\n")
    asked = "import eventful; print(eventful.__file__, eventful.Auto())"
    said = run(python, "-c", asked, **clean).split()
    assert said == [str(library / "eventful" / "__init__.py"), "error:0.15"]
    command = place / "bin" / "eventful"
    assert run(command, "--version", **clean) == f"eventful {eventful.__version__}\n"
    assert "advise" in run(command, "--help", **clean)
    assert version("torch") in run(python, "-c", "import torch; print(torch.__version__)", **clean)
