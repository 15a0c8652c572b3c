"""`eventful inspect hf:...` and `eventful run --model hf:...` on tiny folders."""

import json
import statistics

import pytest
import transformers

import eventful
from eventful.video import Reader
from tests.pretrained import folders


@pytest.fixture
def inspect(invoke):
    def inspect(model, *options):
        result = invoke("inspect", f"hf:{model}", "--json", *options)
        assert result.exit_code == 0, result.stderr or result.exception
        return json.loads(result.stdout)

    return inspect


@pytest.fixture
def run(invoke, video, tmp_path):
    def run(model, *options):
        where = ("--model", f"hf:{model}", "--out", tmp_path / "out", "--check-every", 1, "--json")
        result = invoke("run", video, *where, *options)
        assert result.exit_code == 0, result.stderr or result.exception
        return json.loads(result.stdout)["clips"][0]

    return run


def test_what_inspect_foretells_is_what_a_stream_finds(inspect, folder):
    report = inspect(folder("Depth Anything"))
    model = transformers.AutoModelForDepthEstimation.from_pretrained(folder("Depth Anything"))
    processor = transformers.AutoImageProcessor.from_pretrained(folder("Depth Anything"))
    stream = eventful.Stream(eventful.convert(model), normalize=processor, scene_cuts=None)
    stream.policy = eventful.Auto(share=0.5)
    frame = folders.frames(1)[0]
    x = processor(frame, return_tensors="pt", do_normalize=False).pixel_values
    stream(x)
    assert report["size"] == list(x.shape[-2:])
    assert report["taps"] == list(stream.layout.taps)
    assert report["grid"] == list(stream.layout.grid)
    assert report["costs"]["dense"] == stream.costs.dense
    assert report["costs"]["carried"] == stream.costs.carried


def test_inspect_needs_no_weights(inspect, folder, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (bare / name).write_bytes((folder("YOLOS") / name).read_bytes())
    assert inspect(bare)["blocks"] == inspect(folder("YOLOS"))["blocks"]


def test_inspect_tells_what_gates_cost(inspect, folder):
    report = inspect(folder("OWLv2 detector"), "--policy", "top:5")
    assert report["updated_tokens"] == 6  # and the class token
    assert report["operations"]["ratio"] > 1
    assert list(report["policies"].values()) == [None] * 4


def test_inspect_says_which_policies_do_not_work(inspect, folder):
    reasons = inspect(folder("SAM 2 Hiera"))["policies"]
    assert "with --blocks PATTERN" in reasons["skip"]
    assert reasons["top, fraction, threshold, all"] is None
    assert inspect(folder("SAM 2 Hiera"), "--blocks", "blocks.[01]")["policies"]["skip"] is None


def test_inspect_refuses_by_name(invoke, tmp_path):
    config = transformers.BertConfig(hidden_size=24, num_attention_heads=3, vocab_size=30)
    config.architectures = ["BertModel"]
    config.save_pretrained(tmp_path)
    result = invoke("inspect", f"hf:{tmp_path}")
    assert result.exit_code == 2
    assert "is a BertModel, which takes no frames" in result.stderr


@pytest.mark.parametrize("name", ["Depth Anything", "ViTPose", "YOLOS", "SAM", "CLIP"])
def test_a_run_shows_the_tasks_own_pictures(run, folder, name, tmp_path):
    clip = run(folder(name), "--share", 0.5)
    assert clip["frames"] == sum(clip["kinds"].values()) == 8
    assert clip["operations"]["ratio"] > 1.5
    assert clip["error"]["measured"]["frames"] == 8
    with Reader(tmp_path / "out" / "overlay.mp4") as overlay:
        assert len([*overlay]) == 8


def test_a_run_measures_the_error_of_taps(run, evaluate, folder):
    clip = run(folder("DPT"), "--policy", "skip:3")
    report = evaluate(folder("DPT"), "--policy", "skip:3")
    errors = [row["measured_error"] for row in clip["rows"]]
    error = report["policies"][0]["tap_error"]
    assert statistics.fmean(errors) == pytest.approx(error["mean"], rel=1e-4)
    assert max(errors) == pytest.approx(error["max"], rel=1e-4)


def test_a_run_under_a_token_policy_shows_what_gates_let_through(run, folder):
    clip = run(folder("ViT"), "--policy", "top:4")
    assert clip["kinds"] == {"dense": 1, "gated": 7}
    assert {row["tokens"] for row in clip["rows"][1:]} == {5}  # and the class token


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ViT", ("--size", 64), "--weights, --size and --square are for models of timm"),
        ("VideoMAE", (), "takes clips of 4 frames; use eventful evaluate folder"),
        ("OWLv2 detector", (), "give --text"),
    ],
)
def test_options_of_run_that_do_not_fit(invoke, folder, video, name, options, message):
    result = invoke("run", video, "--model", f"hf:{folder(name)}", *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_options_for_transformers_are_refused_for_others(invoke, video):
    result = invoke("run", video, "--model", "timm:test_vit", "--text", "a cat")
    assert result.exit_code == 2
    assert "--task, --text, --point and --blocks are for models of transformers" in result.stderr
    result = invoke("inspect", "vit_tiny_patch16_224", "--task", "depth")
    assert result.exit_code == 2
    assert "--task is for models of transformers" in result.stderr


def test_run_shows_no_blocks_of_several_shapes(invoke, folder, video, tmp_path):
    where = ("--model", f"hf:{folder('SAM 2 Hiera')}", "--policy", "all", "--out", tmp_path)
    result = invoke("run", video, *where)
    assert result.exit_code == 2
    assert "has blocks of several shapes" in result.stderr
    assert "use eventful evaluate folder" in result.stderr
