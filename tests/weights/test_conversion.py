"""Every name accounted for: what is left out on purpose, and what a mismatch says."""

import io
import os
import pickle

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from eventful.cli.commands import weights
from eventful.models.weights import convert_checkpoint, load
from eventful.models.weights.files import sha256
from eventful.models.weights.kinds import Kind, shapes_of
from tests.weights import originals

NORM = "backbone.net.blocks.0.norm1.weight"


@pytest.fixture(autouse=True)
def small_presets(monkeypatch):
    """Let the presets be small."""
    shapes = {
        "vitdet_b_vid": shapes_of(originals.small_vitdet()),
        "vitdet_b_coco": shapes_of(originals.small_vitdet(cascade=True)),
        "vivit_b_epic": shapes_of(originals.small_vivit()),
        "vivit_b_kinetics": shapes_of(originals.small_vivit()),
        "vivit_b_epic_tuned": shapes_of(originals.small_vivit()),
        "vivit_b_kinetics_tuned": shapes_of(originals.small_vivit()),
    }
    shapes["vitdet_l_coco"] = {"backbone.blocks.99.norm1.bias": (5,)}
    monkeypatch.setattr(Kind, "shapes", lambda kind: shapes[kind.name])


@pytest.fixture
def convert(tmp_path):
    """Write arrays as a pickle and convert them."""

    def convert(arrays, kind="vitdet_b_vid", target="out.safetensors"):
        source = tmp_path / "model.pkl"
        source.write_bytes(pickle.dumps({"model": arrays, "__author__": "somebody"}))
        return convert_checkpoint(kind, source, tmp_path / target)

    return convert


@pytest.fixture
def refusal(convert, tmp_path):
    """What the error says of arrays that do not fit; nothing is written."""

    def refusal(arrays, kind="vitdet_b_vid"):
        with pytest.raises(ValueError, match=r"model\.pkl does not fit") as error:
            convert(arrays, kind)
        assert [path.name for path in tmp_path.iterdir()] == ["model.pkl"]
        return str(error.value)

    return refusal


def test_the_file_says_what_it_was_made_from(convert, tmp_path):
    result = convert(originals.detectron2())
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        assert file.metadata() == {
            "format": "pt",
            "eventful_weights": "1",
            "kind": "vitdet_b_vid",
            "source": "model.pkl",
            "source_sha256": sha256(tmp_path / "model.pkl"),
        }
    model = originals.small_vitdet()
    assert shapes_of(model) == {key: x.shape for key, x in load_file(result.target).items()}
    assert result.parameters == sum(x.numel() for x in model.state_dict().values())
    assert sorted(result.used.values()) == sorted(originals.detectron2())
    assert sorted(os.listdir(tmp_path)) == ["model.pkl", "out.safetensors"]


def test_what_is_left_out_on_purpose(convert):
    anchors = "proposal_generator.anchor_generator.cell_anchors.{}"
    extra = {anchors.format(i): np.ones((3, 4), np.float32) for i in range(5)}
    extra |= {"pixel_mean": np.ones((3, 1, 1)), "pixel_std": np.ones((3, 1, 1))}
    dropped = convert(originals.detectron2() | extra).dropped
    assert set(dropped) == set(extra) | {"__author__"}
    assert dropped["pixel_mean"].startswith("normalisation")
    assert dropped[anchors.format(4)] == "anchors, which are computed"


def test_nouns_are_left_out(convert):
    dropped = convert(originals.tadaconv(epic=True), "vivit_b_epic").dropped
    assert set(dropped) == {"head.linear2.weight", "head.linear2.bias", "__author__"}


def test_a_missing_key(refusal):
    arrays = originals.detectron2()
    del arrays[NORM]
    text = refusal(arrays)
    assert "1 missing, 0 left over, 0 that do not fit" in text
    assert f"\n  missing: {NORM}" in text


def test_a_key_that_is_left_over(refusal):
    text = refusal(originals.detectron2() | {"backbone.net.norm.weight": np.ones(12, np.float32)})
    assert "0 missing, 1 left over, 0 that do not fit" in text
    assert "\n  left over: backbone.net.norm.weight" in text


def test_near_names(refusal):
    arrays = originals.detectron2()
    wrong = NORM.replace("norm1", "norm_1")
    arrays[wrong] = arrays.pop(NORM)
    lines = refusal(arrays).splitlines()
    assert f"  missing: {NORM} (near: {wrong})" in lines
    assert f"  left over: {wrong} (near: {NORM})" in lines


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (NORM, np.ones(13, np.float32), "expected (12,), came (13,)"),
        (NORM, np.ones(12, np.int64), "expected floating point numbers, came torch.int64"),
        (NORM, np.full(12, np.nan, np.float32), "expected finite numbers"),
        (NORM, "weights", "expected a tensor, came a str"),
        (NORM, np.array([{}], dtype=object), "expected a tensor, came a ndarray"),
        (
            "backbone.net.pos_embed",
            np.ones((1, 10, 12), np.float32),
            "expected (1, 4, 4, 12), came (1, 10, 12), which becomes (1, 3, 3, 12)",
        ),
        (
            "backbone.net.pos_embed",
            np.ones((1, 16, 12), np.float32),
            "expected (1, 1 + side * side, dim) with the class token's position first",
        ),
    ],
)
def test_a_tensor_that_does_not_fit(refusal, key, value, message):
    text = refusal(originals.detectron2() | {key: value})
    assert "0 missing, 0 left over, 1 that do not fit" in text
    assert f"\n  does not fit: {key}: {message}" in text


def test_a_kernel_without_time(refusal):
    arrays = originals.tadaconv()
    arrays["backbone.stem.conv1.weight"] = arrays["backbone.stem.conv1.weight"][:, :, 0]
    text = refusal(arrays, "vivit_b_kinetics")
    assert "expected (dim, channels, frames, height, width), came (12, 3, 16, 16)" in text


def test_all_that_is_wrong_is_said_at_once(refusal):
    arrays = originals.detectron2()
    arrays["teacher.weight"] = arrays.pop("backbone.simfp_2.0.bias")
    arrays[NORM] = arrays[NORM][:5]
    text = refusal(arrays)
    assert "1 missing, 1 left over, 1 that do not fit" in text
    assert all(part in text for part in ("simfp_2.0.bias", "teacher.weight", NORM))


@pytest.mark.parametrize("kind", ["vitdet_b_vid", "vivit_b_kinetics"])
def test_another_architecture(refusal, kind):
    other = originals.tadaconv() if kind.startswith("vitdet") else originals.detectron2()
    text = refusal(other, kind)
    assert text.count("\n  missing: ") == text.count("\n  left over: ") == 9
    assert " more\n" in text
    fitting = "vivit_b_kinetics" if kind.startswith("vitdet") else "vitdet_b_vid"
    assert text.endswith(f"\nit fits {fitting}")


def test_heads_of_another_kind(refusal):
    assert "it fits vitdet_b_coco" in refusal(originals.detectron2(cascade=True))


def test_a_model_of_another_architecture(tmp_path):
    source, target = tmp_path / "model.pth", tmp_path / "out.safetensors"
    torch.save(nn.Linear(3, 5).state_dict(), source)
    with pytest.raises(ValueError, match=r"the model has a parameter weight, which no such"):
        convert_checkpoint("vitdet_b_vid", source, target, model=nn.Linear(3, 5))


@pytest.mark.parametrize(
    ("kind", "target", "error", "message"),
    [
        ("vitdet_b_vod", "out.safetensors", ValueError, "do you mean 'vitdet_b_vid'"),
        ("resnet", "out.safetensors", ValueError, "expected a kind out of vitdet_b_vid, "),
        ("vitdet_b_vid", "out.pth", ValueError, r"ends in \.safetensors"),
        ("vitdet_b_vid", "no/out.safetensors", FileNotFoundError, "no folder"),
    ],
)
def test_mistakes(convert, kind, target, error, message):
    with pytest.raises(error, match=message):
        convert(originals.detectron2(), kind, target)


def test_a_file_that_is_there_is_replaced_whole_or_not_at_all(convert, tmp_path, monkeypatch):
    convert(originals.detectron2())
    before = (tmp_path / "out.safetensors").read_bytes()

    def full(weights, path, metadata):
        path.write_bytes(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        convert(originals.detectron2())
    assert (tmp_path / "out.safetensors").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["model.pkl", "out.safetensors"]


def test_safetensors_with_the_original_names(tmp_path):
    state = {key: torch.from_numpy(array) for key, array in originals.tadaconv().items()}
    save_file(state, tmp_path / "in.safetensors")
    target = tmp_path / "out.safetensors"
    assert convert_checkpoint("vivit_b_kinetics", tmp_path / "in.safetensors", target).used
    with pytest.raises(ValueError, match="another name to write to"):
        convert_checkpoint("vivit_b_kinetics", target, tmp_path / "." / "out.safetensors")


class TestLoad:
    """Loading what was converted."""

    @pytest.fixture
    def path(self, convert):
        return convert(originals.detectron2()).target

    def test_gives_the_model_back(self, path):
        model = originals.small_vitdet()
        assert load(model, path) is model
        expected = originals.detectron2()[NORM]
        assert np.array_equal(model.backbone.blocks[0].norm1.weight.detach().numpy(), expected)

    def test_another_model_stays_as_it_was(self, path):
        model = originals.small_vitdet(cascade=True)
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        with pytest.raises(ValueError, match="made for vitdet_b_vid, does not fit this ViTDet"):
            load(model, path)
        assert all(torch.equal(before[key], x) for key, x in model.state_dict().items())

    def test_near_names(self, path):
        state = load_file(path)
        state["backbone.blocks.0.norm_1.bias"] = state.pop("backbone.blocks.0.norm1.bias")
        save_file(state, path)
        with pytest.raises(ValueError, match=r"norm1\.bias \(near: backbone\.blocks\.0\.norm_1"):
            load(originals.small_vitdet(), path)

    def test_a_later_format(self, path):
        save_file(load_file(path), path, metadata={"eventful_weights": "2"})
        with pytest.raises(ValueError, match="has version 2 of the format, expected 1"):
            load(originals.small_vitdet(), path)

    def test_a_file_that_is_not_converted(self, tmp_path):
        torch.save({}, tmp_path / "model.pth")
        with pytest.raises(ValueError, match="run: eventful weights KIND"):
            load(originals.small_vitdet(), tmp_path / "model.pth")

    def test_a_file_cut_short(self, path):
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ValueError, match="is damaged"):
            load(originals.small_vitdet(), path)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            load(originals.small_vitdet(), tmp_path / "out.safetensors")


def test_without_safetensors_the_error_says_what_installs_it(convert, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install 'eventful-transformers"):
        convert(originals.detectron2())


class TestCommand:
    """What stands behind `eventful weights`."""

    def test_summary(self, tmp_path):
        arrays = originals.tadaconv(epic=True)
        state = {f"module.{key}": torch.from_numpy(array) for key, array in arrays.items()}
        torch.save({"model_state": state, "cfg": "", "epoch": 1}, tmp_path / "in.pyth")
        result = weights.convert("vivit_b_epic", tmp_path / "in.pyth", tmp_path / "o.safetensors")
        assert result["bytes"] == (tmp_path / "o.safetensors").stat().st_size
        assert len(result["used"]) == len(arrays) - 2
        console = Console(width=160, file=io.StringIO())
        console.print(weights.table(result))
        text = console.file.getvalue()
        for part in ("module.", "head.linear2.weight", "classifies nouns", "holds no weights"):
            assert part in text
