"""Mistakes of a user: exit code 2, one line on standard error, no traceback, nothing written."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from eventful.cli.commands import run as running
from eventful.cli.commands.run import REMOVED


@pytest.fixture
def refuse(tmp_path, invoke, small, clip_file, monkeypatch):
    """Run with the given options after good ones; give back the one line."""
    monkeypatch.chdir(tmp_path)

    def refuse(*options, video=clip_file, before=small):
        there = set(tmp_path.rglob("*"))
        result = invoke("run", video, *before, "--frames", 3, "--out", "out", "--json", *options)
        assert result.exit_code == 2, result.stderr
        assert isinstance(result.exception, SystemExit)
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1, result.stderr
        assert set(tmp_path.rglob("*")) == there
        return result.stderr

    return refuse


def test_the_options_before_a_mistake_are_good(tmp_path, invoke, small, clip_file):
    result = invoke("run", clip_file, *small, "--frames", 3, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.mp4", None, "there is nothing at missing.mp4"),
        ("empty.mp4", b"", "empty.mp4 is none: it is empty"),
        ("notes.txt", b"frames of a video\n" * 30, "notes.txt is none: it is text"),
        ("notes.mp4", b"frames of a video\n" * 30, "notes.mp4 is none"),
        ("random.mkv", bytes(range(256)) * 9, "random.mkv is none"),
    ],
)
def test_what_is_no_video(tmp_path, refuse, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert message in refuse(video=name)


def test_a_folder_without_images(tmp_path, refuse):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "notes.txt").write_text("nothing to see")
    assert "frames holds none" in refuse(video="frames")


def test_a_misspelt_model_is_answered_with_near_names(refuse):
    message = refuse("--model", "timm:vit_tinny_patch16_224")
    assert "timm has no model 'vit_tinny_patch16_224'" in message
    assert "near names: vit_tiny_patch16_224, " in message


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "timm:", "hub:vit", ""])
def test_a_model_that_is_neither_demo_nor_timm(refuse, model):
    assert f"--model is 'demo' or 'timm:NAME', got '{model}'" in refuse("--model", model)


def test_a_timm_model_without_its_prefix(refuse):
    message = refuse("--model", "vit_tiny_patch16_224")
    assert "do you mean timm:vit_tiny_patch16_224?" in message
    assert "do you mean timm:hf-hub:a/b?" in refuse("--model", "hf-hub:a/b")
    assert "do you mean" not in refuse("--model", "hub:vit")


@pytest.mark.parametrize("name", ["hf-hub:a/b", "hf_hub:a/b", "local-dir:nowhere"])
def test_a_model_of_a_hub_is_for_timm_to_find(refuse, monkeypatch, name):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    message = refuse("--model", f"timm:{name}")
    assert f"timm could not get {name} (OSError: no network); with no network, pass" in message


@pytest.mark.parametrize("source", ["rtsp://camera/1", "https://example.org/a.mp4", "-"])
def test_a_source_that_is_no_file(invoke, small, source):
    result = invoke("run", source, *small)
    assert result.exit_code == 2
    assert "expected a video, an image or a folder of images" in result.stderr
    assert "Save a film to a file first" in result.stderr
    assert result.stderr.count("\n") == 1


def test_weights_are_not_for_the_demo(refuse):
    assert "the demo has its own" in refuse("--model", "demo")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_resnet", "a ResNet has no square patches to picture"),
        ("test_vit_relpos", "RelPosBlock"),
    ],
)
def test_a_model_with_nothing_to_convert(tmp_path, refuse, name, message):
    torch.save(timm.create_model(name).state_dict(), tmp_path / "w.pth")
    line = refuse("--model", f"timm:{name}", "--weights", "w.pth")
    assert message in line


@pytest.mark.parametrize(
    ("size", "near"), [(50, "48 or 64"), (15, "16"), (0, "16"), (-16, "16"), (63, "48 or 64")]
)
def test_a_square_that_is_no_multiple_of_the_patch(refuse, size, near):
    line = refuse("--square", "--size", size)
    assert f"--size {size} is no multiple of the patch of 16; use {near}\n" in line


def test_a_negative_size(refuse):
    assert "size must be at least 1 pixel; got -16" in refuse("--size", -16)


def test_frames_that_are_too_small_for_motion(refuse):
    line = refuse("--size", 32)
    assert "frames of 16 x 32 pixels are too small for motion, which needs 48" in line
    assert "Skip(k) and token policies such as TopR(r) need none" in line


def test_a_folder_that_cannot_be_written_to(refuse, clip_file):
    line = refuse("--out", clip_file / "out")
    assert "--out needs a folder that can be written to; " in line
    assert line.endswith("name another\n")


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("top:0", "TopR(r) needs a whole number r of at least 1, got 0"),
        ("top:2.5", "(expected a whole number, got '2.5'); write top:256\n"),
        ("fraction:nan", "needs a fraction f from 0 to 1, got nan"),
        ("threshold:inf", "needs a finite number h of at least 0, got inf"),
        ("nonsense", "policy 'nonsense' is not understood; write one of error:0.15, auto:0.2"),
        ("all:3", "policy 'all:3' is not understood"),
        ("top", "policy 'top' is not understood"),
        ("", "policy '' is not understood"),
        ("ship:5", "; do you mean skip:5?"),
        ("fractoin:0.5", "; do you mean fraction:0.25?"),
        ("atuo", "; do you mean auto:0.2?"),
        ("skip:0", "Skip(k) needs a whole number k of at least 1, got 0"),
        ("skip:5+5", "needs a phase of 0 to 4, got 5"),
        ("lowres:0.25", "'lowres:0.25' is a baseline, which only `eventful evaluate` runs\n"),
        ("auto:2", "Auto(share=...) needs a number above 0 and at most 1, got 2.0"),
        ("error:0", "Auto(max_error=...) needs a number above 0 and at most 1"),
        ("error:15", "needs a number above 0 and at most 1 (0.15 is 15 %), got 15.0"),
        ("error:0.1/0.5", "worst=0.5 bounds the cost of a frame"),
        ("gates.json", "there is no file gates.json; write one with `eventful calibrate`"),
    ],
)
def test_a_policy_that_is_none(refuse, policy, message):
    assert message in refuse("--policy", policy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "auto:0.2", "--max-error", 0.1], "--max-error 0.1 and --policy auto:0.2\n"),
        (["--share", 0.2, "--time", 0.5], "got --share 0.2 and --time 0.5\n"),
        (["--share", 2], "--share needs a number above 0 and at most 1, got 2.0"),
        (["--max-error", -1], "--max-error needs a number above 0 and at most 1"),
        (["--max-error", 15], "at most 1 (0.15 is 15 %), got 15.0"),
        (["--latency-ms", 0], "--latency-ms needs a number above 0 and finite, got 0.0"),
    ],
)
def test_short_forms_of_policies(refuse, options, message):
    assert message in refuse(*options)


def test_a_policy_that_does_not_fit_the_frame(refuse):
    line = refuse("--policy", "top:17")
    assert "TopR(17) asks for more tokens than a frame has to choose from (12)" in line


@pytest.mark.parametrize("option", REMOVED)
def test_an_option_that_is_gone(refuse, option):
    line = refuse(option, "x")
    assert line == f"error: eventful run has no {option} any more; use {REMOVED[option]}\n"
    assert line == refuse(f"{option}=x")


@pytest.mark.parametrize("policy", ["carry:2", "auto:0.5"])
def test_motion_without_opencv(refuse, monkeypatch, policy):
    monkeypatch.setitem(sys.modules, "cv2", None)
    line = refuse("--policy", policy)
    assert "motion needs OpenCV: pip install opencv-python-headless\n" in line


class Payload:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return (Path.write_text, (Path("harm"), "the code has run"))


def part_of(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])


UNFIT = {
    "missing": (lambda path: None, "there is no weights file w.pth"),
    "folder": (lambda path: path.mkdir(), "there is no weights file w.pth"),
    "empty": (lambda path: path.write_bytes(b""), "w.pth is refused: it is damaged"),
    "text": (lambda path: path.write_text("hello"), "w.pth is refused: it is damaged"),
    "more text": (lambda path: path.write_text("some text"), "w.pth is refused: it is damaged"),
    "code": (lambda path: torch.save({"a": Payload()}, path), "or holds more than tensors"),
    "pickled code": (
        lambda path: path.write_bytes(pickle.dumps({"a": Payload()})),
        "w.pth is refused: it is damaged, or holds more than tensors",
    ),
    "cut short": (
        lambda path: (torch.save({"a": torch.ones(999)}, path), part_of(path)),
        "w.pth is refused: it is damaged",
    ),
    "a tensor": (lambda path: torch.save(torch.ones(3), path), "w.pth is refused"),
    "a list": (lambda path: torch.save([1, 2], path), "w.pth is refused"),
    "of a ResNet": (
        lambda path: torch.save(timm.create_model("test_resnet").state_dict(), path),
        "w.pth does not fit VisionTransformer: 78 missing, such as blocks.0.attn.proj.bias; ",
    ),
    "of a wider model": (
        lambda path: torch.save(timm.create_model("test_vit", embed_dim=96).state_dict(), path),
        "of another shape, such as blocks.0.attn.proj.bias is (96,) there and (64,) here",
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_weights_that_do_not_fit(tmp_path, refuse, kind):
    make, message = UNFIT[kind]
    make(tmp_path / "w.pth")
    assert message in refuse("--weights", "w.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [b"", b"\xff" * 99, b"\x08" + bytes(7) + b"{}      "])
def test_safetensors_that_are_damaged(tmp_path, refuse, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    line = refuse("--weights", "w.safetensors")
    assert "w.safetensors is refused" in line or "does not fit" in line


@pytest.mark.parametrize("out", ["taken", "taken/deeper"])
def test_an_output_folder_that_is_a_file(tmp_path, refuse, out):
    (tmp_path / "taken").write_text("already here")
    assert "--out needs a folder that can be written to; taken is none (" in refuse("--out", out)
    assert (tmp_path / "taken").read_text() == "already here"


@pytest.mark.parametrize("option", ["--frames", "--check-every"])
@pytest.mark.parametrize("value", [0, -1, "many"])
def test_a_count_that_is_none(tmp_path, invoke, small, option, value):
    result = invoke("run", *small, "--out", tmp_path / "out", option, value)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_error_of_ours_keeps_its_traceback(tmp_path, invoke, small, clip_file, monkeypatch):
    def broken(*_):
        raise AssertionError("ours")

    monkeypatch.setattr(running, "run", broken)
    result = invoke("run", clip_file, *small, "--out", tmp_path)
    assert isinstance(result.exception, AssertionError)


MISSING = """
import sys
from eventful.cli import main
for library in sys.argv[1:]:
    sys.modules[library] = None
    try:
        main()
    except SystemExit as end:
        print(end.code)
    del sys.modules[library]
    for name in [name for name in sys.modules if name.startswith(("eventful.cli.", "eventful.v"))]:
        del sys.modules[name]
"""


def test_a_missing_library_is_named_with_the_line_that_installs_it(command):
    (python, *_), environment = command
    libraries = ["typer", "rich", "av", "matplotlib", "PIL"]
    done = subprocess.run(
        [python, "-c", MISSING, *libraries],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(libraries), done.stderr
    for library, line in zip(libraries, lines, strict=True):
        name = {"av": "PyAV"}.get(library, library)
        assert line.startswith("error: ")
        assert f"needs {name}; pip install 'eventful-transformers[" in line
