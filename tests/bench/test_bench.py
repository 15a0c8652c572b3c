"""`eventful bench`: what it writes, what it refuses, and how it goes on."""

import json
import logging
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from eventful.attention import incremental
from eventful.bench import Results, Setup, memory, probe
from eventful.bench.registry import cases as cases_of
from eventful.cli.app import app
from eventful.runtimes import runtime_named, whole_graph

TIMED = ("attention", "block", "backbone", "first-frame", "streams")
FIRST_CASE = {"attention": "N64-M8/random", "block": "test-vit-64-r4"}
HEADER = {"suite", "machine", "timm", "commit", "device", "dtype", "threads", "cases"}


def check_row(row, case):
    assert row["milliseconds"]["p10"] <= row["milliseconds"]["median"] <= row["milliseconds"]["p90"]
    assert row["speedup"][row["against"]] > 0
    ideal = row["speedup"][row["against"]] / row["operation_ratio"]
    assert row["efficiency"] == pytest.approx(ideal)
    assert case["fastest_dense"] in row["speedup"]
    assert row["attention_error"] is not None or row["output_error"] is not None


@pytest.mark.parametrize("suite", TIMED)
def test_a_suite_writes_valid_json_and_pictures(bench, tmp_path, suite):
    result, content = bench(suite, "--json", "--repeats", 2)
    assert result.exit_code == 0, result.stderr
    assert content.keys() == HEADER
    assert content["suite"] == suite
    printed = json.loads(result.stdout)["suites"][suite]
    assert printed["cases"] == content["cases"]
    measured = [case for case in content["cases"].values() if case["status"] == "ok"]
    assert len(measured) >= len(content["cases"]) - 1 > 0 or len(measured) == 1
    for case in measured:
        assert case["repeats"] == 2
        assert all(error <= limit for error, limit in case["checks"].values())
        for row in case["rows"]:
            check_row(row, case)
    with Image.open(tmp_path / f"{suite}.png") as image:
        assert len(set(image.convert("L").get_flattened_data())) > 20
    assert "<svg" in (tmp_path / f"{suite}.svg").read_text()


def test_the_contenders_of_a_backbone(bench):
    _, content = bench("backbone", "--case", "small_sam*")
    (case,) = content["cases"].values()
    rows = {row["contender"]: row for row in case["rows"]}
    ours, first = rows["eventful eager"], rows["eventful first frame eager"]
    assert set(rows) == {
        "dense eager",
        "eventful eager",
        "linears only eager",
        "eventful first frame eager",
    }
    assert rows["dense eager"]["output_error"] == 0
    assert first["output_error"] < 1e-5 < 1e-2 < ours["output_error"]
    assert first["operation_ratio"] == 1 < rows["linears only eager"]["operation_ratio"]
    assert rows["linears only eager"]["operation_ratio"] < ours["operation_ratio"]
    assert 0 < case["figures"]["share_outside"] < 1


@pytest.mark.parametrize("suite", ["block", "backbone"])
def test_the_dense_model_runs_in_inference_runtimes_too(bench, suite):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    result, content = bench(suite, "--runtimes", "--case", "*vit*", "--case", "*sam*")
    assert result.exit_code == 0, result.stderr
    for case in content["cases"].values():
        if case["left_out"]:  # tiny models resize their positions by what OpenVINO lacks
            assert "upsample" in case["left_out"]["dense openvino"]
        assert case["fastest_dense"].startswith("dense ")
        rows = {row["contender"]: row for row in case["rows"]}
        found = [name for name in ("dense openvino", "dense onnxruntime") if name in rows]
        assert len(found) + len(case["left_out"]) == 2
        for name in found:
            assert rows[name]["operation_ratio"] == 1
            assert 0 < rows[name]["output_error"] < 1e-5
            assert rows[name]["attention_error"] is None
            assert name in rows["eventful eager"]["speedup"]
            assert f"{name}, behind" in case["checks"]


def test_a_failed_conversion_leaves_the_log_as_it_was():
    pytest.importorskip("openvino")
    runtime, frame = runtime_named("openvino"), torch.ones(1, 3, 8, 8)
    model = nn.Identity()
    model.forward = torch.special.i0  # which it has no operator for
    root = logging.getLogger()
    before = root.level, [*root.handlers]
    with pytest.raises(ValueError, match="openvino cannot convert this model"):
        whole_graph(runtime, model, "forward", frame)
    assert (root.level, [*root.handlers]) == before


def test_a_runtime_that_cannot_run_a_model_is_left_out_with_the_reason(bench, monkeypatch):
    pytest.importorskip("openvino")

    def refuse(*_):
        raise ValueError("openvino cannot convert this model")

    monkeypatch.setattr("eventful.bench.contenders.whole_graph", refuse)
    result, content = bench("block", "--runtimes", "--case", "*vit*")
    assert result.exit_code == 0, result.stderr
    for case in content["cases"].values():
        assert case["left_out"]["dense openvino"] == "openvino cannot convert this model"
        assert "dense openvino" not in {row["contender"] for row in case["rows"]}
        assert "dense openvino: left out, openvino cannot" in result.stderr


def test_memory(bench, monkeypatch):
    kept = ("dense", "incremental bfloat16 state")
    monkeypatch.setattr(memory, "TENANTS", {name: memory.TENANTS[name] for name in kept})
    result, content = bench("memory")
    assert result.exit_code == 0, result.stderr
    (case,) = content["cases"].values()
    assert case["status"] == "ok", case["reason"]
    dense, ours = (row["figures"] for row in case["rows"])
    assert dense["peak_bytes"] >= dense["built_bytes"] > 5e7
    # 17 tokens of 64 values in 6 blocks: 8 in two bytes; 1 and two for each of 2 heads in four
    assert ours["state_bytes"] == 6 * 17 * (2 * 8 * 64 + 4 * (64 + 2 * 2))


@pytest.mark.slow
def test_memory_of_all_contenders(bench):
    result, content = bench("memory")
    assert result.exit_code == 0, result.stderr
    (case,) = content["cases"].values()
    values = [row["figures"].get("state_values_per_block") for row in case["rows"]]
    # the paper's form: 2 maps of 2 heads x 17 x 17, and twice 17 x 64, over 17 x 64
    assert values == [None, None, 8 + 2 * 2 * 17 / 64 + 2, *[8 + 1 + 4 / 64] * 3]


def test_a_process_that_fails_says_why(bench, monkeypatch):
    broken = memory.Tenant(attention="nonsense")
    monkeypatch.setattr(memory, "TENANTS", {"broken": broken})
    result, content = bench("memory")
    assert result.exit_code == 1
    (case,) = content["cases"].values()
    assert case["status"] == "failed"
    assert "attention must be one of" in case["reason"]


def test_peak_memory_is_at_least_what_is_held_now():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    assert probe.peak_bytes(torch.device("cpu")) >= pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def wrong_attention(monkeypatch):
    """Make incremental attention compute something else."""
    right = incremental.Incremental.update

    def wrong(self, *arguments):
        return right(self, *arguments).mul_(1.01)

    monkeypatch.setattr(incremental.Incremental, "update", wrong)


@pytest.mark.parametrize("suite", FIRST_CASE)
def test_a_wrong_result_has_no_speed(bench, wrong_attention, suite):
    result, content = bench(suite, "--case", FIRST_CASE[suite])
    assert result.exit_code == 1
    (case,) = content["cases"].values()
    assert case["status"] == "failed"
    assert "rows" not in case
    assert "expected a relative error of at most 2.0e-05, got" in case["reason"]
    assert "no speed is reported" in result.stdout.replace("\n", " ")


def test_a_case_that_runs_again_replaces_its_entry_alone(bench):
    one, other = ("--case", "N64-M8/random"), ("--case", "N64-M32/random")
    _, first = bench("attention", *one, "--repeats", 2)
    _, second = bench("attention", *other, "--repeats", 2)
    assert list(second["cases"]) == ["attention/N64-M8/random", "attention/N64-M32/random"]
    _, third = bench("attention", *one, "--repeats", 4)
    old, new = (content["cases"]["attention/N64-M8/random"] for content in (second, third))
    assert old == first["cases"]["attention/N64-M8/random"]
    assert (old["repeats"], new["repeats"]) == (2, 4)
    other_case = "attention/N64-M32/random"
    assert third["cases"][other_case] == second["cases"][other_case]
    _, fresh = bench("attention", *one, "--fresh")
    assert list(fresh["cases"]) == ["attention/N64-M8/random"]


def test_resume_leaves_out_what_is_there_and_repeats_what_failed(bench, wrong_attention):
    case = ("--case", "N64-M*/random")
    _, first = bench("attention", *case)
    states = [entry["status"] for entry in first["cases"].values()]
    assert states == ["failed", "failed"]
    result, second = bench("attention", *case, "--resume", "--repeats", 5)
    assert result.exit_code == 1
    assert [entry["repeats"] for entry in second["cases"].values()] == [5, 5]


def test_resume_keeps_good_results(bench):
    case = ("--case", "N64-M8/random")
    _, first = bench("attention", *case)
    result, second = bench("attention", *case, "--resume", "--repeats", 7)
    assert result.exit_code == 0
    assert second["cases"] == first["cases"]
    assert "N64-M8/random" in result.stdout


def test_recorded_cases_without_the_clip_are_skipped(bench, monkeypatch):
    monkeypatch.delenv("EVENTFUL_DATA", raising=False)
    result, content = bench("attention", "--case", "*recorded")
    assert result.exit_code == 0
    (case,) = content["cases"].values()
    assert case["status"] == "skipped"
    assert "EVENTFUL_DATA" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--case", "N64-M9/random"], "no case matches 'N64-M9/random'; near names: attention/N64"),
        (["--dtype", "int8"], "--dtype must be one of float32, bfloat16, float16, got 'int8'"),
        (["--device", "abacus"], "--device abacus cannot be used here: "),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(bench, options, message):
    result, content = bench("attention", *options)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1
    assert content is None


def test_results_of_another_setup_are_not_mixed(bench):
    case = ("--case", "N64-M8/random")
    bench("attention", *case)
    result, content = bench("attention", *case, "--dtype", "bfloat16")
    assert result.exit_code == 2
    assert "dtype float32 there, bfloat16 here; use another --out, or --fresh" in result.stderr
    result, content = bench("attention", *case, "--dtype", "bfloat16", "--fresh")
    assert result.exit_code == 0, result.stderr
    assert content["dtype"] == "bfloat16"


@pytest.mark.parametrize("text", ['{"cases": ', "[]", '{"cases": {}}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    path = tmp_path / "attention.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"attention\.json is no file of results .* --fresh"):
        Results(path, Setup(torch.device("cpu")))


def test_list(bench):
    result, content = bench("all", "--list")
    assert result.exit_code == 0
    assert "streams/test_vit-64-r4-x2" in result.stdout.splitlines()
    assert content is None
    result, _ = bench("block", "--list", "--json")
    assert json.loads(result.stdout)["cases"][0] == "block/test-vit-64-r4"


@pytest.mark.slow
@pytest.mark.parametrize("suite", TIMED)
def test_compiled_contenders(suite, tmp_path):
    arguments = ["bench", suite, "--quick", "--compile", "--out", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stdout
    for case in json.loads(result.stdout)["suites"][suite]["cases"].values():
        if case["status"] == "ok":
            assert any("compiled" in row["contender"] for row in case["rows"])


def test_the_papers_form_may_run_out_of_memory(monkeypatch):
    """That is a result without a peak; any other contender's end is an error."""
    killed = subprocess.CompletedProcess([], -signal.SIGKILL, "", "")
    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: killed)
    case, setup = cases_of("memory", quick=True)[0], Setup(torch.device("cpu"))
    cached, other = memory.TENANTS["cached"], memory.TENANTS["incremental"]
    assert memory._in_own_process(case, cached, setup)["figures"] == {"peak_bytes": None}
    with pytest.raises(RuntimeError, match="out of memory"):
        memory._in_own_process(case, other, setup)
