"""`eventful inspect`: what it foretells without weights is what a stream then does."""

import json
import subprocess

import pytest
import timm
import torch

import eventful
from eventful.block.bindings import binding
from eventful.policies import parse

FORMS = ("dense", "query_key", "cached", "incremental")
NAME = "vit_tiny_patch16_224"


def inspected(invoke, *arguments, code=0):
    result = invoke("inspect", *arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def frames_of_a_stream(policy, size, **options):
    """Statistics of the frames of a real stream on the same model, behind the first one."""
    torch.manual_seed(0)
    model = timm.create_model(NAME, img_size=size).eval()
    model = eventful.convert(model, parse(policy), **options)
    stream = eventful.Stream(model, scene_cuts=None)
    stream(torch.randn(1, 3, size, size))
    while True:
        stream(torch.randn(1, 3, size, size))
        yield stream


def as_foretold(stream, updated):
    """Whether no row met the guard, and the row in rotation was not among the updated ones."""
    states = [binding(block).state.attention for block in stream._bound.blocks.values()]
    return all(state.recomputed == (updated + 1,) for state in states)


@pytest.mark.parametrize(
    ("attention", "size", "policy"),
    [
        ("incremental", 224, "top:3"),
        ("incremental", 64, "top:1"),
        ("dense", 64, "fraction:0.25"),
        ("query_key", 64, "fraction:0.25"),
        ("cached", 96, "top:9"),
        *((form, 64, "all") for form in FORMS),
    ],
)
def test_the_figures_are_those_of_a_stream(invoke, attention, size, policy):
    report = inspected(
        *(invoke, NAME, "--size", size, "--policy", policy, "--attention", attention)
    )
    updated = report["updated_tokens"]
    frames = frames_of_a_stream(policy, size, attention=attention)
    stream = next(frames)
    while attention == "incremental" and policy != "all" and not as_foretold(stream, updated):
        assert stream.stats.frames < 30
        stream = next(frames)
    stats = stream.stats
    assert set(stats.updated.values()) == {(updated,)}
    assert report["tokens"] == stream.gate("blocks.0.qkv").updated.shape[1] == 1 + (size // 16) ** 2
    assert report["prefix_tokens"] == 1
    used, dense = stats.operations, stats.dense_operations
    assert report["operations"] == {
        "dense": dense.as_dict() | {"total": dense.total},
        "eventful": used.as_dict() | {"total": used.total},
        "ratio": dense.total / used.total,
    }
    assert report["state_bytes"] == stats.state_bytes


def foretells(report, stats):
    return (
        report["operations"]["dense"]["total"] == stats.dense_operations.total
        and report["operations"]["eventful"]["total"] == stats.operations.total
        and report["state_bytes"] == stats.state_bytes
    )


@pytest.mark.parametrize("measure", ["error", "relative", "age", "relative-age"])
@pytest.mark.parametrize(
    ("gating", "attention"), [("paper", "dense"), ("hold", "dense"), ("input", "incremental")]
)
def test_gatings_and_measures_cost_what_a_stream_does(invoke, gating, attention, measure):
    names = {"gating": gating, "attention": attention, "measure": measure}
    options = [f"--{name}={value}" for name, value in names.items()]
    report = inspected(invoke, NAME, "--size", 64, "--policy", "top:3", *options)
    assert {name: report[name] for name in names} == names
    assert report["updated_tokens"] == 4
    gates = ["blocks.0.qkv"] if gating == "input" else [f"blocks.{i}" for i in range(12)]
    assert len(report["updated_by_gate"]) == (1 if gating == "input" else 3 * len(gates))
    stats = next(frames_of_a_stream("top:3", 64, **names)).stats
    assert foretells(report, stats)


def test_one_gate_costs_less_and_remembers_less(invoke):
    paper, held, one = (
        inspected(invoke, NAME, "--size", 64, "--policy", "fraction:0.125", "--gating", gating)
        for gating in ("paper", "hold", "input")
    )
    assert paper["state_bytes"] == held["state_bytes"] > 2 * one["state_bytes"]
    operations = [r["operations"]["eventful"]["total"] for r in (paper, held, one)]
    assert operations[0] > operations[1] > operations[2]


def gates_of(blocks):
    return [f"blocks.{i}.{stage}" for i in range(blocks) for stage in ("qkv", "proj", "mlp")]


def written(path, policies):
    """A file as `eventful calibrate` writes it."""
    path.write_text(
        json.dumps({"format": "eventful calibration", "version": 1, "policies": policies})
    )
    return path


def test_gates_may_have_policies_of_their_own(invoke, tmp_path):
    own = dict.fromkeys(gates_of(12), "top:3")
    own |= {name: "top:5" for name in own if name.endswith("mlp")} | {"blocks.7.proj": "top:2"}
    path = written(tmp_path / "gates.json", own)
    options = (NAME, "--size", 64, "--attention", "dense", "--policy", path)
    report = inspected(invoke, *options)
    assert report["policy"].startswith(f"{path}@")
    assert report["updated_tokens"] is None
    counts = report["updated_by_gate"]
    assert {counts[f"blocks.{i}.qkv"] for i in range(12)} == {4}
    assert (counts["blocks.3.mlp"], counts["blocks.3.proj"], counts["blocks.7.proj"]) == (6, 4, 3)
    stats = next(frames_of_a_stream(str(path), 64, attention="dense")).stats
    assert foretells(report, stats)
    assert "3 to 6, by gate," in invoke("inspect", *options).stdout
    written(path, own | {"blocks.7.proj": "threshold:0.5"})
    report = inspected(invoke, *options)
    assert report["updated_by_gate"]["blocks.7.proj"] is None
    assert report["operations"]["eventful"] is None


def test_where_full_attention_is_cheaper_the_figures_are_those_of_a_stream(invoke):
    report = inspected(invoke, NAME, "--size", 64, "--policy", "fraction:0.6")
    stats = next(frames_of_a_stream("fraction:0.6", 64)).stats
    assert report["operations"]["eventful"]["query_key"] == stats.operations.query_key


def test_the_report_of_the_models_own_size(invoke):
    report = inspected(invoke, NAME, "--policy", "fraction:0.125")
    assert report["converts"] is True
    assert report["blocks"] == {f"blocks.{i}": "Block" for i in range(12)}
    assert (report["model"], report["policy"]) == (NAME, "fraction:0.125")
    assert report["attention"] == "incremental"
    assert (report["size"], report["tokens"], report["prefix_tokens"]) == (224, 197, 1)
    assert report["updated_tokens"] == 1 + 24
    # 192 channels, 3 heads, MLP of 768: multiply-accumulates and biases of 197 tokens
    layers = 197 * 12 * (192 * 576 + 576 + 192 * 192 + 192 + 2 * 192 * 768 + 768 + 192)
    products = 12 * 2 * 197 * 197 * 192
    outside = 197 * 192 + 192 * 1000 + 1000
    total = layers + products + 12 * 2 * 197 * 192 + outside
    assert report["operations"]["dense"]["total"] == report["costs"]["dense"] == total
    assert report["operations"]["dense"]["other"] == report["costs"]["carried"] == outside
    assert report["state_bytes"] == 4 * 12 * 197 * (3 * 192 + 5 * 192 + 192 + 2 * 3)


def test_what_frame_policies_find(invoke):
    report = inspected(invoke, NAME, "--size", 64)
    assert (report["policy"], report["grid"], report["tokens"]) == ("error:0.15", [4, 4], 17)
    assert (report["taps"], report["apart"]) == (["blocks.11"], [])
    assert set(report["policies"].values()) == {None}
    assert "updated_by_gate" not in report
    model = eventful.convert(timm.create_model(NAME, img_size=64).eval())
    stream = eventful.Stream(model, policy=eventful.Auto(share=0.5), normalize=True)
    stream(torch.rand(1, 3, 64, 64))
    costs = stream.costs.to_dict() | {"partial_eighth": stream.costs.of(2)}
    assert report["costs"] == costs


def test_policies_that_do_not_work_are_named(invoke):
    report = inspected(invoke, NAME, "--size", 32)  # too small for motion
    reasons = report["policies"]
    assert "too small for motion" in reasons["error, auto, time, latency"]
    assert "too small for motion" in reasons["carry"]
    assert reasons["skip"] is reasons["top, fraction, threshold, all"] is None
    assert "costs" not in report
    assert "no: frames of 32" in invoke("inspect", NAME, "--size", 32).stdout


@pytest.mark.parametrize("name", [NAME, f"timm:{NAME}"])
def test_the_prefix_timm_may_be_left_out(invoke, name):
    assert inspected(invoke, name, "--size", 64)["tokens"] == 17


def test_the_demo_model(invoke):
    report = inspected(invoke, "demo")
    assert (report["size"], report["tokens"], len(report["blocks"])) == (518, 1370, 12)


def test_rotary_models_are_inspected_too(invoke):
    report = inspected(invoke, "eva02_tiny_patch14_224", "--size", 56)
    assert set(report["blocks"].values()) == {"EvaBlock"}
    assert (report["tokens"], report["prefix_tokens"]) == (17, 1)


def test_the_cost_of_a_threshold_depends_on_the_video(invoke):
    report = inspected(invoke, NAME, "--size", 64, "--policy", "threshold:0.5")
    assert report["converts"] is True
    assert report["updated_tokens"] is None
    assert report["operations"]["eventful"] is None
    assert report["operations"]["ratio"] is None
    assert report["operations"]["dense"]["total"] > 0
    assert report["state_bytes"] > 0
    text = invoke("inspect", NAME, "--size", 64, "--policy", "threshold:0.5").stdout
    assert "depends on the video" in text


def test_people_get_a_table(invoke):
    text = " ".join(invoke("inspect", NAME, "--size", 64).stdout.split())
    for part in (
        "12 convert: blocks.0, blocks.1",
        "17: a grid of 4 x 4",
        "taps blocks.11",
        "carry",
    ):
        assert part in text
    options = ("--size", 64, "--policy", "fraction:0.125")
    text = " ".join(invoke("inspect", NAME, *options).stdout.split())
    for part in ("query_key", "total", "3 of 17 tokens on a frame", "fewer operations"):
        assert part in text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet18", "nothing to convert in this ResNet: it holds no transformer block"),
        ("swin_tiny_patch4_window7_224", "SwinTransformerBlock"),
    ],
)
def test_a_model_that_does_not_convert_says_why(invoke, name, reason):
    report = inspected(invoke, name, code=1)
    assert report["converts"] is False
    assert reason in report["reason"]
    result = invoke("inspect", name)
    assert result.exit_code == 1
    assert f"{name} does not convert: " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vit_tinny_patch16_224"], "near names: vit_tiny_patch16_224"),
        ([NAME, "--policy", "top:500"], "TopR(500) asks for more tokens"),
        ([NAME, "--policy", "nonsense"], "policy 'nonsense' is not understood"),
        ([NAME, "--attention", "flash"], "--attention is one of dense, query_key, cached, "),
        ([NAME, "--gating", "holt"], "got 'holt'; do you mean 'hold'?"),
        ([NAME, "--measure", "ages"], "got 'ages'; do you mean 'age'?"),
        ([NAME, "--gating", "input", "--attention", "dense"], "attention='incremental' only"),
        ([NAME, "--gating", "hold"], "concern the gates of token policies, and error:0.15 decides"),
        ([NAME, "--policy", "auto:2"], "needs a number above 0 and at most 1, got 2.0"),
        ([NAME, "--size", "50"], "--size 50 is no multiple of the patch of 16; use 48 or 64"),
        (["demo", "--size", "50"], "--size 50 is no multiple of the patch of 14; use 42 or 56"),
        ([NAME, "--size", "0"], "cannot be built at size 0"),
        (["resnet18", "--size", "64"], "resnet18 cannot be built at size 64"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(invoke, arguments, message):
    result = invoke("inspect", *arguments, "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.slow
def test_in_a_process_of_its_own(command):
    program, environment = command
    done = subprocess.run(
        [*program, "inspect", "resnet18", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["converts"] is False
    assert done.stderr == ""


@pytest.mark.parametrize("size", [64, 96])
def test_patches_behind_convolutions_are_those_of_a_stream(invoke, size):
    report = inspected(invoke, "vit_tiny_r_s16_p8_224", "--size", size)
    assert set(report["policies"].values()) == {None}
    model = timm.create_model("vit_tiny_r_s16_p8_224", img_size=size, depth=2).eval()
    stream = eventful.Stream(eventful.convert(model, eventful.Auto(share=0.5)), normalize=True)
    stream(torch.rand(1, 3, size, size))
    assert stream.layout is not None
    assert report["grid"] == list(stream.layout.grid) == [size // 32, size // 32]


def test_a_size_that_a_run_refuses_is_refused(invoke):
    result = invoke("inspect", "vit_tiny_r_s16_p8_224", "--size", 80)
    assert result.exit_code == 2
    assert "--size 80 is no multiple of the patch of 32; use 64 or 96" in result.stderr
