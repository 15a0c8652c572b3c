"""Every script of benchmarks/ runs, on small sizes, and writes what it says it writes."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import eventful
from eventful.attention import FORMS, Incremental
from eventful.stream.costs import Costs
from tests.benchmarks import test_live, test_training
from tests.benchmarks.conftest import finite

SCRIPTS = {
    path.stem: path.read_text()
    for path in sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))
}
JOINT = [pytest.param(name, marks=pytest.mark.slow) for name in ("davis", "highway")]


def test_advise(run, script, data, tiny, tmp_path, monkeypatch):
    advise, page = script("advise"), tmp_path / "advise.md"
    for name in ("advise", "equal_time"):
        tiny(name)
    given = Costs(dense=100.0, carried=6.0, held=1.0, partial=9.0, token=2.0)
    monkeypatch.setattr(advise.equal_time, "costs_in", lambda folder: lambda model, frames: given)
    monkeypatch.setattr(advise, "CHOSEN_ON", ("highway",))
    found = run("advise", tmp_path, "--sizes", 98, "--clips", "highway", "vtest")
    assert [row["clip"] for row in found["rows"]] == ["highway", "vtest"]
    for row in found["rows"]:
        assert [one["error"] for one in row["itself"]["rows"]] == [0.1, 0.15, 0.2]
        assert row["itself"]["frames"] == row["frames"] == 2 * row["rest"]["frames"]
        assert row["itself"]["dense_frames"] < row["frames"]
    assert finite(found)
    by_part = {one["part"]: one for one in found["summary"]}
    told = found["rows"][1]["rest"]["rows"][1]
    share, happened = told["expected"]["operations"]["value"], told["happened"]["operations"]
    assert by_part["rest"]["clips"] == 1
    close = abs(share / happened - 1) <= 0.3
    assert by_part["rest"]["0.15"]["within"]["operations"] == close
    assert all(one["over_best"] >= 1 for one in found["advised"])
    page.write_text(advise.PAGE.read_text())
    monkeypatch.setattr(advise, "PAGE", page)
    monkeypatch.setattr(advise, "RESULT", tmp_path / "out.json")
    advise.main([str(tmp_path), "--draw"])
    assert "| vtest | 98 px |" in page.read_text()


def test_attention_choices(run):
    found = run("attention_choices", "--divide", 16, "--rounds", 1)
    assert [row["rows"] for row in found["written_out"]] == [5, 11, 17, 33, 65]
    assert [row["active"] for row in found["kept_rows"]] == [8, 16, 32, 64]
    assert len(found["crossover"]) == 4 * 9
    assert all(row["correcting"] > 0 < row["in_full"] for row in found["crossover"])


def test_archive(run, script, tmp_path):
    pytest.importorskip("pyarrow")
    small = ("--size", 140, "--memory-size", 140, "--policies", "carry:2", "--workers", 1)
    found = run("archive", *small, "--frames", 300)
    dense, *others = found["rates"]
    assert [one["lookahead"] for one in others] == [0, 16]
    assert {one["rows"] for one in found["rates"]} == {382}
    assert dense["operations_ratio"] == pytest.approx(1)
    for gain, one in zip(found["efficiency"], others, strict=True):
        assert gain["faster"] == one["frames_per_second"] / dense["frames_per_second"]
    assert found["memory"]["samples"][-1]["frames"] >= 300
    assert 0 < found["motion"]["carry:2"]["motion_ms"] < found["motion"]["carry:2"]["frame_ms"]
    assert finite(found)
    few = ("--policies", "skip:1", "carry:2", "--workers", 5, "--minutes", 1, "--repeats", 1)
    scaled = run("archive_scale", "--costs", tmp_path / "archive.json", *few)
    assert finite(scaled)
    tables = script("archive_scale").tables(scaled)
    assert tables.keys() == {"costs", "sizes", "lengths"}


def test_archive_scale(script):
    pytest.importorskip("pyarrow")
    scale = script("archive_scale")
    even = {"spread": 0, "slow": 0}
    never = scale.Cluster(4, failures=1e30, **even)
    assert scale.simulate(4000, 100, 0.5, 0.0, never, 0) == pytest.approx(1)
    assert scale.simulate(4000, 100, 0.5, 10.0, never, 0) == pytest.approx(1.2)
    assert scale.simulate(500, 100, 0.5, 0.0, never, 0) == pytest.approx(1.6)  # 5 over 4 workers
    slow = scale.Cluster(4, failures=1e30, spread=0, slow=1, slowness=3)
    assert scale.simulate(4000, 100, 0.5, 0.0, slow, 0) == pytest.approx(3)
    failing = scale.Cluster(4, failures=200.0, **even)
    short, long = (scale.simulate(4000, n, 0.5, 0.0, failing, 0) for n in (20, 500))
    assert 1 < short < long  # what is lost with a worker is its segment


def test_calibration(run, data, tiny):
    tiny("calibration")
    chosen = ("--on", "breakdance", "--clips", "parkour", "--frames", 3, "--size", 28, 42)
    (on,) = run("calibration", *chosen)["on"].values()
    assert on["calibrations"].keys() == {"top", "threshold"}
    for tested in on["tests"]["parkour from 0"].values():
        assert finite(tested)
    assert run("calibration", *chosen)["on"] == {"breakdance": on}  # all is there already


def test_decoding(run):
    found = run("decoding", "--size", 98, "--runs", 1)
    assert [row["frames"] for row in found["rows"]] == [250, 132]
    assert all(row["milliseconds"]["pyav"]["fitted"] > 0 for row in found["rows"])
    assert finite(found)


def test_demo(run, script, monkeypatch):
    monkeypatch.setattr(script("demo"), "POLICIES", ("fraction:0.25",))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(eventful.__file__).parents[1]))
    (one,) = run("demo", "--size", 42, "--frames", 3)["runs"]
    assert one["policy"] == "fraction:0.25"


def test_equal_time(run, script, data, tiny, tmp_path, monkeypatch):
    equal_time, pages = script("equal_time"), (tmp_path / "results.md", tmp_path / "README.md")
    tiny("equal_time")
    frames = equal_time.frames_of("highway", Path(os.environ["EVENTFUL_DATA"]), 98)
    assert frames.shape == (34, 3, 70, 98)  # fewer than come before the usual start
    whole = equal_time.saliency_vit((70, 98))
    eventful.convert(whole.backbone)
    for model in (whole, whole.backbone):
        costs = equal_time.costs_in(tmp_path)(model, frames)
        assert equal_time.costs_in(tmp_path)(model, frames) == costs  # read back
        assert costs.dense > costs.held > 0
    given = Costs(dense=100.0, carried=6.0, held=1.0, partial=9.0, token=2.0)
    monkeypatch.setattr(equal_time, "costs_in", lambda folder: lambda model, frames: given)
    small = (tmp_path, "--sizes", 98, "--clips", "highway", "vtest")
    rows = run("equal_time", *small)["rows"]
    assert [row["clip"] for row in rows] == ["highway", "vtest"]
    assert all(len(row["plain"]) == 2 * len(equal_time.EVERY) for row in rows)
    found = run("equal_time", *small[:5], "--decoder")
    assert [len(found[name]) for name in ("rows", "decoder")] == [2, 1]
    assert finite(found)
    for page, original in zip(pages, equal_time.PAGES, strict=True):
        page.write_text(original.read_text())
    monkeypatch.setattr(equal_time, "PAGES", pages)
    monkeypatch.setattr(equal_time, "RESULT", tmp_path / "equal_time.json")
    equal_time.main([str(tmp_path), "--draw"])
    assert all("98 px" in page.read_text() for page in pages)


def test_lookahead(run, script, data, tiny, tmp_path, monkeypatch):
    lookahead, page = script("lookahead"), tmp_path / "lookahead.md"
    tiny("lookahead"), tiny("equal_time")
    monkeypatch.setattr(lookahead, "WAITS", (2,))
    monkeypatch.setattr(lookahead, "POLICIES", ("auto:0.2", "error:0.15", "carry:5"))
    found = run("lookahead", tmp_path, "--sizes", 98, "--clips", "highway", "parkour")
    assert [row["clip"] for row in found["rows"]] == ["highway", "parkour"]
    for row in found["rows"]:
        causal, late = (lookahead.of(row, "carry:5", wait) for wait in (0, lookahead.LOOKAHEAD))
        assert causal["kinds"] == late["kinds"]
        assert late["operations"] == causal["operations"]
        assert late["error"] != causal["error"]
    assert finite(found)
    page.write_text(lookahead.PAGE.read_text())
    monkeypatch.setattr(lookahead, "PAGE", page)
    monkeypatch.setattr(lookahead, "RESULT", tmp_path / "lookahead.json")
    lookahead.main([str(tmp_path), "--draw"])
    assert "| still cameras |" in page.read_text()


def test_filling(script, tmp_path):
    filling, page = script("filling"), tmp_path / "page.md"
    page.write_text("a\n<!-- x: one -->\nold\n<!-- end -->\nb\n")
    filling.fill(page, "x", {"one": [["head"], ["1"]]})
    assert page.read_text() == "a\n<!-- x: one -->\n| head |\n|---|\n| 1 |\n<!-- end -->\nb\n"
    assert filling.parser("text").parse_args(["--draw"]).draw


def test_finetuning(run):
    small = ("--videos", 48, 16, "--epochs", 1, "--finetuning-epochs", 1, "--r", 2)
    found = run("finetuning", *small)
    (row,) = found["rows"]
    assert found["videos"] == {"train": 48, "test": 16}
    assert 0 < row["operations"] < row["dense_operations"]
    assert finite(row)


def test_importance(run, script, data, tiny):
    tiny("importance")
    found = run("importance", "--clips", "parkour", "--frames", 5, "--size", 70)
    runs = {f"{gating}, parkour" for gating in script("importance").GATINGS}
    assert found["runs"].keys() == runs
    assert finite(found["runs"])


def test_long_run(run, data):
    found = run("long_run", "--frames", 34, "--size", 70)  # more than the clip has
    assert [row["frame"] for row in found["memory"]] == [1, 2]
    assert found["flushes"] == 1
    assert found["largest_relative_error"] < 1e-4
    assert len(found["errors"]) == 12


def test_numerics(run, data):
    found = run("numerics", "--frames", 3, "--size", 112)
    assert max(found["chain"]["peak"]) < 1e-4 < 0.1 < max(found["chain"]["none"])
    assert found["chain"]["each update"][-1] > 0.1
    assert found["cached"][0] < 1e-6 < 0.1 < found["cached"][-1]
    assert found["real"]["none"]["share_sent_back"] == 0
    assert found["real"]["peak"]["worst_relative_error"] < 1e-4


def test_paper_ops(run, tmp_path):
    picture = tmp_path / "picture.svg"
    found = run("paper_ops", "--picture", picture)
    assert found["entries"]
    assert "<svg" in picture.read_text()


@pytest.fixture
def quality(script, monkeypatch):
    """The script with two settings beside the dense model, run one after the other."""
    quality = script("quality")
    monkeypatch.setattr(quality, "SETTINGS", {"input-relative": (0.5,)})
    monkeypatch.setattr(quality, "PLANS", ("skip:2",))
    monkeypatch.setattr(quality, "LATE", ("carry:3",))
    monkeypatch.setattr(quality, "ProcessPoolExecutor", ThreadPoolExecutor)
    yield quality
    quality.task_of.cache_clear()


@pytest.mark.parametrize("name", ["vtest", *JOINT])
def test_quality(quality, data, tmp_path, run, name):
    out, images = tmp_path / "out", tmp_path / "images"
    images.mkdir()
    small = ("--only", name, "--size", "112", "--frames", "6")
    quality.main(["run", str(out), "--jobs", "1", "--threads", "1", *small])
    quality.main(["sheets", str(out), "--policy", "skip:2", "--images", str(images), *small])
    found = run("quality", "collect", out, "--images", images)
    assert set(found["tasks"]) == set(quality.RUNS[name])
    for task, one in found["tasks"].items():
        assert {row["policy"] for row in one["rows"]} == {"fraction:0.5", "skip:2", "carry:3"}
        assert (images / f"quality-{task}.svg").is_file()
        assert (images / f"sheet-{task}.jpg").is_file()
    quality.main(["tables", "--check"])


def test_quality_times(run, script, data, tiny):
    tiny("quality_times")
    small = ("--clips", "DAVIS parkour", "--frames", 3, "--rounds", 1, "--size", 98)
    found = run("quality_times", *small)
    rows = found["clips"]["DAVIS parkour"]
    assert [row["setting"] for row in rows] == [
        one.name for one in script("quality_times").settings()
    ]
    assert finite(rows)


def test_real_video(run, data):
    clip = "parkour (moving camera)"
    found = run("real_video", "--clips", clip, "--frames", 5, "--size", 56)["clips"][clip]
    assert list(found) == ["fraction:0.125", "fraction:0.25"]
    for one in found.values():
        assert one["precision"].keys() == {"float32", "bfloat16", "float16"}
        assert len(one["sent_back"]["frames_over_a_64th_by_block"]) == 12
        assert 0 <= one["updated_again"] <= 1


def test_refresh(run, script, data, tiny, tmp_path, monkeypatch):
    refresh = script("refresh")
    tiny("refresh")
    monkeypatch.setattr(refresh, "BLOCK", 4)
    monkeypatch.setattr(refresh.blocks, "TokenGate", refresh.blocks.TokenGate)  # the script
    monkeypatch.setitem(FORMS, "incremental", Incremental)  # replaces both
    found = run("refresh", "--frames", 12, "--loop", 4, "--size", 70)
    assert found["runs"].keys() == refresh.RUNS.keys()
    assert all(row["frames"] == 12 for rows in found["runs"].values() for row in rows)
    assert all(len(row["drift"]) == 3 for row in found["runs"]["rotation"])
    refresh.draw(found, tmp_path / "picture.svg")
    assert "<svg" in (tmp_path / "picture.svg").read_text()
    assert len(refresh.tables(found)["rotation"]) == 1 + 3


def test_rows(run, data, tiny):
    tiny("rows")
    found = run("rows", "--size", 98, "--frames", 4)
    assert (found["rows"], found["frames"]) == (3, 4)
    assert found["largest_relative_difference"] < 1e-4
    assert sum(found["kinds"].values()) == 12


def test_runtimes(run, script, tmp_path, monkeypatch):
    for library in ("openvino", "onnxruntime", "onnxscript"):
        pytest.importorskip(library)
    runtimes, page = script("runtimes"), tmp_path / "runtimes.md"
    page.write_text(runtimes.PAGE.read_text())
    monkeypatch.setattr(runtimes, "PAGE", page)
    monkeypatch.setattr(runtimes, "DEPTH", 1)
    (case,) = run("runtimes", "--sizes", 56, "--rounds", 1, "--draw")["sizes"].values()
    assert len(case["off"]) == 3 * (1 + 3)  # 1, 2 and 8 tokens
    assert max(case["off"].values()) < 1e-5
    assert finite(case)
    assert "| OpenVINO, step, N/8 |" in page.read_text()


@pytest.mark.slow
def test_int8(run, script, data, tmp_path, monkeypatch):
    for library in ("openvino", "onnxruntime", "onnxscript", "nncf"):
        pytest.importorskip(library)
    int8, page = script("int8"), tmp_path / "runtimes.md"
    page.write_text(int8.PAGE.read_text())
    monkeypatch.setattr(int8, "PAGE", page)
    monkeypatch.setattr(int8, "CALIBRATED_ON", (f"{int8.DAVIS}/parkour",))
    clips = {"blackswan": (f"{int8.DAVIS}/blackswan", 0), "vtest": ("vtest/vtest.avi", 0)}
    monkeypatch.setattr(int8, "CLIPS", clips)
    for name in ("openvino bfloat16", "openvino int8 weights"):
        monkeypatch.delitem(int8.FORMS, name)
    (case,) = run("int8", "--sizes", 56, "--rounds", 1, "--frames", 4, "--draw")["sizes"].values()
    assert set(case["clips"]) == {"blackswan", "vtest"}
    for clip in case["clips"].values():
        assert clip["openvino float32 dense"]["error"] == 0
        assert 0.001 < clip["openvino int8 dense"]["error"] < 0.3
    assert finite(case)
    assert "| OpenVINO, int8 weights and activations | 56 px |" in page.read_text()


def test_scene_cuts(run, data):
    found = run("scene_cuts", "--sizes", 224, "--frames", 32)
    clips = {row["video"]: row["found"] for row in found["rows"]}
    assert clips["demo clip"] == [30]
    assert clips["parkour"] == []
    seen = {row["video"]: row["found"] for row in found["pictures"]["rows"]}
    assert (seen["demo clip"], seen["parkour"]) == ([30], [])


def test_study(run, script, data, tiny, tmp_path, monkeypatch):
    study = script("study")
    tiny("study")
    found = run("study", "--cells", 1)
    ((name, cell),) = found["cells"].items()
    assert name == "blackswan, every 1, 224, as delivered"
    assert finite(cell)
    compressed = study.measure(study.Cell("vtest", size=224, crf=28))
    assert compressed["frames"] == study.FRAMES
    assert compressed["from_delivered"] > 0
    study.native.cache_clear()
    study.backbone.cache_clear()


def test_study_report(script, tmp_path, monkeypatch):
    report, page, figure = script("study_report"), tmp_path / "page.md", tmp_path / "picture.svg"
    page.write_text(report.PAGE.read_text())
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report.draw, "__defaults__", (figure,))
    script("study").main(["--draw"])
    assert "<svg" in figure.read_text()


def test_tables(script, tmp_path, monkeypatch):
    tables = script("tables")
    tables.main(["--check"])
    copies = tuple(tmp_path / path.name for path in tables.FILES)
    for copy, path in zip(copies, tables.FILES, strict=True):
        copy.write_text(path.read_text().replace("518-r171 |", "518 |"))
    pages = [path.read_text() for path in tables.FILES]
    monkeypatch.setattr(tables, "FILES", copies)
    with pytest.raises(SystemExit, match=r"speed\.md differs from the results"):
        tables.main(["--check"])
    tables.main([])
    assert [copy.read_text() for copy in copies] == pages


def test_video_fuzz(run):
    found = run("video_fuzz", "--count", 40)
    assert (found["files"], found["right"], found["failures"]) == (40, 40, [])
    assert set(found["kinds"]) == {"video", "cut video", "picture", "cut picture"}
    assert run("video_fuzz", "--only", 3, 4)["files"] == 2


@pytest.mark.parametrize("name", [name for name, text in SCRIPTS.items() if "def main(" in text])
def test_a_script_says_how_it_is_called(script, name, capsys):
    with pytest.raises(SystemExit) as end:
        script(name).main(["--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_every_script_has_a_test():
    tested = ("clock", "summary", "tables")  # in tests/evaluation/test_quality_tables.py
    others = {"fuzz_pictures", *(f"quality_{name}" for name in tested)}
    others |= {f"live_{name}" for name in ("clips", "faults", "server", "watch")}  # of live_rtsp
    found = globals().keys() | vars(test_training).keys() | vars(test_live).keys()
    assert {f"test_{name}" for name in SCRIPTS.keys() - others} <= found
