"""Models, files and options that do not fit: a clear answer, or they work."""

import json
import shutil

import pytest
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.families.cases import WIDE
from tests.pretrained import folders


@pytest.fixture
def changed(folder, tmp_path):
    """A family's folder with a file of JSON changed."""

    def changed(name, file, **values):
        copy = tmp_path / "changed"
        shutil.copytree(folder(name), copy)
        content = json.loads((copy / file).read_text()) | values
        (copy / file).write_text(json.dumps(content))
        return copy

    return changed


def detr():
    """A detector whose vision part is convolutional."""
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=3,
    )
    return transformers.DetrForObjectDetection(config)


def test_a_model_of_text(refuse, tmp_path):
    config = transformers.BertConfig(**WIDE, vocab_size=30)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    error = refuse(f"hf:{tmp_path / 'bert'}")
    assert "is a BertModel, which takes no frames" in error
    assert "it takes input_ids" in error


def test_a_vision_part_of_convolutions(refuse, tmp_path):
    detr().save_pretrained(tmp_path / "detr")
    transformers.DetrImageProcessor().save_pretrained(tmp_path / "detr")
    error = refuse(f"hf:{tmp_path / 'detr'}")
    assert "nothing to convert in this DetrForObjectDetection" in error


def test_a_checkpoint_that_lacks_weights(refuse, folder, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(folder("DPT"), half)
    weights = load_file(half / "model.safetensors")
    kept = {key: weight for key, weight in weights.items() if "encoder.layer.1" not in key}
    assert len(kept) < len(weights)
    save_file(kept, half / "model.safetensors", {"format": "pt"})
    error = refuse(f"hf:{half}")
    assert f"lacks {len(weights) - len(kept)} of the weights of a DPTForDepthEstimation" in error
    assert "encoder.layer.1" in error


def test_a_checkpoint_for_another_task(refuse, folder):
    error = refuse(f"hf:{folder('ViT')}", "--task", "depth")
    assert "a ViTModel gives no depth; give --task features" in error
    error = refuse(f"hf:{folder('DPT')}", "--task", "segment")
    assert "lacks" in error
    assert "DPTForSemanticSegmentation" in error
    assert "the --task that it was made for" in error


def test_a_processor_without_mean(refuse, changed):
    model = changed("ViT", "preprocessor_config.json", image_mean=None, image_std=None)
    assert "says no image_mean and image_std" in refuse(f"hf:{model}")


def test_a_processor_that_does_not_normalise(evaluate, changed):
    still = {"do_normalize": False, "image_mean": None, "image_std": None}
    model = changed("ViT", "preprocessor_config.json", **still)
    assert evaluate(model, "--share", 0.5, "--no-beside")["frames"] == 8


def test_no_processor_at_all(refuse, folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(folder("ViT"), bare)
    (bare / "preprocessor_config.json").unlink()
    error = refuse(f"hf:{bare}")
    assert "Frames need the model's own processor: save it beside the model" in error


def test_sizes_that_change_from_frame_to_frame_begin_again(evaluate, changed, tmp_path):
    size = {"size": {"shortest_edge": 48}, "image_processor_type": "BitImageProcessor"}
    model = changed("DINOv2", "preprocessor_config.json", **size, do_center_crop=False)
    video = tmp_path / "changing"
    video.mkdir()
    for number, frame in enumerate(folders.frames(8, 64, 96)):
        picture = frame[:, :80] if number >= 4 else frame
        Image.fromarray(picture).save(video / f"{number}.png")
    report = evaluate(model, "--video", video, "--policy", "skip:4", "--policy", "skip:8")
    assert report["sizes"] == [[48, 72, 4], [48, 60, 4]]
    assert [row["kinds"] for row in report["policies"]] == [{"dense": 2, "held": 6}] * 2


def test_patches_that_would_be_padded_are_fewer_instead(evaluate, folder):
    report = evaluate(folder("SigLIP 2 vision, full grid"), "--policy", "all")
    ((patches, values, frames),) = report["sizes"]
    assert (values, frames) == (48, 8)
    assert patches == 24  # of 68 x 92 pixels a grid of 4 x 6; 25 are asked for
    assert report["policies"][0]["tap_error"]["max"] < 1e-5


def test_padding_that_is_hidden_from_a_detector(refuse, changed):
    pads = {"do_pad": True, "pad_size": {"height": 96, "width": 96}}
    model = changed("LW-DETR", "preprocessor_config.json", **pads)
    error = refuse(f"hf:{model}")
    assert "pads frames and hides the padding (pixel_mask)" in error
    assert "do_pad: false" in error


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("OWLv2 detector", (), "looks for what a text says; give --text"),
        ("YOLOS", ("--text", "a cat"), "takes no text as it is run here (detect)"),
        ("CLIPSeg", ("--text", "a", "--text", "cat"), "one --text at a time"),
        ("SAM", ("--point", "10"), "--point takes X,Y in pixels, such as 320,240; got '10'"),
        ("SAM", ("--point", "92,3"), "--point 92,3 lies outside the frame of 92 x 68"),
        ("ViT", ("--point", "9,3"), "is given no point; leave --point out"),
        ("ViT", ("--task", "detekt"), "--task is one of depth, pose, detect, segment, features"),
        ("ViT", ("--policy", "skip:2", "--policy", "atuo"), "do you mean auto:0.2?"),
        ("ViT", ("--share", 0.5, "--policy", "all", "--policy", "skip:2"), "--policy or --share"),
        ("ViT", ("--blocks", "nothing.*"), "nothing to convert: --blocks refused every block"),
        ("VideoMAE", ("--share", 0.5), "this policy follows motion, which needs pictures"),
        ("SAM 2 Hiera", ("--share", 0.9), "leave one or the other out with --blocks PATTERN"),
    ],
)
def test_options_that_do_not_fit(refuse, folder, name, options, message):
    assert message in refuse(f"hf:{folder(name)}", *options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("facebook/dinov2-small", "--model is hf:FOLDER or hf:NAME on the hub, got"),
        ("hf:./nowhere", "there is no folder ./nowhere"),
        ("hf:dinov2", "names on the hub are OWNER/NAME"),
    ],
)
def test_names_that_are_none(refuse, name, message):
    assert message in refuse(name)


def test_a_folder_that_holds_no_model(refuse, video):
    assert "holds no config.json" in refuse(f"hf:{video}")


def test_a_video_shorter_than_a_clip(refuse, folder):
    error = refuse(f"hf:{folder('VideoMAE')}", "--frames", 3)
    assert "takes clips of 4" in error
