"""`eventful run`: what it writes, what it prints, and that the two agree."""

import csv
import itertools
import json
import signal
import subprocess
import time

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from eventful.cli.commands import run as running

FILES = ("overlay.mp4", "frames.csv", "summary.png", "summary.json")
COLUMNS = [
    "frame",
    "time_s",
    "operations",
    "dense_operations",
    "updated_share",
    "milliseconds",
    "action",
    "flush",
    "dense_milliseconds",
    "relative_error",
]
KEYS = {
    "frames": int,
    "operations": {"dense": int, "eventful": int, "ratio": float},
    "time_ms": {"dense": float, "eventful": float, "speedup": float},
    "relative_error": {"mean": float, "max": float},
    "state_bytes": int,
    "actions": dict,
    "flushes": list,
    "files": dict,
}


def rows_of(folder):
    with (folder / "frames.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def demo(tmp_path_factory, invoke):
    """The demo model over eight frames of the bundled clip."""
    out = tmp_path_factory.mktemp("demo") / "deeper" / "out"
    result = invoke("run", "--size", 112, "--frames", 8, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    return result, out


def test_standard_output_is_json_alone_and_the_same_as_the_file(demo):
    result, out = demo
    assert json.loads(result.stdout) == json.loads((out / "summary.json").read_text())


def test_the_four_files_exist_and_are_named(demo):
    result, out = demo
    assert sorted(file.name for file in out.iterdir()) == sorted(FILES)
    assert json.loads(result.stdout)["files"] == {name: str(out / name) for name in FILES}


def has_kinds(value, kinds):
    if isinstance(kinds, dict):
        return all(has_kinds(value[key], kind) for key, kind in kinds.items())
    return isinstance(value, kinds)


def test_the_summary_has_its_keys(demo):
    summary = json.loads(demo[0].stdout)
    assert has_kinds(summary, KEYS), summary
    assert summary["frames"] == 8
    assert (summary["model"], summary["video"]) == ("demo", "bikes.mp4")
    assert (summary["policy"], summary["attention"]) == ("fraction:0.125", "incremental")
    assert (summary["gating"], summary["measure"]) == ("paper", "error")
    assert summary["actions"] == {"dense": 1, "gated": 7}
    assert (summary["size"], summary["damage"], summary["interrupted"]) == ([112, 112], None, False)
    assert summary["flushes"] == [{"frame": 0, "reason": "first frame"}]


def test_the_figures_make_sense(demo):
    summary = json.loads(demo[0].stdout)
    operations, times, error = (summary[k] for k in ("operations", "time_ms", "relative_error"))
    assert operations["ratio"] == operations["dense"] / operations["eventful"]
    assert 2 < operations["ratio"] < 4
    assert times["speedup"] == times["dense"] / times["eventful"]
    assert 0.01 < error["mean"] < error["max"] < 1
    # 12 blocks; per token 2 x 3 references, 5 x 384 buffered, 384 + 2 x 6 of attention
    assert summary["state_bytes"] == 4 * 12 * 65 * (3 * 384 + 5 * 384 + 384 + 12)


def test_the_overlay_decodes_to_eight_different_frames(demo, decode):
    frames = decode(demo[1] / "overlay.mp4")
    assert [frame.shape for frame in frames] == [(2 * (204 + 24) + 28, 966, 3)] * 8
    for before, after in itertools.pairwise(frames):
        assert np.abs(before.astype(int) - after).mean() > 0.1
    top, bottom = frames[0][24:228, :480], frames[0][252:456, 486:]
    assert np.abs(top.astype(int) - bottom).mean() < 12  # all patches of frame 0 are updated
    bottom = frames[4][252:456, 486:]
    assert bottom.mean() < 0.75 * frames[4][24:228, :480].mean()  # most of frame 4 is darkened


def test_the_table_holds_a_row_for_each_frame(demo):
    result, out = demo
    rows, summary = rows_of(out), json.loads(result.stdout)
    assert list(rows[0]) == COLUMNS
    assert [int(row["frame"]) for row in rows] == list(range(8))
    assert [float(row["time_s"]) for row in rows] == pytest.approx([t / 25 for t in range(8)])
    assert [row["flush"] for row in rows] == ["first frame"] + [""] * 7
    assert [row["action"] for row in rows] == ["dense"] + ["gated"] * 7
    assert sum(int(row["operations"]) for row in rows) == summary["operations"]["eventful"]
    assert sum(int(row["dense_operations"]) for row in rows) == summary["operations"]["dense"]
    # 64 patches and the class token; a quarter of the patches, and it
    assert [float(row["updated_share"]) for row in rows] == pytest.approx([1] + [9 / 65] * 7)
    checked = [row for row in rows if row["relative_error"]]
    assert [row["frame"] for row in checked] == ["1", "3", "5", "7"]
    assert all(float(row["dense_milliseconds"]) > 0 for row in checked)
    errors = [float(row["relative_error"]) for row in checked]
    assert summary["relative_error"] == pytest.approx({"mean": np.mean(errors), "max": max(errors)})


def test_the_plot_is_a_picture(demo):
    with Image.open(demo[1] / "summary.png") as image:
        assert image.format == "PNG"
        assert len(set(image.convert("L").get_flattened_data())) > 20


def test_all_tokens_give_the_dense_model(tmp_path, invoke):
    result = invoke(
        *("run", "--size", 56, "--frames", 4, "--policy", "all", "--out", tmp_path, "--json")
    )
    summary = json.loads(result.stdout)
    assert summary["relative_error"]["max"] < 1e-4
    assert summary["operations"]["ratio"] == pytest.approx(1, abs=1e-2)
    assert summary["checked_frames"] == 4
    assert [float(row["updated_share"]) for row in rows_of(tmp_path)] == [1] * 4


def test_people_get_a_table(tmp_path, invoke, small, clip_file):
    result = invoke("run", clip_file, *small, "--frames", 3, "--out", tmp_path)
    assert result.exit_code == 0
    for text in ("square.mp4", "operations a frame", "time a frame", "relative error", "state"):
        assert text in result.stdout
    assert str(tmp_path / "overlay.mp4") in result.stdout.replace("\n", "").replace(" ", "")
    assert "1 of 3 frames" in result.stdout


def test_weights_in_both_kinds_of_file_give_the_same_run(tmp_path, invoke, clip_file):
    torch.manual_seed(3)
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    torch.save(state, tmp_path / "tiny.pth")
    save_file(state, tmp_path / "tiny.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "ddp.pth")
    other = {key: value + 0.02 * torch.randn_like(value) for key, value in state.items()}
    save_file(other, tmp_path / "other.safetensors")
    errors = []
    for name in ("tiny.pth", "tiny.safetensors", "ddp.pth", "other.safetensors"):
        out = tmp_path / f"out-{name}"
        result = invoke(
            *("run", clip_file, "--model", "timm:vit_tiny_patch16_224", "--weights"),
            *(tmp_path / name, "--size", 64, "--frames", 4, "--out", out, "--json"),
        )
        assert result.exit_code == 0, result.stderr
        summary = json.loads(result.stdout)
        assert (summary["model"], summary["size"]) == ("timm:vit_tiny_patch16_224", [64, 64])
        assert summary["frames"] == 4
        errors.append(summary["relative_error"])
    assert errors[0] == errors[1] == errors[2] != errors[3]
    assert errors[0]["max"] > 0


def test_weights_of_two_classifiers_are_left_out(tmp_path, invoke, clip_file):
    model = timm.create_model("deit_tiny_distilled_patch16_224")
    assert {"head.bias", "head_dist.bias"} < model.state_dict().keys()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    result = invoke(
        *("run", clip_file, "--model", "timm:deit_tiny_distilled_patch16_224", "--size", 32),
        *("--weights", tmp_path / "w.pth", "--frames", 1, "--out", tmp_path / "out", "--json"),
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["state_bytes"] == 4 * 12 * 6 * (9 * 192 + 6)


def test_keep_aspect(tmp_path, invoke, small, decode):
    result = invoke("run", *small, "--keep-aspect", "--frames", 2, "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["size"] == [32, 64]  # 640 x 272 to multiples of 16
    assert len(decode(tmp_path / "overlay.mp4")) == 2


def test_a_size_that_is_no_multiple_is_rounded_where_the_aspect_is_kept(
    tmp_path, invoke, small, clip_file
):
    result = invoke(
        *("run", clip_file, *small, "--size", 70, "--keep-aspect", "--frames", 2),
        *("--out", tmp_path, "--json"),
    )
    assert json.loads(result.stdout)["size"] == [48, 64]  # 48 x 32: 70 x 46.7


@pytest.mark.parametrize("attention", ["dense", "query_key", "cached"])
def test_attention_and_gate_and_policy_are_passed_on(tmp_path, invoke, small, clip_file, attention):
    result = invoke(
        *("run", clip_file, *small, "--frames", 3, "--out", tmp_path, "--json"),
        *("--attention", attention, "--gate", "blocks.5.mlp", "--policy", "top:5"),
        *("--check-every", 1),
    )
    summary = json.loads(result.stdout)
    assert (summary["attention"], summary["policy"]) == (attention, "top:5")
    assert summary["checked_frames"] == 3
    tokens, heads, dim, active = 17, 2, 64, 6
    maps = heads * tokens * tokens
    kept = {"dense": 0, "query_key": maps, "cached": 2 * maps + 2 * tokens * dim}[attention]
    assert summary["state_bytes"] == 4 * 6 * (tokens * 8 * dim + kept)
    assert float(rows_of(tmp_path)[1]["updated_share"]) == pytest.approx(active / tokens)


@pytest.mark.parametrize("measure", ["error", "relative", "age", "relative-age"])
@pytest.mark.parametrize("gating", ["paper", "hold", "input"])
def test_gating_and_measure_are_passed_on(tmp_path, invoke, small, clip_file, gating, measure):
    result = invoke(
        *("run", clip_file, *small, "--frames", 3, "--out", tmp_path, "--json"),
        *("--gating", gating, "--measure", measure, "--policy", "top:5", "--check-every", 1),
    )
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["gating"], summary["measure"]) == (gating, measure)
    gates, tokens, heads, dim = (1 if gating == "input" else 18), 17, 2, 64
    buffers = 6 * 3 * dim if gating == "input" else 6 * (5 * dim + dim + 2 * heads)
    norms_and_ages = gates * {"error": 0, "relative": 1, "age": 1, "relative-age": 2}[measure]
    assert summary["state_bytes"] == 4 * tokens * (gates * dim + buffers + norms_and_ages)
    row = rows_of(tmp_path)[2]
    assert float(row["updated_share"]) == pytest.approx(6 / tokens)
    if gating == "input":  # 6 of 17 tokens in every part, patch embedding whole
        assert 0.35 < int(row["operations"]) / int(row["dense_operations"]) < 0.45


def test_gatings_and_measures_give_other_outputs(tmp_path, invoke, small, clip_file):
    options = ("run", clip_file, *small, "--frames", 8, "--check-every", 1, "--policy", "top:3")
    pairs = [("paper", "error"), ("hold", "error"), ("input", "error"), ("input", "relative-age")]
    errors = []
    for gating, measure in pairs:
        more = ("--gating", gating, "--measure", measure, "--out", tmp_path, "--json")
        errors.append(json.loads(invoke(*options, *more).stdout)["relative_error"]["mean"])
    assert len(set(errors)) == 4
    assert all(0 < error < 1 for error in errors)


def test_policies_of_gates_that_come_from_a_file(tmp_path, invoke, small, clip_file):
    own = {f"blocks.{i}.{stage}": "top:3" for i in range(6) for stage in ("qkv", "proj")}
    own |= {f"blocks.{i}.mlp": "threshold:0.5" for i in range(6)} | {"blocks.2.proj": "top:7"}
    path = tmp_path / "gates.json"
    path.write_text(json.dumps({"format": "eventful calibration", "version": 1, "policies": own}))
    options = ("run", clip_file, *small, "--frames", 3, "--out", tmp_path / "out", "--json")
    result = invoke(*options, "--policy", path)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["policy"].startswith(f"{path}@")
    fixed = 11 * 4 + 8  # tokens let through by all gates but the six with thresholds
    share = float(rows_of(tmp_path / "out")[2]["updated_share"])
    assert fixed + 6 * 1 <= share * 18 * 17 <= fixed + 6 * 17
    result = invoke(*options, "--policy", path, "--gating", "input")
    assert result.exit_code == 2
    assert "calibrated for a model with other gates" in result.stderr


def test_a_run_writes_over_an_older_one(tmp_path, invoke, small, clip_file, decode):
    for frames in (5, 2):
        options = ("--frames", frames, "--out", tmp_path, "--json")
        result = invoke("run", clip_file, *small, *options)
        assert result.exit_code == 0
    assert len(rows_of(tmp_path)) == len(decode(tmp_path / "overlay.mp4")) == 2
    assert json.loads((tmp_path / "summary.json").read_text())["frames"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("scene_cuts", [True, False])
def test_the_first_cut_of_the_demo_clip_is_found(tmp_path, invoke, scene_cuts):
    result = invoke(
        *("run", "--size", 112, "--frames", 33, "--out", tmp_path, "--json", "--check-every", 20),
        "--scene-cuts" if scene_cuts else "--no-scene-cuts",
    )
    expected = [{"frame": 0, "reason": "first frame"}]
    expected += [{"frame": 30, "reason": "scene cut"}] if scene_cuts else []
    assert json.loads(result.stdout)["flushes"] == expected


@pytest.mark.parametrize("done", [0, 1, 3])
def test_an_interrupt_keeps_the_frames_done(
    tmp_path, invoke, small, clip_file, decode, monkeypatch, done
):
    process = running._Job._process

    def interrupted(job, frame):
        if len(job.rows) == done:
            raise KeyboardInterrupt
        return process(job, frame)

    monkeypatch.setattr(running._Job, "_process", interrupted)
    result = invoke("run", clip_file, *small, "--out", tmp_path, "--json")
    assert result.exit_code == 130
    summary = json.loads(result.stdout)
    assert (summary["interrupted"], summary["frames"]) == (True, done)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert sorted(summary["files"]) == sorted(file.name for file in tmp_path.iterdir())
    assert len(rows_of(tmp_path)) == done
    if done:
        assert len(decode(tmp_path / "overlay.mp4")) == done


def test_an_interrupt_is_told_to_people_too(tmp_path, invoke, small, clip_file, monkeypatch):
    def interrupted(job, frame):
        raise KeyboardInterrupt

    monkeypatch.setattr(running._Job, "_process", interrupted)
    result = invoke("run", clip_file, *small, "--out", tmp_path)
    assert result.exit_code == 130
    assert "0 of 0 frames" in result.stdout


def test_a_damaged_video_is_processed_up_to_the_damage(tmp_path, invoke, small, clip_file, decode):
    data = clip_file.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(0.6 * len(data))])
    out = tmp_path / "out"
    result = invoke("run", cut, *small, "--out", out, "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert 2 < summary["frames"] < 20
    assert f"after {summary['frames']} frames of 20 declared" in summary["damage"]
    assert not summary["interrupted"]
    assert len(rows_of(out)) == len(decode(out / "overlay.mp4")) == summary["frames"]
    assert "warning: cut.mp4: decoding stopped" in result.stderr.replace("\n", " ")


@pytest.fixture
def interrupt(command, small, tmp_path):
    """Start a run over the bundled clip in a process of its own and send it SIGINT."""
    program, environment = command
    arguments = ["run", *map(str, small), "--out", str(tmp_path / "out"), "--json"]
    process = subprocess.Popen(
        [*program, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_rows(process, tmp_path / "out" / "frames.csv", 3)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, stdout, stderr, tmp_path / "out"


def wait_for_rows(process, table, count):
    deadline = time.monotonic() + 120
    while not table.exists() or len(table.read_text().splitlines()) <= count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no frame within two minutes"
        time.sleep(0.05)


def test_ctrl_c_leaves_whole_files(interrupt, decode):
    code, stdout, stderr, out = interrupt
    assert code == 130
    assert "Traceback" not in stderr
    summary = json.loads(stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["interrupted"]
    assert 3 <= summary["frames"] < 250
    assert sorted(file.name for file in out.iterdir()) == sorted(FILES)
    # the last frame may have been counted and not yet drawn when the signal came
    assert summary["frames"] - len(decode(out / "overlay.mp4")) in (0, 1)
    assert summary["frames"] - len(rows_of(out)) in (0, 1)


@pytest.mark.slow
def test_compiled_and_with_16_bit_state(invoke, tmp_path):
    """Compiling is not timed; of 36 bytes a token and value of state, 20 are left."""
    options = ("--frames", 6, "--size", 112, "--policy", "top:16", "--json")
    plain = json.loads(invoke("run", *options, "--out", tmp_path / "plain").stdout)
    more = ("--compile", "--state-dtype", "bfloat16", "--out", tmp_path / "compiled")
    compiled = json.loads(invoke("run", *options, *more).stdout)
    assert compiled["state_bytes"] < 0.6 * plain["state_bytes"]
    assert compiled["operations"]["dense"] == plain["operations"]["dense"]
    assert compiled["time_ms"]["eventful"] < 5000


def test_a_dtype_that_state_is_not_kept_in_is_refused(invoke):
    result = invoke("run", "--state-dtype", "int8")
    assert result.exit_code == 2
    assert "float32, bfloat16, float16, got 'int8'" in result.stderr
