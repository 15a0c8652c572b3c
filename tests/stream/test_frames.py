"""What a stream takes for a frame, and that a frame which it refuses never came."""

import copy

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import eventful
from tests.zoo import TOLERANCE, build, clip, relative, same, stream_of

POLICY = eventful.TopR(3)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("attention", ["dense", "query_key", "cached", "incremental"])
def test_a_frame_with_nan_is_refused_as_if_it_had_never_come(value, attention):
    stream, control = (stream_of("layer_scale", POLICY, attention=attention) for _ in range(2))
    video = clip(6)
    for frame in video[:3]:
        stream(frame), control(frame)
    before, bad = stream.snapshot(), video[3].clone()
    bad[1, 2, 4, 11] = value
    with pytest.raises(ValueError, match=r"frame 3 holds NaN or infinity; the stream is as it was"):
        stream(bad)
    assert same(stream.snapshot(), before)
    for frame in video[3:]:
        assert torch.equal(stream(frame), control(frame))
    assert stream.stats.frames == 6
    assert stream.stats.flush_reasons == {"first frame": 2}


def test_a_first_frame_with_nan_is_refused_too():
    stream, control = stream_of("plain", POLICY), stream_of("plain", POLICY)
    video = clip(3)
    with pytest.raises(ValueError, match="frame 0 holds NaN"):
        stream(torch.full_like(video[0], torch.nan))
    for frame in video:
        assert torch.equal(stream(frame), control(frame))


def test_a_frame_that_overflows_in_the_models_dtype_is_refused():
    stream, video = stream_of("plain", POLICY), clip(2)
    stream(video[0])
    bad = video[1].double()
    bad[0, 1, 5, 7] = 1e39  # infinity in float32
    with pytest.raises(ValueError, match="NaN or infinity"):
        stream(bad)


def test_the_number_of_a_refused_frame_is_that_of_the_next_good_one():
    stream, video = stream_of("plain", POLICY), clip(2)
    for number, frame in enumerate(video):
        for _ in range(2):
            with pytest.raises(ValueError, match=f"frame {number} holds"):
                stream(frame * torch.inf)
        stream(frame)


WRONG = {
    "channels": (torch.rand(1, 4, 12, 20), ValueError, r"\(batch, 3, height, width\).*4, 12, 20"),
    "no batch axis": (torch.rand(3, 12, 20), ValueError, r"expected a frame .*\(3, 12, 20\)"),
    "an axis too many": (torch.rand(1, 1, 3, 12, 20), ValueError, "expected a frame"),
    "channels last": (torch.rand(1, 12, 20, 3), ValueError, r"expected a frame .*\(1, 12, 20, 3\)"),
    "no rows": (torch.rand(0, 3, 12, 20), ValueError, "holds no row"),
    "uint8": (
        torch.zeros(1, 3, 12, 20, dtype=torch.uint8),
        TypeError,
        r"floating-point tensor .*uint8; for 8-bit images use frame\.float\(\) / 255",
    ),
    "int64": (torch.zeros(1, 3, 12, 20, dtype=torch.int64), TypeError, r"got torch\.int64"),
    "complex": (torch.zeros(1, 3, 12, 20, dtype=torch.complex64), TypeError, "complex64"),
    "numpy": (torch.rand(1, 3, 12, 20).numpy(), TypeError, "got ndarray"),
    "None": (None, TypeError, "got NoneType"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("when", ["first", "later"])
def test_what_is_no_frame_is_refused(wrong, when):
    frame, error, message = WRONG[wrong]
    stream, video = stream_of("plain", POLICY), clip(2)
    if when == "later":
        stream(video[0])
    before = stream.snapshot() if when == "later" else {}
    with pytest.raises(error, match=message):
        stream(frame)
    if when == "later":
        assert same(stream.snapshot(), before)
    stream(video[1])
    assert stream.stats.flush_reasons == {"first frame": 2}


def test_a_size_that_the_model_does_not_take_is_a_value_error():
    stream, video = stream_of("plain", POLICY), clip(2)
    stream(video[0])
    with pytest.raises(ValueError, match="20"):
        stream(torch.rand(2, 3, 16, 20))


def test_after_a_size_that_the_model_does_not_take_the_stream_goes_on():
    stream, control = stream_of("plain", POLICY), stream_of("plain", POLICY)
    video = clip(4)
    for frame in video[:2]:
        stream(frame), control(frame)
    before = stream.snapshot()
    with pytest.raises(ValueError, match="expected frames of 12 x 20 pixels"):
        stream(torch.rand(2, 3, 16, 20))
    assert same(stream.snapshot(), before)
    for frame in video[2:]:
        assert torch.equal(stream(frame), control(frame))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_frame_of_another_dtype_is_cast(dtype):
    stream, control = stream_of("plain", POLICY), stream_of("plain", POLICY)
    for frame in clip(3):
        given = frame.to(dtype)
        assert torch.equal(stream(given), control(given.float()))
    assert stream.stats.flush_reasons == {"first frame": 2}


def test_a_frame_may_be_a_view():
    stream, control = stream_of("plain", POLICY), stream_of("plain", POLICY)
    for frame in clip(3):
        view = frame.to(memory_format=torch.channels_last)
        assert not view.is_contiguous()
        assert relative(stream(view), control(frame)) < TOLERANCE[torch.float32]


class Wrapper(nn.Module):
    """A task model around a backbone."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, x):
        return self.backbone.forward_features(x)[:, 1:].mean(dim=1)


CONFIG = {"mean": (0.4, 0.5, 0.7), "std": (0.2, 0.3, 0.45)}


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapper], ids=["itself", "wrapped"])
def test_normalize_applies_the_models_own_mean_and_std(wrap):
    backbone = build("plain")
    backbone.pretrained_cfg = CONFIG
    model = eventful.convert(wrap(backbone), POLICY)
    ours = eventful.Stream(model, normalize=True, scene_cuts=None)
    plain = eventful.Stream(model, scene_cuts=None)
    mean, std = (torch.tensor(CONFIG[key])[None, :, None, None] for key in ("mean", "std"))
    for frame in clip(3):
        given = frame.clone()
        output = ours(frame)
        assert torch.equal(frame, given)
        assert torch.equal(output, plain((frame - mean) / std))


@pytest.mark.parametrize("config", [None, {}, {"mean": (0.5, 0.5, 0.5)}])
def test_normalize_without_a_mean_and_std_is_refused(config):
    model = eventful.convert(build("plain"), POLICY)
    if config is not None:
        model.pretrained_cfg = config
    with pytest.raises(ValueError, match=r"normalize=True needs.*pretrained_cfg"):
        eventful.Stream(model, normalize=True)


def test_a_stream_needs_a_converted_model():
    with pytest.raises(ValueError, match=r"no eventful block; call eventful\.convert"):
        eventful.Stream(build("plain"))


def test_a_stream_looks_again_at_what_was_converted():
    model = eventful.convert(build("plain"), POLICY)
    model.blocks[1].mlp.fc1 = nn.Sequential(model.blocks[1].mlp.fc1)
    with pytest.raises(ValueError, match=r"cannot convert blocks\.1\.mlp.*fc1 is a .*Sequential"):
        eventful.Stream(model)


@pytest.mark.parametrize("method", ["forward", "forward_features"])
def test_the_method_is_what_runs(method):
    model = build("plain")
    reference = copy.deepcopy(model)
    stream = eventful.Stream(
        eventful.convert(model, eventful.KeepAll()), method=method, scene_cuts=None
    )
    for frame in clip(2):
        torch.testing.assert_close(stream(frame), getattr(reference, method)(frame).detach())
    assert stream(frame).shape == {"forward": (2, 7), "forward_features": (2, 16, 24)}[method]


@pytest.mark.parametrize("method", ["forward_fetures", "cls_token"])
def test_a_method_that_is_none_is_refused(method):
    model = eventful.convert(build("plain"), POLICY)
    with pytest.raises(ValueError, match=f"a VisionTransformer has no method '{method}'"):
        eventful.Stream(model, method=method)


@pytest.mark.parametrize("hooked", ["before", "after"])
def test_hooks_on_the_root_and_inside_fire(hooked):
    model, called = eventful.convert(build("plain"), POLICY), []
    stream = eventful.Stream(model) if hooked == "after" else None
    model.register_forward_hook(lambda *_: called.append("root"))
    model.register_forward_pre_hook(lambda *_: called.append("first"))
    model.patch_embed.register_forward_hook(lambda *_: called.append("patches"))
    model.blocks.register_forward_hook(lambda *_: called.append("blocks"))
    stream = stream or eventful.Stream(model)
    for frame in clip(2):
        stream(frame)
    assert called == ["first", "patches", "blocks", "root"] * 2


def test_a_hook_on_the_root_may_change_the_output():
    model = eventful.convert(build("plain"), POLICY)
    stream, control = eventful.Stream(model), eventful.Stream(model)
    frame = clip(1)[0]
    expected = control(frame)
    model.register_forward_hook(lambda module, args, output: output - 1)
    assert torch.equal(stream(frame), expected - 1)


def pictures(count):
    """Frames in [0, 1], large enough for motion."""
    frames = torch.rand(1, 2, 3, 48, 48).repeat(count, 1, 1, 1, 1)
    return (frames + 0.02 * torch.rand(count, 2, 3, 48, 48)).clamp(0, 1)


@pytest.mark.parametrize(
    "policy",
    [eventful.TopR(3), eventful.Threshold(1e9), eventful.Skip(2), eventful.Auto(share=0.5)],
    ids=str,
)
@pytest.mark.parametrize("outside", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_outputs_are_ordinary_tensors_on_which_a_head_is_trained(policy, outside):
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=48, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=0
    ).eval()
    stream = eventful.Stream(eventful.convert(model, policy), normalize=([0.5] * 3, [0.5] * 3))
    head = torch.nn.Linear(24, 2)
    for frame in pictures(4):
        with outside():
            features = stream(frame)
        assert not features.requires_grad
        assert not features.is_inference()
        head(features).sum().backward()
        features += 1
    assert head.weight.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("first", [True, False])
def test_frames_may_come_from_within_inference_mode_and_from_outside(first):
    model, video = eventful.convert(build("plain"), eventful.TopR(3)), clip(4)
    stream, control = (eventful.Stream(model, scene_cuts=None) for _ in range(2))
    expected = [control(frame) for frame in video]
    for i, frame in enumerate(video):
        with torch.inference_mode((i % 2 == 0) == first):
            output = stream(frame.clone())
        assert torch.equal(output, expected[i])
