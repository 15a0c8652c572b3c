"""The example that searches an archive."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.archive.conftest import rows

EXAMPLE = Path(__file__).parents[2] / "examples" / "search_archive.py"


def test_frames_found_are_the_nearest(archived, videos, tmp_path, capsys):
    if not EXAMPLE.exists():
        pytest.skip("the examples are not installed with the package")
    spec = importlib.util.spec_from_file_location("search_archive", EXAMPLE)
    search = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(search)
    out, name = archived[0], str(videos / "a.mp4")
    picture = tmp_path / "found.jpg"
    given = ("--video", name, "--frame", 20, "--count", 3, "--columns", 2, "--apart", 0.2)
    search.main([str(out), *map(str, given), "--sheet", str(picture)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["1.0000", name, "frame", "20"]
    all_rows = rows(out)
    x = np.array([row["embedding"] for row in all_rows], np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    query = next(i for i, r in enumerate(all_rows) if (r["video"], r["frame"]) == (name, 20))
    far = [i for i, r in enumerate(all_rows) if r["video"] != name or abs(r["frame"] - 20) >= 5]
    best = max((x[query] @ x[i], i) for i in far)[1]
    assert f"{all_rows[best]['video']}  frame {all_rows[best]['frame']} " in lines[1]
    with Image.open(picture) as image:
        assert image.width == 480
