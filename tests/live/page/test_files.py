"""The page's own files: all there, in the package, and nothing else to be had."""

import re
import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

from eventful.live.page.files import PAGES, STATIC, content

FOLDER = files("eventful.live.page") / "static"
ROOT = Path(__file__).parents[3]


def test_the_table_is_what_the_package_holds():
    assert {each.name for each in FOLDER.iterdir()} == {*STATIC, *PAGES.values()}


def test_files_are_served_as_they_are(refusing):
    for path, name in PAGES.items() | {(f"/static/{name}", name) for name in STATIC}:
        answer = refusing("GET", path)
        assert answer.status == 200
        assert answer.body == (FOLDER / name).read_bytes()


@pytest.mark.parametrize(
    "path",
    ["/static/", "/static", "/static/../api.py", "/static/..%2fapi.py", "/static/%2e%2e/api.py",
     "/../../../etc/passwd",
     "/static//etc/passwd", "//etc/passwd", "/static/page.css/..", "/static/page.css%00",
     "/static/PAGE.CSS",
     "/static/index.html", "/api.py", "/docs", "/redoc", "/openapi.json", "/static/..\\api.py",
     "/login/", "/."],
)  # fmt: skip
def test_no_path_reaches_the_file_system(refusing, path, monkeypatch):
    for name in STATIC:
        content(name)  # once read, no more is
    opened = []
    monkeypatch.setattr("builtins.open", lambda *names, **_: opened.append(names))
    answer = refusing("GET", path)
    assert answer.error == (404, "not_found")
    assert opened == []


def test_nothing_is_loaded_from_elsewhere():
    for name in {*STATIC, *PAGES.values()} - {"grafana.json", "icon.svg"}:
        text = content(name).decode()
        assert not re.findall(
            r"(?:https?:)?//[\w.-]+\.\w", text.replace("http://www.w3.org/2000/svg", "")
        ), name


def test_no_text_becomes_html():
    """The browser would refuse it too: the policy has `require-trusted-types-for`."""
    words = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|srcdoc"
    for name in STATIC:
        if name.endswith(".js"):
            assert not re.search(words, content(name).decode()), name
    for name in PAGES.values():
        text = content(name).decode()
        assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", text), name


@pytest.mark.slow
def test_the_wheel_has_them(tmp_path):
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("there is nothing here to build a wheel from")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {*zipfile.ZipFile(wheel).namelist()}
    assert {f"eventful/live/page/static/{name}" for name in (*STATIC, *PAGES.values())} <= names
