"""Scripts that measure live cameras, with and without real servers."""

import json
import subprocess

import pytest
import torch

from tests.benchmarks.conftest import finite


def test_live(run, script, data, tiny):
    tiny("live")
    small = ("--size", 56, "--cameras", 4, "--frames", 7, "--ticks", 16, "--shares", 0.5)
    found = run("live", *small)
    assert [row["shared"] for row in found["rows"]] == [True, False]
    assert len(found["rows"][0]["dense"]) == found["cameras"] == 4
    by_every = {row["every"]: row for row in found["skip"]}
    assert by_every[2]["error"] < by_every[10]["error"]
    assert finite(found)
    soaked = run("live", "--soak", 60, "--cameras", 2, "--settle", 1)
    assert soaked["unaccounted"] == soaked["threads_left"] == soaked["files_left"] == 0


def test_live_rtsp(run, script, data, monkeypatch, tmp_path):
    """All parts over a real server, and again, when nothing is left to do."""
    watch = script("live_watch")
    check = "import gi; gi.require_version('GstRtspServer', '1.0')"
    found = watch.GSTREAMER.exists() and subprocess.run(
        [watch.GSTREAMER, "-c", check], check=False, capture_output=True
    )
    if not found or found.returncode:
        pytest.skip("needs Debian's python3-gi and gir1.2-gst-rtsp-server-1.0")
    monkeypatch.setattr("eventful.outputs.networks.saliency_vit", _seeded)
    small = (
        "--size",
        56,
        "--sizes",
        56,
        "--cameras",
        2,
        "--frames",
        7,
        "--rate",
        25,
        "--length",
        60,
    )
    short = (
        "--seconds",
        1,
        "--apart",
        0.05,
        "--settle",
        0.2,
        "--turns",
        1,
        "--fault-turns",
        1,
        "--slower",
        1,
    )
    few = (
        "--policies",
        "skip:1",
        "time:0.5",
        "skip:2",
        "--sized",
        "skip:1",
        "--reconnects",
        1,
        "--away",
        0.3,
    )
    settings = (*small, *short, *few, "--runtimes", "torch", "--folder", tmp_path)
    measured = run("live_rtsp", *settings)
    assert run("live_rtsp", *settings) == measured
    dense, shared, skipped = measured["policies"]
    assert all(row["unknown"] == 0 < row["samples"] for row in (dense, shared, skipped))
    assert dense["kinds"].keys() == {"dense"}
    assert skipped["kinds"].keys() == {"dense", "held"}
    assert dense["error"] < skipped["error"]
    assert measured["summary"]["reconnect"]["dense"] == [1]
    assert measured["summary"]["faults"]["killed"]["compared"] > 10
    assert finite(measured)
    found, filling, made = (script(n) for n in ("live_rtsp", "filling", "live_rtsp_summary"))
    text = found.PAGE.read_text()
    filled = filling.filled(text, "live-rtsp", made.tables(measured))
    assert filled.count("`time:0.5`") == filled.count("| killed |") == 1
    if found.RESULT.exists():
        known = made.tables(json.loads(found.RESULT.read_text()))
        assert filling.filled(text, "live-rtsp", known) == text  # --draw has nothing to do


def _seeded(shape):
    """A network of two narrow blocks; weights are the same each time."""
    from tests.evaluation import annotated_data as data  # noqa: PLC0415 - optional libraries

    torch.manual_seed(0)
    return data.network(shape)


def test_live_rtsp_summary(script):
    found = script("live_rtsp_summary")
    line = [{"results_per_second": rate, "e": e} for rate, e in ((10, 0.3), (20, 0.2), (40, 0.4))]
    assert found.rate_at(line, 0.3, "e") == (pytest.approx(30), False)
    assert found.rate_at(line, 0.5, "e") == (40, True)
    assert found.rate_at(line, 0.1, "e") is None
    curve = [0.1 * age for age in range(20)]
    # two cameras of 10 frames a second, a result each 0.1 s: 0.05 + 0.1 + 0.1 s, in whole frames
    assert found.stale(curve, 10, 2, 10) == pytest.approx(0.2, abs=0.01)
    assert found.dense_rate(curve, 0.2, 2, 10) == pytest.approx(10, rel=0.1)
    even = [{"busy": busy, "e": e} for busy, e in ((0.1, 0.4), (0.4, 0.2), (0.8, 0.3))]
    assert [found.evenly(even, busy, "e") for busy in (0.2, 0.8)] == pytest.approx([0.3, 0.2])
