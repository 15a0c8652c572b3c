"""`eventful run`: what it writes, what it prints, and that the two agree."""

import json
import statistics
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer_sam import VisionTransformerSAM

from eventful.cli import charts, clips, job
from eventful.cli.checks import Checks
from eventful.cli.panels import COLOURS
from eventful.cli.session import Row
from eventful.video import Reader

FILES = ("overlay.mp4", "report.json", "summary.png")
CLIP = {
    "video": str,
    "size": list,
    "frames": int,
    "kinds": dict,
    "scene_cuts": list,
    "operations": {"dense": int, "eventful": int, "ratio": float},
    "time_ms": {"dense": float, "eventful": float, "ratio": float, "setup": float},
    "error": {"target": float, "estimated": dict, "measured": dict, "replaced": dict},
    "skipping": {"every": float, "error": float, "pairs": int, "longest": int},
    "state_bytes": int,
    "costs": dict,
    "rows": list,
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory, invoke):
    """The demo, small and short."""
    out = tmp_path_factory.mktemp("demo") / "deeper" / "out"
    options = ("--size", 126, "--frames", 9, "--check-every", 2, "--out", out, "--json")
    result = invoke("run", *options)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), out


@pytest.fixture
def run(tmp_path, invoke, small, clip_file):
    """Run a policy over the first frames of the small clip; give back what is said of it."""

    def run(*options, frames=8):
        more = ("--frames", frames, "--out", tmp_path / "out", "--json", *options)
        result = invoke("run", clip_file, *small, *more)
        assert result.exit_code == 0, result.stderr
        (clip,) = json.loads(result.stdout)["clips"]
        return clip

    return run


def has_kinds(value, kinds):
    if isinstance(kinds, dict):
        return all(has_kinds(value[key], kind) for key, kind in kinds.items())
    return isinstance(value, kinds)


def test_the_demo_shows_a_moving_and_a_still_camera(demo):
    report, _ = demo
    assert (report["model"], report["policy"], report["interrupted"]) == (
        "demo",
        "error:0.15",
        False,
    )
    moving, still = report["clips"]
    assert all(has_kinds(clip, CLIP) for clip in (moving, still))
    assert (moving["video"], moving["camera"]) == ("bikes.mp4", "moving camera")
    assert (still["video"], still["camera"]) == ("bigbuckbunny.mp4", "still camera")
    assert (moving["size"], still["size"]) == ([56, 126], [70, 126])  # 640 x 272, 1280 x 720
    assert moving["frames"] == still["frames"] == 9


def test_standard_output_is_json_alone_and_the_same_as_the_file(demo):
    report, out = demo
    assert report == json.loads((out / "report.json").read_text())


def test_the_three_files_exist_and_are_named(demo):
    report, out = demo
    assert sorted(file.name for file in out.iterdir()) == sorted(FILES)
    assert report["files"] == {
        name: str(out / name) for name in ("overlay.mp4", "summary.png", "report.json")
    }


def test_the_figures_are_those_of_the_rows(demo):
    for clip in demo[0]["clips"]:
        rows = clip["rows"]
        assert [row["frame"] for row in rows] == list(range(9))
        assert (rows[0]["kind"], rows[0]["reason"]) == ("dense", "first frame")
        assert sum(clip["kinds"].values()) == 9
        used = sum(row["operations"] for row in rows)
        assert clip["operations"]["ratio"] == clip["operations"]["dense"] / used > 1
        times = clip["time_ms"]
        ours = [times["dense"], *(row["milliseconds"] for row in rows[1:])]
        assert times["eventful"] == pytest.approx(statistics.fmean(ours))
        assert times["ratio"] == times["dense"] / times["eventful"]
        for name, field in (("measured", "measured_error"), ("replaced", "replaced_error")):
            known = [row[field] for row in rows if row[field] is not None]
            assert clip["error"][name]["frames"] == len(known)
            assert clip["error"][name]["max"] == max(known, default=None)
        assert clip["error"]["target"] == 0.15
        measured = [row["frame"] for row in rows if row["measured_error"] is not None]
        assert measured == [2, 3, 6, 8]
        assert clip["skipping"]["pairs"] == 6


def test_the_overlay_shows_all_frames_of_both_clips(demo, decode):
    frames = decode(demo[1] / "overlay.mp4")
    assert [frame.shape for frame in frames] == [(2 * (360 + 36) + 84, 1288, 3)] * 18
    rows = [row for clip in demo[0]["clips"] for row in clip["rows"]]
    for frame, row in zip(frames, rows, strict=True):
        badge = frame[396 + 3 : 396 + 6, 648 + 4 : 648 + 40].mean(axis=(0, 1))
        assert np.abs(badge - COLOURS[row["kind"]]).max() < 40, row


def test_short_clips_are_shown_slowly(demo):
    with Reader(demo[1] / "overlay.mp4") as reader:
        times = [float(frame.time) for frame in reader]
    assert np.allclose(np.diff(times), 4 / 25, atol=1e-3)


def test_the_plot_is_a_picture(demo):
    with Image.open(demo[1] / "summary.png") as image:
        assert image.format == "PNG"
        assert len(set(image.convert("L").get_flattened_data())) > 20


def test_the_legend_names_what_any_clip_shows(demo, monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(charts.Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    (row, *_) = (Row(**row) for row in demo[0]["clips"][0]["rows"])
    clips = {"a": [row, replace(row, frame=1, kind="partial")], "b": [replace(row, kind="held")]}
    charts.plot(clips, None, tmp_path / "summary.png")
    legends = [axis.get_legend() for axis in figures[0].axes]
    texts = [[text.get_text() for text in legend.texts] for legend in legends if legend]
    assert texts[0] == ["dense", "partial", "held"]
    assert texts[1][0] == "estimated"
    assert len(texts[1]) == len(set(texts[1])) == 3


@pytest.mark.slow
def test_the_demo_as_it_is(invoke, tmp_path):
    """Without arguments; in which time, depends on what else the machine does."""
    result = invoke("run", "--out", tmp_path, "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, len(report["clips"])) == (0, 2)
    assert all(clip["frames"] >= job.LEAST for clip in report["clips"])
    assert all(clip["operations"]["ratio"] > 1 for clip in report["clips"])


def test_a_slow_machine_ends_the_clips_early(invoke, tmp_path, monkeypatch):
    monkeypatch.setattr("eventful.cli.commands.run.DEMO_SECONDS", 0.0)
    monkeypatch.setattr(job, "LEAST", 2)
    result = invoke("run", "--size", 126, "--out", tmp_path, "--json")
    for clip in json.loads(result.stdout)["clips"]:
        assert clip["frames"] == 2
        assert clip["stopped"] == "ended early of 50 frames, to be done in time"


def test_the_clips_of_the_demo_are_where_they_should_be():
    for clip in clips.demo_clips(None):
        with Reader(clip.path, 56, keep_aspect=True) as reader:
            assert clip.total(reader) == clip.count == 50
            numbers = [frame.index for frame, _ in clip.frames(reader)]
        assert numbers == list(range(clip.first, clip.first + 50))


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ((), "error:0.15"),
        (("--max-error", 0.3), "error:0.3"),
        (("--share", 0.5), "auto:0.5"),
        (("--time", 0.5), "time:0.5"),
        (("--latency-ms", 40), "latency:40"),
        (("--policy", "carry:3"), "carry:3"),
        (("--policy", "threshold:0.5"), "threshold:0.5"),
    ],
)
def test_policies_and_their_short_forms(tmp_path, invoke, small, clip_file, options, policy):
    more = ("--frames", 3, "--out", tmp_path, "--json", *options)
    result = invoke("run", clip_file, *small, *more)
    assert json.loads(result.stdout)["policy"] == policy, result.stderr


def test_what_skipping_costs_is_what_a_run_that_skips_measures(run):
    clip = run("--policy", "skip:4", "--check-every", 1)
    assert clip["kinds"] == {"dense": 2, "held": 6}
    assert [row["age"] for row in clip["rows"]] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert clip["error"]["estimated"]["mean"] is None
    assert clip["error"]["measured"]["frames"] == 8


def test_the_error_is_that_of_the_tokens_shown(run, weights, clip_file):
    clip = run("--policy", "skip:4", "--check-every", 1, "--square", frames=4)
    model = timm.create_model("test_vit").eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.set_input_size(img_size=(64, 64))
    with Reader(clip_file, 64) as reader, torch.inference_mode():
        mean, std = (
            torch.tensor(model.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std")
        )
        frames = [(frame.image - mean) / std for frame, _ in zip(reader, range(4), strict=False)]
        tokens = [model.forward_features(frame)[:, 1:] for frame in frames]
    errors = [float((tokens[0] - x).norm() / x.norm()) for x in tokens]
    found = [row["measured_error"] for row in clip["rows"]]
    assert found == pytest.approx(errors, abs=1e-5)


def test_all_tokens_give_the_dense_model(run):
    clip = run("--policy", "all", "--check-every", 1)
    assert clip["error"]["measured"]["max"] < 1e-4
    assert clip["operations"]["ratio"] == pytest.approx(1, abs=1e-2)
    assert clip["kinds"] == {"dense": 1, "gated": 7}


def test_people_get_a_table(tmp_path, invoke, small, clip_file):
    result = invoke("run", clip_file, *small, "--frames", 8, "--out", tmp_path)
    assert result.exit_code == 0
    for text in ("square.mp4", "fewer than dense", "ms eventful", "target 0.15", "skipping"):
        assert text in result.stdout
    assert str(tmp_path / "overlay.mp4") in result.stdout.replace("\n", "").replace(" ", "")


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
            *("run", clip_file, "--model", "timm:vit_tiny_patch16_224", "--policy", "skip:2"),
            *("--weights", tmp_path / name, "--size", 64, "--square", "--frames", 4),
            *("--check-every", 1, "--out", out, "--json"),
        )
        assert result.exit_code == 0, result.stderr
        report = json.loads(result.stdout)
        (clip,) = report["clips"]
        assert (report["model"], clip["size"]) == ("timm:vit_tiny_patch16_224", [64, 64])
        assert clip["frames"] == 4
        errors.append(clip["error"]["measured"])
    assert errors[0] == errors[1] == errors[2] != errors[3]
    assert errors[0]["max"] > 0


def test_weights_of_two_classifiers_are_left_out(tmp_path, invoke, clip_file):
    model = timm.create_model("deit_tiny_distilled_patch16_224")
    assert {"head.bias", "head_dist.bias"} < model.state_dict().keys()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    result = invoke(
        *("run", clip_file, "--model", "timm:deit_tiny_distilled_patch16_224", "--size", 80),
        *("--weights", tmp_path / "w.pth", "--frames", 1, "--out", tmp_path / "out", "--json"),
    )
    assert result.exit_code == 0, result.stderr


def test_the_aspect_is_kept_and_rounded(run):
    assert run("--size", 70, frames=2)["size"] == [48, 64]  # 48 x 32: 70 x 46.7
    assert run("--square", frames=2)["size"] == [64, 64]


def test_policies_of_gates_come_from_a_file_with_how_their_gates_work(
    tmp_path, invoke, small, clip_file
):
    own = {"blocks.0.qkv": "top:3"}
    about = {"model": "timm:test_vit", "gating": "input", "attention": "incremental"}
    content = {"format": "eventful calibration", "version": 1, "policies": own, "about": about}
    path = tmp_path / "gates.json"
    path.write_text(json.dumps(content))
    options = ("run", clip_file, *small, "--frames", 3, "--out", tmp_path / "out", "--json")
    report = json.loads(invoke(*options, "--policy", path).stdout)
    assert report["policy"].startswith(f"{path}@")
    assert report["clips"][0]["rows"][2]["tokens"] == 3 + 1
    about["model"] = "timm:vit_tiny_patch16_224"
    path.write_text(json.dumps(content))
    result = invoke(*options, "--policy", path)
    assert result.exit_code == 2
    assert "calibrated with --model timm:vit_tiny_patch16_224, and this run has" in result.stderr


def test_a_model_from_a_folder(tmp_path, invoke, weights, clip_file):
    model = timm.create_model("test_vit")
    model.load_state_dict(torch.load(weights))
    timm.models.save_for_hf(model, tmp_path / "model")
    options = ("--model", f"timm:local-dir:{tmp_path / 'model'}", "--size", 64, "--frames", 3)
    result = invoke("run", clip_file, *options, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["clips"][0]["frames"] == 3


def tiny_sam(name, **options):
    more = {"embed_dim": 24, "depth": 2, "num_heads": 3, "window_size": 2, "neck_chans": 0}
    model = VisionTransformerSAM(img_size=64, patch_size=16, global_attn_indexes=(1,), **more)
    model.pretrained_cfg = {"input_size": (3, 64, 64), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return model


@pytest.mark.parametrize("options", [(), ("--square",), ("--size", 96)])
def test_segment_anything_at_its_own_size_and_at_others(
    tmp_path, invoke, clip_file, monkeypatch, options
):
    monkeypatch.setattr(timm, "create_model", tiny_sam)
    more = ("--frames", 3, "--policy", "skip:2", "--out", tmp_path / "out", "--json")
    result = invoke("run", clip_file, "--model", "timm:samvit_base_patch16", *options, *more)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["clips"][0]["frames"] == 3


@pytest.mark.parametrize("policy", ["skip:2", "top:1"])
def test_patches_behind_convolutions_are_larger(tmp_path, invoke, clip_file, monkeypatch, policy):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **_: create(name, depth=1))
    options = ("--model", "timm:vit_tiny_r_s16_p8_224", "--policy", policy, "--size", 96)
    result = invoke("run", clip_file, *options, "--frames", 2, "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["clips"][0]["size"] == [64, 96]  # patches of 32


def test_a_model_of_one_size_says_so(tmp_path, invoke, clip_file, monkeypatch):
    def strict(name, **options):
        model = tiny_sam(name, **options)
        model.patch_embed.strict_img_size = True
        return model

    monkeypatch.setattr(timm, "create_model", strict)
    options = ("--model", "timm:samvit_base_patch16", "--out", tmp_path / "out", "--frames", 2)
    result = invoke("run", clip_file, *options, "--policy", "skip:2")
    assert result.exit_code == 2
    assert "takes frames of 64 x 64 pixels only, and these are 64 x 48" in result.stderr
    assert "--size 64 --square" in result.stderr
    result = invoke("run", clip_file, *options, "--policy", "skip:2", "--square")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(("every", "total"), [(10, None), (10, 50), (3, 200), (2, 8), (10, 20)])
def test_checked_frames_see_every_distance_of_a_group(every, total):
    checks = Checks(every, total)
    looked = [number for number in range(120) if checks.wanted(number)]
    first = looked[:4]
    assert sorted(b - a for a in first for b in first if a < b) == [1, 2, 3, 4, 5, 6]
    assert all(Checks(1, total).wanted(number) for number in range(9))


def test_skipping_between_whole_numbers_is_a_mixture_of_the_same_time():
    checks = Checks(1, 5)
    for number, value in enumerate((1.0, 2.0, 4.0, 8.0)):
        checks.add(number, torch.tensor([value]))
    assert [checks.held(age) for age in (0, 1, 2, 3, 9)] == [0, 0.5, 0.75, 0.875, 0.875]
    assert checks.skipping(1) == 0
    assert checks.skipping(3) == pytest.approx(1.25 / 3)
    # half of the time at every second frame and half at every third is every 2.4th
    assert checks.skipping(2.4) == pytest.approx((0.25 + 1.25 / 3) / 2)
    assert (checks.pairs, checks.longest) == (6, 3)
