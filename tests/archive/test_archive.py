"""Archives: their rows, whoever computes them and however often they are disturbed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from importlib import metadata
from multiprocessing.context import ForkServerProcess

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from pycocotools import mask as coco

import eventful
from eventful import archive
from eventful.archive.settings import LOOKAHEAD
from eventful.archive.store import Store
from eventful.archive.to_lance import to_lance
from eventful.outputs import rows as written_rows
from eventful.video import Reader
from tests.archive import tiny
from tests.archive.conftest import OPTIONS, rows, write


def copied_costs(source, out, complete=False):
    """Begin an archive with the costs of another, since each would measure its own."""
    manifest = json.loads((source / "manifest.json").read_text())
    out.mkdir(parents=True, exist_ok=True)
    (out / "manifest.json").write_text(json.dumps(manifest | {"complete": complete}))
    return out


def test_rows_hold_every_frame_once(archived, videos):
    out, report = archived
    found = rows(out)
    assert (report.videos, report.segments, report.rows, report.problems) == (2, 6, 55, [])
    for name, frames in (("a.mp4", 40), ("b.mp4", 15)):
        own = [row for row in found if row["video"] == str(videos / name)]
        assert [row["frame"] for row in own] == list(range(frames))
        times = [Fraction(row["time_numerator"], row["time_denominator"]) for row in own]
        assert times == [frame.time for frame in Reader(videos / name)]
        assert [row["frame"] for row in own if row["reason"] == "segment"] == [
            *range(0, frames, OPTIONS["segment"])
        ]
    assert [row["frame"] for row in found if row["reason"] == "scene cut"] == [17]
    assert {row["kind"] for row in found} > {"dense"}
    assert json.loads((out / "manifest.json").read_text())["complete"]


# pycocotools with NumPy 2
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_segment_is_what_a_stream_gives_from_its_first_frame_on(archived, videos):
    out, _ = archived
    manifest = json.loads((out / "manifest.json").read_text())
    costs = eventful.Costs(**manifest["shapes"]["84x112"]["costs"])
    own = [row for row in rows(out) if row["video"].endswith("a.mp4")][17:24]  # from the cut on
    net = tiny.network(84, 112)
    eventful.convert(net.model, eventful.parse(OPTIONS["policy"]))
    stream = eventful.Stream(net.model, normalize=True, method=net.method, costs=costs)
    frames = [*Reader(videos / "a.mp4", 112, keep_aspect=True)][17:24]
    outputs = stream.run((frame.image for frame in frames), lookahead=LOOKAHEAD)
    for row, output in zip(own, outputs, strict=True):
        assert row["kind"] == stream.stats.rows[0].kind
        assert np.array_equal(row["patches"], output[0, 1:].half().numpy())
        assert np.array_equal(row["embedding"], output[0, 1:].mean(dim=0).half().numpy())
        likely = net.heads[2].likely(output)[0, 0].detach().numpy()
        runs = {"size": row["mask_size"], "counts": row["mask_counts"]}
        decoded = coco.decode(coco.frPyObjects(runs, *row["mask_size"]))
        assert np.array_equal(decoded.astype(bool), likely >= 0.5)


@pytest.mark.parametrize("workers", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_rows_do_not_depend_on_the_number_of_workers(archived, videos, tmp_path, workers):
    out = copied_costs(archived[0], tmp_path / "out")
    archive.run([videos], out, tiny.network, workers=workers, **OPTIONS)
    assert rows(out) == rows(archived[0])


def test_what_is_there_is_not_computed_again(archived, videos, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(archived[0], out)
    again = archive.run([videos], out, tiny.network, workers=1, **OPTIONS)
    assert (again.there, again.done, again.rows) == (6, 6, 0)
    write(tmp_path / "c.mp4", 5)
    more = archive.run([videos, tmp_path / "c.mp4"], out, tiny.network, workers=1, **OPTIONS)
    assert (more.videos, more.there, more.rows) == (3, 6, 5)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_to_exactly_the_same_rows(
    archived, videos, tmp_path, environment, kills
):
    out = copied_costs(archived[0], tmp_path / "out")
    program = [sys.executable, tiny.__file__, videos, out, json.dumps(OPTIONS | {"workers": 2})]
    chance = random.Random(kills)
    killed = 0
    while killed < kills:
        process = subprocess.Popen(program, env=environment, stderr=subprocess.PIPE)
        begun = time.monotonic()
        while not list(out.glob("frames/*/.*.part")) and process.poll() is None:
            assert time.monotonic() - begun < 120
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), said
        killed += process.returncode != 0
        if len(list(out.glob("frames/*/*.parquet"))) == 6:
            shutil.rmtree(out / "frames")  # done too soon: begin again
            (out / "frames").mkdir()
    finished = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert rows(out) == rows(archived[0])
    assert not list(out.rglob("*.part"))


def test_videos_that_are_of_no_use_are_reported_and_the_rest_goes_on(videos, tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    data = shutil.copy(videos / "a.mp4", root / "good.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(data[: int(0.8 * len(data))])
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_bytes(b"no video\n" * 50)
    listed = tmp_path / "list.csv"
    names = ["good.mp4", "cut.mp4", "empty.mp4", "text.mp4", "gone.mp4"]
    listed.write_text("id,path\n" + "".join(f"{n[:-4]},videos/{n}\n" for n in names))
    out = tmp_path / "out"
    report = archive.run([listed], out, tiny.network, workers=1, **OPTIONS)
    table = parquet.read_table(out / "problems.parquet").to_pylist()
    kinds = {row["video"]: row["kind"] for row in table}
    assert kinds == {
        "cut": "damaged", "empty": "unusable", "text": "unusable", "gone": "unreachable"
    }  # fmt: skip
    assert len([row for row in rows(out) if row["video"] == "good"]) == 40
    shutil.copy(root / "good.mp4", root / "gone.mp4")  # what was not there is tried again
    again = archive.run([listed], out, tiny.network, workers=1, **OPTIONS)
    assert again.rows == 40
    assert {one.video for one in again.problems} == {"cut", "empty", "text"}
    assert report.videos == again.videos - 1


def test_a_video_that_vanishes_or_changes_after_it_was_planned(videos, tmp_path):
    path, out = tmp_path / "v.mp4", tmp_path / "out"
    shutil.copy(videos / "a.mp4", path)
    archive.run([path], out, tiny.network, workers=1, **OPTIONS)
    data = path.read_bytes()
    segment = "frames/v.mp4*/00001.parquet"
    changes = (path.unlink, "unreachable"), (lambda: path.write_bytes(b"x"), "changed")
    for change, kind in changes:
        next(out.glob(segment)).unlink()
        change()
        report = archive.run([videos / "b.mp4"], out, tiny.network, workers=1, **OPTIONS)
        assert [(one.kind, one.segment) for one in report.problems] == [(kind, 1)]
        assert not list(out.glob(segment))
        path.write_bytes(data)
        archive.run([path], out, tiny.network, workers=1, **OPTIONS)
        assert list(out.glob(segment))
    assert not parquet.read_table(out / "problems.parquet").num_rows


def test_a_worker_that_dies_over_a_video_is_replaced(videos, tmp_path):
    report = archive.run([videos], tmp_path / "out", tiny.dying, workers=1, **OPTIONS)
    assert {(one.kind, one.segment) for one in report.problems} == {("lost", 0), ("lost", 1)}
    assert "3 workers died over it, exit code 3" in report.problems[0].reason
    assert report.rows == 40


def test_a_full_disk_ends_a_run_and_leaves_what_is_whole(archived, videos, tmp_path, environment):
    out = copied_costs(archived[0], tmp_path / "out")
    limited = "import resource, runpy, sys; sys.argv = sys.argv[1:]; "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); "
    limited += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "runpy.run_path(sys.argv[0], run_name='__main__')"
    given = [tiny.__file__, videos, out, json.dumps(OPTIONS | {"workers": 2})]
    program = [sys.executable, "-c", limited, *map(str, given)]
    ended = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "make room and run the same command again" in ended.stderr
    assert not list(out.glob("frames/*/.*.part"))
    archive.run([videos], out, tiny.network, workers=2, **OPTIONS)
    assert rows(out) == rows(archived[0])


def test_a_run_that_ended_in_its_first_write_begins_again(archived, videos, tmp_path):
    out = copied_costs(archived[0], tmp_path / "out")
    (out / "manifest.json").rename(out / "manifest.part")
    for path in out.iterdir():
        if path.name not in (".lock", "manifest.part"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    archive.run([videos], out, tiny.network, workers=1, **OPTIONS | {"policy": "carry:5"})
    assert {row["kind"] for row in rows(out)} == {"dense", "carried"}
    assert not (out / "manifest.part").exists()


def test_two_runs_do_not_write_to_one_folder(archived, videos):
    out, _ = archived
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    with Store(out, settings), pytest.raises(ValueError, match="another run is writing to"):
        archive.run([videos], out, tiny.network, workers=1, **OPTIONS)


def test_other_settings_and_other_weights_are_refused(archived, videos, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(archived[0], out)
    with pytest.raises(ValueError, match=r"policy error:0\.2 \(now carry:5\)"):
        archive.run([videos], out, tiny.network, **OPTIONS | {"policy": "carry:5"})
    next(out.glob("frames/*/00001.parquet")).unlink()
    manifest = json.loads((out / "manifest.json").read_text())
    for shape in manifest["shapes"].values():
        shape["weights"] = "0123"
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="the weights of tiny are others than"):
        archive.run([videos], out, tiny.network, workers=1, **OPTIONS)


def test_common_readers_read_it_as_it_is(archived):
    duckdb, pl = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    pd = pytest.importorskip("pandas")
    out, _ = archived
    ours, pattern = rows(out), str(out / "frames" / "*" / "*.parquet")
    files = sorted(map(str, (out / "frames").glob("*/*.parquet")))
    order = "order by video, frame"
    found = duckdb.sql(f"select embedding, mask_counts from '{pattern}' {order}").fetchall()
    assert [list(row[0]) for row in found] == [row["embedding"] for row in ours]
    assert [row[1] for row in found] == [row["mask_counts"] for row in ours]
    frame = pd.concat(map(pd.read_parquet, files)).sort_values(["video", "frame"])
    assert all(
        np.array_equal(a, row["embedding"]) for a, row in zip(frame.embedding, ours, strict=True)
    )
    assert all(
        np.array_equal([*a], row["patches"]) for a, row in zip(frame.patches, ours, strict=True)
    )
    lazy = pl.scan_parquet(pattern).sort("video", "frame").collect()
    assert lazy["embedding"].dtype == pl.Array(pl.Float16, 24)
    assert lazy["patches"].to_list() == [row["patches"] for row in ours]


def test_provenance_is_in_every_file(archived):
    out, _ = archived
    for path in out.glob("frames/*/*.parquet"):
        about = archive.about(path)
        assert (about["model"], about["policy"]) == ("tiny", "error:0.2")
        assert about["versions"]["torch"] == metadata.version("torch")
        assert len(about["weights"]) == 32
        assert parquet.ParquetFile(path).metadata.row_group(0).column(2).compression == "ZSTD"


def test_lance_holds_the_same_rows(archived, tmp_path):
    lance = pytest.importorskip("lance")
    out = tmp_path / "out"
    shutil.copytree(archived[0], out)
    table = lance.dataset(str(to_lance(out))).to_table()
    assert table.sort_by([("video", "ascending"), ("frame", "ascending")]).to_pylist() == rows(out)


def test_a_large_segment_is_written_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(written_rows, "GROUP_BYTES", 1000)
    path = tmp_path / "a.parquet"
    with written_rows.Rows(path, pa.schema({"x": pa.list_(pa.float16(), 100)})) as written:
        for number in range(20):
            written.add({"x": np.full(100, number, np.float16)})
    assert parquet.ParquetFile(path).metadata.num_row_groups == 4
    assert [row["x"][0] for row in parquet.read_table(path).to_pylist()] == list(range(20))


@pytest.mark.parametrize("policy", ["latency:40", "top:5", "nonsense"])
def test_policies_that_no_archive_takes(videos, tmp_path, policy):
    with pytest.raises(ValueError, match=policy):
        archive.run([videos], tmp_path / "out", tiny.network, **OPTIONS | {"policy": policy})
    assert not (tmp_path / "out").exists()
    assert os.listdir(tmp_path) == []


def test_a_worker_that_does_not_start_is_started_again(archived, videos, tmp_path, monkeypatch):
    starts, start = [], ForkServerProcess.start

    def fails_once(process):
        starts.append(process)
        if len(starts) == 1:
            raise EOFError("unexpected EOF")
        start(process)

    monkeypatch.setattr(ForkServerProcess, "start", fails_once)
    out = copied_costs(archived[0], tmp_path / "out")
    archive.run([videos], out, tiny.network, workers=1, **OPTIONS)
    assert rows(out) == rows(archived[0])
    assert len(starts) == 2
