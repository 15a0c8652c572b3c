"""Small videos, a tiny network, and a clock-free archive of them."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import eventful

pytest.importorskip("av")
pytest.importorskip("pyarrow")
pytest.importorskip("timm")

from pyarrow import dataset

from eventful import archive
from eventful.video import Writer
from tests.archive.tiny import network

OPTIONS = {"model": "tiny", "policy": "error:0.2", "size": 112, "segment": 12}


def picture(number, height=80, width=112, seed=0):
    """Noise that moves to the right, with a square that moves down."""
    noise = np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8)
    smooth = noise.repeat(4, axis=0)[:height].repeat(4, axis=1)[:, :width]
    pixels = np.roll(smooth, 2 * number, axis=1)
    pixels[number : number + 16, 20:36] = 250
    return pixels


def write(path, frames, cut=None, **options):
    """A video; from frame `cut` on it shows another scene."""
    with Writer(path, rate=25) as writer:
        for number in range(frames):
            seed = 0 if cut is None or number < cut else 1
            writer.write(picture(number, seed=seed, **options))
    return path


@pytest.fixture(scope="session", autouse=True)
def _workers_find_tests():
    root = str(Path(__file__).parents[2])
    sys.path.append(root)
    yield
    sys.path.remove(root)


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Two videos, one of them upright, with one cut."""
    root = tmp_path_factory.mktemp("videos")
    write(root / "a.mp4", 40, cut=17)
    write(root / "b.mp4", 15, height=112, width=80)
    return root


@pytest.fixture(scope="session")
def archived(videos, tmp_path_factory):
    """The undisturbed archive of both, by two workers; its folder and report."""
    out = tmp_path_factory.mktemp("archived") / "out"
    return out, archive.run([videos], out, network, workers=2, **OPTIONS)


def rows(out):
    """All rows of an archive in order, floats to the bit."""
    table = dataset.dataset(out / "frames", format="parquet").to_table()
    return table.sort_by([("video", "ascending"), ("frame", "ascending")]).to_pylist()


@pytest.fixture(scope="session")
def environment():
    """For processes of their own."""
    places = str(Path(eventful.__file__).parents[1]), str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
