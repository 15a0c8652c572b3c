"""Models that crop, resize or embed frames in their own way: what counts is whether they run."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

import eventful
from tests.zoo import relative

POLICIES = [
    eventful.KeepAll(),
    eventful.TopR(2),
    eventful.Skip(2),
    eventful.Carry(2),
    eventful.Auto(share=0.5),
]
SMALL = {"img_size": 64, "depth": 2, "num_classes": 5}


def vit(**options):
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **{**SMALL, **options}).eval()


def hybrid():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_r_s16_p8_224", **SMALL).eval()


class Resized(nn.Module):
    """Frames of any size, brought to the model's."""

    def __init__(self):
        super().__init__()
        self.vit = vit()

    def forward(self, x):
        return self.vit(F.interpolate(x, (64, 64)))


class Named(Resized):
    """One whose patch embedding is to be seen at the root, as some libraries have it."""

    def __init__(self):
        super().__init__()
        self.patch_embed = self.vit.patch_embed


class Cropped(VisionTransformer):
    """One that takes four channels and uses three, as those of depth cameras."""

    def forward(self, x):
        return super().forward(x[:, :3, :64, :64])


def cropped():
    torch.manual_seed(0)
    options = {"patch_size": 16, "embed_dim": 48, "num_heads": 3}
    return Cropped(**SMALL, **options).eval()


MODELS = {
    "hybrid": (hybrid, (3, 64, 64)),
    "resized": (Resized, (3, 120, 160)),
    "its embedding at the root": (Named, (3, 120, 160)),
    "a subclass that crops": (cropped, (4, 64, 64)),
    "any size": (lambda: vit(dynamic_img_size=True), (3, 80, 112)),
    "four channels": (lambda: vit(in_chans=4), (4, 64, 64)),
}


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_they_run(name, policy):
    build, shape = MODELS[name]
    model, frame = build().eval(), torch.rand(2, *shape)
    with torch.no_grad():
        expected = model(frame)
    stream = eventful.Stream(eventful.convert(model, policy), pixels=lambda x: x[:, :3])
    outputs = [stream(frame) for _ in range(3)]
    assert relative(outputs[0], expected) < 1e-5
    assert relative(outputs[2], expected) < 1e-5  # nothing has moved
    if policy == eventful.KeepAll():
        assert stream.stats.ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("size", [(96, 96), (48, 80)])
@pytest.mark.parametrize("begun", [False, True])
def test_another_input_size_set_after_the_stream_was_made(policy, size, begun):
    model = eventful.convert(vit(), policy)
    stream, frame = eventful.Stream(model, pixels=lambda x: x), torch.rand(1, 3, *size)
    if begun:
        stream(torch.rand(1, 3, 64, 64))
    model.set_input_size(size)
    with torch.no_grad():
        expected = model(frame)
    for _ in range(2):
        assert relative(stream(frame), expected) < 1e-5
    with pytest.raises(ValueError, match=rf"expected frames of {size[0]} x {size[1]} pixels"):
        stream(torch.rand(1, 3, 64, 64))
    assert relative(stream(frame), expected) < 1e-5


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (1, 3, 80, 112),
            r"expected frames of 64 x 64 pixels, got \(1, 3, 80, 112\).*Input height",
        ),
        ((1, 4, 64, 64), r"expected a frame \(batch, 3, height, width\), got \(1, 4, 64, 64\)"),
        ((3, 64, 64), r"expected a frame \(batch, 3, height, width\), got \(3, 64, 64\)"),
    ],
)
@pytest.mark.parametrize("policy", [eventful.TopR(2), eventful.Skip(2)], ids=str)
def test_what_the_model_refuses_is_explained_and_leaves_the_stream(shape, message, policy):
    model, frame = eventful.convert(vit(), policy), torch.rand(1, 3, 64, 64)
    stream, control = eventful.Stream(model), eventful.Stream(model)
    with pytest.raises(ValueError, match=message):
        stream(torch.rand(shape))
    for given in (frame, frame.flip(3)):
        assert torch.equal(stream(given), control(given))
        with pytest.raises(ValueError, match=message):
            stream(torch.rand(shape))
    assert stream.stats.flush_reasons == control.stats.flush_reasons


@pytest.mark.parametrize(
    ("channels", "normalize"),
    [(4, True), (1, True), (4, ([0.5] * 3, [0.5] * 3)), (3, ([0.5] * 2, [0.5] * 2))],
)
def test_normalisation_of_other_channels_is_refused_at_once(channels, normalize):
    model = eventful.convert(vit(in_chans=channels), eventful.TopR(2))
    with pytest.raises(ValueError, match=rf"VisionTransformer takes {channels}; pass normalize="):
        eventful.Stream(model, normalize=normalize)
    numbers = [0.5] * channels
    frame = torch.rand(1, channels, 64, 64)
    for given in ((numbers, numbers), ([0.5], [0.5])):
        output = eventful.Stream(model, normalize=given)(frame)
        torch.testing.assert_close(output, model((frame - 0.5) / 0.5).detach())


def test_grey_frames_are_not_taken_for_colour():
    stream = eventful.Stream(eventful.convert(Resized().eval(), eventful.TopR(2)), normalize=True)
    with pytest.raises(ValueError, match="and the frame has 1; pass normalize="):
        stream(torch.rand(1, 1, 64, 64))
