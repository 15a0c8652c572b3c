"""Frames on their way to the model: normalised exactly, whatever the default device is."""

import pytest
import timm
import torch
from torch import nn

import eventful
from eventful.stream.inputs import Inputs

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
POLICIES = [
    eventful.Auto(share=0.5),
    eventful.Auto(share=0.4, worst=0.5),
    eventful.Auto(max_error=0.15),
    eventful.Carry(2),
    eventful.TopR(3),
]


def model(**options):
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, **options).eval()


def video(count):
    generator = torch.Generator().manual_seed(1)
    first = torch.rand(2, 3, 64, 64, generator=generator)
    return [0.9 * first + 0.1 * torch.rand(2, 3, 64, 64, generator=generator) for _ in range(count)]


@pytest.fixture
def another_default():
    yield lambda: torch.set_default_device("meta")
    torch.set_default_device(None)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("when", ["before the stream", "after the first frame"])
def test_the_default_device_makes_no_difference(another_default, policy, when):
    converted = eventful.convert(model(), policy)
    costs = eventful.Costs(dense=10, carried=1, held=0, partial=2, token=0.4)
    costs = costs if policy == eventful.Auto(max_error=0.15) else None
    frames = video(6)
    control = eventful.Stream(converted, normalize=(MEAN, STD), costs=costs)
    expected = [control(frame) for frame in frames]
    if when == "before the stream":
        another_default()
    stream = eventful.Stream(converted, normalize=(MEAN, STD), costs=costs)
    for i, frame in enumerate(frames):
        assert torch.equal(stream(frame), expected[i])
        another_default()
        if i == 2:
            assert stream.computed.device.type == "cpu"
            stream.load_snapshot(stream.snapshot())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("given", [torch.float32, torch.float64, torch.bfloat16])
def test_frames_are_rounded_once(dtype, given):
    frame = torch.rand(1, 3, 7, 5, generator=torch.Generator().manual_seed(0)).to(given)
    inputs = Inputs(nn.Identity(), (MEAN, STD))
    got = inputs.prepare(frame, torch.zeros(1, dtype=dtype), 0)
    mean, std = (torch.tensor(x, dtype=torch.float64).view(1, 3, 1, 1) for x in (MEAN, STD))
    exact = (frame.double() - mean) / std
    assert got.dtype == dtype
    # Half a unit in the last place; in double precision that of the float32 constants.
    step = max(torch.finfo(dtype).eps, 2 * torch.finfo(torch.float32).eps)
    assert ((got.double() - exact).abs() <= 0.51 * step * exact.abs().clamp_min(1)).all()


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("forward_intermediates", {"indices": [0, 1], "intermediates_only": True}),
        ("get_intermediate_layers", {"n": 2, "norm": True}),
        ("forward_features", {}),
    ],
)
@pytest.mark.parametrize("policy", [eventful.KeepAll(), eventful.Skip(1)], ids=str)
def test_methods_take_arguments_by_name(method, arguments, policy):
    dense, frame = model(), video(1)[0]
    with torch.no_grad():
        expected = getattr(dense, method)(frame, **arguments)
    stream = eventful.Stream(eventful.convert(dense, policy), method=method)
    for _ in range(2):
        torch.testing.assert_close(stream(frame, **arguments), expected)
