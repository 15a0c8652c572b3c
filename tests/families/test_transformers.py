"""What models of transformers do beside running: hidden states, towers, masks, files, refusals."""

import copy
import importlib
import warnings

import pytest
import torch
from PIL import Image
from torch import nn

import eventful
from eventful.backbones.layouts import FAMILIES
from eventful.backbones.layouts import REFUSED as KNOWN_REFUSED
from eventful.block.block import eventful_blocks
from tests.families.cases import CASES, RATIO, SQUARE, TEXT, WIDE
from tests.families.zoo import build, dense, inputs, stream_of, tensors, video
from tests.laws.frames import NoMotion, flow_is, scripted
from tests.zoo import relative

transformers = pytest.importorskip("transformers")
TOP = eventful.TopR(4)
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
named_so = pytest.mark.skipif(VERSION < (5, 16), reason="parts of ViT have other names there")


@pytest.fixture(autouse=True)
def _no_motion(monkeypatch):
    flow_is(monkeypatch, NoMotion)


def hidden(model, frame, **options):
    with torch.inference_mode():
        return model(pixel_values=frame, output_hidden_states=True, **options).hidden_states


@pytest.mark.parametrize(
    "name", ["ViT", "DINOv2", "CLIP vision", "SigLIP vision", "YOLOS", "AIMv2 vision"]
)
def test_hidden_states_are_those_of_the_dense_model(name):
    model, (first, second) = build(name), video(name, 2)
    expected = [hidden(build(name), frame) for frame in (first, second)]
    stream = stream_of(name, model, eventful.KeepAll())
    for frame, states in zip((first, second), expected, strict=True):
        ours = stream(frame, output_hidden_states=True).hidden_states
        assert len(ours) == len(states) == 4
        assert all(relative(a, b) < 2e-5 for a, b in zip(ours, states, strict=True))
    assert len(hidden(eventful.convert(model), first)) == 4
    assert len(hidden(eventful.restore(model), first)) == 4


def test_hidden_states_are_recorded_once_whoever_asked_first():
    model, (frame,) = build("ViT"), video("ViT", 1)
    assert len(hidden(model, frame)) == 4
    eventful.convert(model)
    streams = [eventful.Stream(model, policy=TOP, scene_cuts=None) for _ in range(2)]
    for stream in streams:
        assert len(stream(frame, output_hidden_states=True).hidden_states) == 4
    assert len(hidden(model, frame)) == 4


def test_hidden_states_that_are_asked_for_become_taps():
    stream = stream_of("DINOv2", build("DINOv2"), eventful.Auto(share=0.5))
    (frame,) = video("DINOv2", 1)
    stream(frame)
    assert stream.layout.taps == ("encoder.layer.2",)
    stream(frame, output_hidden_states=True)
    assert len(stream.layout.taps) == 3


@pytest.mark.parametrize(
    ("name", "taps"),
    [("DINOv2 backbone", 2), ("Depth Anything", 2), ("DPT", 4), ("ViTPose", 1)],
)
def test_what_a_decoder_reads_become_taps(name, taps):
    stream = stream_of(name, build(name), eventful.Auto(share=0.5))
    (frame,) = video(name, 1)
    stream(frame, **inputs(name, 2))
    assert len(stream.layout.taps) == taps
    assert stream.layout.linked == set([*stream._bound.blocks][1:])


def test_errors_are_measured_behind_the_norm_that_readers_use():
    stream = stream_of("DINOv2", build("DINOv2"), eventful.Auto(share=0.5))
    stream(video("DINOv2", 1)[0])
    assert [*stream._engine._taps.norms.values()] == [stream._bound.module.layernorm]


def test_detection_tokens_behind_the_patches_are_always_recomputed():
    stream = stream_of("YOLOS", build("YOLOS"), eventful.Auto(share=0.5))
    first, second = video("YOLOS", 2)
    scripted(stream, first, "p3", "p3")
    stream(second)
    assert (stream.layout.prefix, stream.layout.suffix, stream.layout.grid) == (1, 5, (3, 5))
    computed = stream.computed
    assert computed[:, 0].all()
    assert computed[:, -5:].all()
    assert computed[:, 1:-5].sum(dim=1).tolist() == [3, 3]


def test_a_text_tower_of_the_same_class_is_left_alone_and_reported(caplog):
    model = eventful.convert(build("CLIP"))
    names = [*eventful_blocks(model)]
    assert names == [f"vision_model.encoder.layers.{i}" for i in range(3)]
    assert "3 blocks of text_model.encoder.layers (part of no vision tower)" in caplog.text


def test_a_text_model_is_refused():
    model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT))
    with pytest.raises(ValueError, match=r"encoder.layers.0 \(part of no vision tower\)"):
        eventful.convert(model)


def test_a_predictor_and_blocks_that_queries_join_are_left_alone(caplog):
    eventful.convert(build("V-JEPA 2"))
    assert "blocks of predictor.layer (part of a predictor" in caplog.text
    eventful.convert(build("EoMT"))
    assert "1 blocks of layers (further tokens join in this block)" in caplog.text


def test_windows_of_sam3_that_need_padding_are_refused():
    config = transformers.Sam3ViTConfig(
        **WIDE, image_size=20, patch_size=4, window_size=2, global_attn_indexes=[1]
    )
    stream = stream_of("SAM 3 vision", transformers.Sam3ViTModel(config).eval(), TOP)
    with pytest.raises(ValueError, match=r"layers.0 rotates padding tokens by their places"):
        stream(torch.randn(1, 3, 20, 20))


@pytest.mark.parametrize(
    ("size", "message"), [((32, 48), "takes square windows"), ((16, 64), "cannot tell the grid")]
)
def test_folded_windows_that_are_no_squares_are_refused(size, message):
    name = "LW-DETR backbone"
    stream = stream_of(name, build(name), eventful.Auto(share=0.5))
    with pytest.raises(ValueError, match=message):
        stream(torch.randn(1, 3, *size))


def test_blocks_of_several_shapes_are_refused_under_frame_policies_with_the_way_out():
    stream = stream_of("SAM 2 Hiera", build("SAM 2 Hiera"), eventful.Skip(2))
    with pytest.raises(ValueError, match=r"blocks of one shape.*blocks.3.*where="):
        stream(video("SAM 2 Hiera", 1)[0])


@named_so
def test_attention_maps_are_refused():
    stream = stream_of("ViT", build("ViT").eval(), TOP)
    stream._bound.model.set_attn_implementation("eager")
    with pytest.raises(ValueError, match=r"layers.0 is eventful and holds no attention maps"):
        stream(video("ViT", 1)[0], output_attentions=True)


def test_a_mask_that_hides_tokens_is_refused_and_one_that_hides_none_is_not():
    name = "SigLIP 2 vision, full grid"
    model, (frame,) = build(name), video(name, 1)
    given = inputs(name, 2)
    given["pixel_attention_mask"][:, -3:] = 0
    stream = stream_of(name, model, TOP)
    with pytest.raises(ValueError, match=r"encoder.layers.0 is eventful.*attention_mask=a tensor"):
        stream(frame, **given)
    block = build("CLIP vision").encoder.layers[0]
    x = torch.randn(2, 7, 24)
    stream = eventful.Stream(eventful.convert(copy.deepcopy(block), TOP))
    expected = block(x, attention_mask=None)
    torch.testing.assert_close(stream(x, attention_mask=torch.zeros(2, 1, 7, 7)), expected.detach())
    with pytest.raises(ValueError, match="is_causal=True"):
        stream(x, attention_mask=None, is_causal=True)


def test_eager_and_sdpa_are_the_same_to_a_stream():
    model, clip = build("DINOv3"), video("DINOv3", 2)
    model.set_attn_implementation("eager")
    stream = stream_of("DINOv3", model, eventful.KeepAll())
    for frame in clip:
        ours = tensors(stream(frame))
        assert relative(ours[0], dense("DINOv3", model, frame)[0]) < 2e-5


def lora(model):
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings(action="ignore"):  # of names that transformers has changed
        return peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], r=2))


@named_so
def test_lora_is_refused_by_name_until_it_is_merged():
    model, (frame,) = lora(build("ViT")), video("ViT", 1)
    with pytest.raises(ValueError, match=r"layers.0.attention.q_proj.*peft"):
        eventful.convert(model)
    merged = model.merge_and_unload()
    stream = stream_of("ViT", merged, eventful.KeepAll())
    assert relative(tensors(stream(frame))[0], dense("ViT", merged, frame)[0]) < 2e-5


class Quantized(nn.Linear):
    """Stands for a linear layer that someone has replaced."""


@named_so
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: setattr(b.mlp, "fc1", Quantized(24, 40)), r"layers.1.mlp.fc1.*Quantized"),
        (lambda b: setattr(b, "extra", nn.Linear(24, 24)), r"it holds layers.1.extra"),
        (lambda b: setattr(b, "layernorm_after", nn.Tanh()), r"layers.1.layernorm_after"),
        (lambda b: delattr(b, "layernorm_after"), r"it has no layernorm_after"),
        (lambda b: b.register_buffer("bias", torch.ones(3)), r"it holds layers.1.bias"),
        (lambda b: b.mlp.register_forward_hook(print), r"layers.1.mlp: it has forward hooks"),
        (lambda b: setattr(b.mlp, "forward", print), r"layers.1.mlp: its forward has been"),
        (lambda b: setattr(b.attention, "is_causal", True), r"layers.1.attention.*causal"),
    ],
)
def test_what_a_layout_does_not_account_for_is_refused_by_name(change, message):
    model = build("ViT")
    change(model.layers[1])
    with pytest.raises(ValueError, match=message):
        eventful.convert(model)
    assert not eventful_blocks(model)


@named_so
def test_a_subclass_of_a_known_block_is_not_taken_for_it():
    model = build("ViT")
    model.layers[1].__class__ = type("Other", (type(model.layers[1]),), {})
    with pytest.raises(ValueError, match=r"cannot convert layers.1 \(a .*Other\)"):
        eventful.convert(model)


NARROW = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 1, 1]}
REFUSED = {
    "adds a learned bias": lambda t: t.BeitModel(t.BeitConfig(**WIDE, **SQUARE)),
    "adds a learned bias.*Swin": lambda t: t.SwinModel(
        t.SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2])
    ),
    "reduces its keys": lambda t: t.SegformerModel(t.SegformerConfig(**NARROW)),
    r"layer.0.mlp.experts.0": lambda t: t.VitPoseBackbone(
        t.VitPoseBackboneConfig(
            **RATIO, part_features=4, image_size=(24, 40), patch_size=(8, 8), num_experts=2
        )
    ),
    "nothing to convert in this BertModel": lambda t: t.BertModel(
        t.BertConfig(**WIDE, vocab_size=30)
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_covered_is_refused_by_name_with_the_reason(reason):
    with pytest.raises(ValueError, match=reason.partition(".*Swin")[0]) as error:
        eventful.convert(REFUSED[reason](transformers))
    assert str(error.value).startswith(("nothing to convert in this ", "cannot convert "))


def test_every_family_has_a_model_in_the_zoo():
    found = {
        f"{type(block.original).__module__}.{type(block.original).__qualname__}"
        for name, case in CASES.items()
        if case.library == "transformers"
        for block in eventful_blocks(eventful.convert(build(name), where=case.where)).values()
    }
    assert {path for path in FAMILIES if path.startswith("transformers.")} - found == set()


@pytest.mark.skipif(VERSION < (5, 24), reason="some of them are newer")
def test_every_block_that_is_known_by_name_exists():
    for path in (*FAMILIES, *KNOWN_REFUSED):
        module, _, kind = path.rpartition(".")
        if module.startswith("transformers."):
            assert hasattr(importlib.import_module(module), kind), path


def test_a_converted_model_is_saved_and_loaded_as_it_was(tmp_path):
    model, (frame,) = build("DINOv2"), video("DINOv2", 1)
    expected = dense("DINOv2", model, frame)
    eventful.convert(model).save_pretrained(tmp_path)
    loaded = transformers.AutoModel.from_pretrained(tmp_path).eval()
    assert type(loaded) is transformers.Dinov2Model
    assert relative(dense("DINOv2", loaded, frame)[0], expected[0]) == 0
    backbone = transformers.Dinov2Backbone.from_pretrained(tmp_path, out_indices=[2, 3]).eval()
    assert len(eventful_blocks(eventful.convert(backbone))) == 3


def test_an_image_processor_says_how_frames_are_normalised():
    model = build("ViT")
    values = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
    processor = transformers.ViTImageProcessor(**values)
    stream = stream_of("ViT", model, eventful.KeepAll(), normalize=processor)
    frame = torch.rand(2, 3, 12, 20)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in values.values())
    expected = dense("ViT", model, (frame - mean) / std)
    assert relative(tensors(stream(frame))[0], expected[0]) < 2e-5


@named_so
def test_gradient_checkpointing_changes_nothing_in_eval_mode():
    model, (frame,) = build("ViT"), video("ViT", 1)
    for layer in model.layers:
        layer.gradient_checkpointing = True
    stream = stream_of("ViT", model, eventful.KeepAll())
    assert relative(tensors(stream(frame))[0], dense("ViT", model, frame)[0]) < 2e-5


@named_so
def test_a_model_that_fails_to_convert_has_no_hooks():
    model = build("ViT")
    model.layers[1].register_buffer("bias", torch.ones(3))
    with pytest.raises(ValueError, match="bias"):
        eventful.convert(model)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_without_weights_is_refused():
    with torch.device("meta"):
        model = transformers.ViTModel(transformers.ViTConfig(**WIDE, **SQUARE))
    with pytest.raises(ValueError, match="on the meta device; load them first"):
        eventful.Stream(eventful.convert(model))


def test_a_processor_without_mean_is_refused():
    processor = transformers.ViTImageProcessor(image_mean=None, image_std=None)
    processor.image_mean = processor.image_std = None
    with pytest.raises(ValueError, match="image processor with image_mean and image_std"):
        stream_of("ViT", build("ViT"), TOP, normalize=processor)


def test_frames_of_another_size_begin_again():
    stream = stream_of("DINOv2", build("DINOv2"), TOP)
    for size in ((12, 20), (12, 20), (16, 20)):
        stream(torch.randn(2, 3, *size))
    assert stream.stats.flush_reasons["first frame"] == 2
    assert any("frame size changed" in reason for reason in stream.stats.flush_reasons)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")  # renamed
def test_gradient_checkpointing_that_is_switched_on_changes_nothing():
    model, (frame,) = build("DINOv2"), video("DINOv2", 1)
    expected = dense("DINOv2", model, frame)
    model.gradient_checkpointing_enable()
    stream = stream_of("DINOv2", model, eventful.KeepAll())
    assert relative(tensors(stream(frame))[0], expected[0]) < 2e-5


def test_a_vision_part_of_convolutions_is_refused():
    backbone = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
    sizes = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes |= {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 3}
    source = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    config = transformers.DetrConfig(**source, backbone_config=backbone, **sizes)
    with pytest.raises(ValueError, match="nothing to convert in this DetrForObjectDetection"):
        eventful.convert(transformers.DetrForObjectDetection(config))


@pytest.mark.filterwarnings("ignore")  # quantize_dynamic is deprecated
def test_dynamically_quantised_layers_are_refused_by_name():
    model = build("DINOv2")
    try:
        model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    except (AttributeError, RuntimeError) as error:
        pytest.skip(f"no dynamic quantisation here: {error}")
    with pytest.raises(ValueError, match=r"encoder.layer.0.*quantized.dynamic.*Linear"):
        eventful.convert(model)
    assert not eventful_blocks(model)


def test_a_pipeline_calls_the_model_and_its_parts_serve_a_stream():
    model = build("DPT")
    side = {"height": 20, "width": 20}
    processor = transformers.DPTImageProcessor(size=side)
    made = transformers.pipeline("depth-estimation", model=model, image_processor=processor)
    picture = Image.fromarray((255 * torch.rand(20, 20, 3)).to(torch.uint8).numpy())
    expected = made(picture)["predicted_depth"]
    eventful.convert(model)
    assert relative(made(picture)["predicted_depth"], expected) < 1e-6
    stream = eventful.Stream(model, policy=eventful.KeepAll(), scene_cuts=None)
    frame = processor(picture, return_tensors="pt").pixel_values
    (ours,) = processor.post_process_depth_estimation(stream(frame), target_sizes=[(20, 20)])
    assert relative(ours["predicted_depth"].squeeze(), expected.squeeze()) < 2e-5
