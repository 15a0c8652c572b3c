"""`eventful archive` as people call it."""

import json
import shutil

import pytest

dataset = pytest.importorskip("pyarrow.dataset")


@pytest.fixture
def options(weights, tmp_path):
    model = ("--model", "timm:test_vit", "--weights", weights, "--size", 96, "--workers", 1)
    return (*model, "--out", tmp_path / "out", "--policy", "carry:4")


def test_an_archive(invoke, options, clip_file, tmp_path):
    result = invoke("archive", clip_file, *options, "--outputs", "pooled,patches", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["videos"], report["segments"], report["rows"]) == (1, 1, 20)
    assert report["kinds"] == {"dense": 5, "carried": 15}
    table = dataset.dataset(tmp_path / "out" / "frames", format="parquet").to_table()
    assert {"embedding", "patches", "grid", "time"} <= set(table.column_names)
    again = invoke("archive", clip_file, *options, "--outputs", "pooled,patches")
    assert "1 of 1 segments done, 1 of them before" in " ".join(again.stdout.split())
    other = invoke("archive", clip_file, *options[:-1], "skip:2", "--outputs", "pooled,patches")
    assert (other.exit_code, other.stderr.count("\n")) == (2, 1)
    assert "policy carry:4 (now skip:2)" in other.stderr
    fewer = invoke("archive", clip_file, *options)
    assert "outputs pooled,patches (now pooled)" in fewer.stderr


def test_problems_are_shown_and_told_by_the_exit_code(invoke, options, clip_file, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(clip_file, folder / "a.mp4")
    (folder / "b.mp4").write_bytes(b"no video")
    result = invoke("archive", folder, *options)
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    assert "problems 1, in problems.parquet" in text
    assert "rows 20 in" in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--outputs", "vehicles"), "outputs of this model are pooled, patches; got 'vehicles'"),
        (("--policy", "latency:40"), "reads the clock"),
        (("--policy", "top:5"), "an archive takes a frame policy"),
        (("--engine", "spark"), "engine is one of local, ray, got 'spark'"),
        (("--workers", 0), "workers must be at least 1, got 0"),
        (("--segment", 0), "segment must be at least 1, got 0"),
    ],
)
def test_mistakes_are_one_line(invoke, options, clip_file, more, message):
    result = invoke("archive", clip_file, *options, *more)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr


def test_a_source_that_is_not_there(invoke, options, tmp_path):
    result = invoke("archive", tmp_path / "nothing.mp4", *options)
    assert result.exit_code == 2
    assert "there is nothing at" in result.stderr
    assert not (tmp_path / "out").exists()
