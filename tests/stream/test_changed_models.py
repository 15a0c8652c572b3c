"""Weights that change, wrong adapters and hooks: what a stream notices of its model."""

import copy

import pytest
import torch
from torch import nn

import eventful
from eventful.backbones.timm_vit import TimmBlock
from tests.laws.frames import (
    COSTS,
    NoMotion,
    flow_is,
    frame_stream,
    pixels,
)
from tests.zoo import build, clip, relative

DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def _no_motion(monkeypatch):
    flow_is(monkeypatch, NoMotion)


def dense(model, frame):
    with torch.inference_mode():
        return model.forward_features(frame)


def assign(model):
    state = {name: 1.01 * tensor for name, tensor in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def data(model):
    model.blocks[1].mlp.fc1.weight.data = 1.1 * model.blocks[1].mlp.fc1.weight.data


def parameter(model):
    weight = model.blocks[1].attn.qkv.weight
    model.blocks[1].attn.qkv.weight = nn.Parameter(1.1 * weight.detach())


@torch.no_grad()
def in_place(model):
    model.norm.weight.mul_(1.1)


def many_data(model):
    for weight in model.parameters():
        weight.data = 1.01 * weight.data


def swapped(model):
    torch.utils.swap_tensors(model.norm.weight, nn.Parameter(1.1 * model.norm.weight.detach()))


def deleted(model):
    fc1 = model.blocks[0].mlp.fc1
    weight = 1.1 * fc1.weight.detach()
    del fc1.weight
    fc1.weight = nn.Parameter(weight)


def position(model):
    model.pos_embed = nn.Parameter(1.1 * model.pos_embed.detach())


def emptied(model):
    state = {name: 1.01 * tensor for name, tensor in model.state_dict().items()}
    model.to_empty(device="cpu").load_state_dict(state)


def through_meta(model):
    state = {name: 1.01 * tensor for name, tensor in model.state_dict().items()}
    model.to("meta").load_state_dict(state, assign=True)


def one_step(model):
    model.norm.weight.grad = torch.ones_like(model.norm.weight)
    torch.optim.SGD([model.norm.weight], lr=0.1).step()


CHANGES = [assign, data, parameter, in_place, many_data, swapped, deleted, position, emptied]
CHANGES += [through_meta, one_step]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("policy", ["auto:0.3", "carry:5", "skip:5", "top:2"])
def test_changed_weights_are_noticed(change, policy):
    stream = frame_stream("plain", eventful.parse(policy), DOUBLE)
    *video, last = clip(4, dtype=DOUBLE)
    for frame in video:
        stream(frame)
    change(stream._bound.model)
    reference = eventful.restore(copy.deepcopy(stream._bound.model))
    assert relative(stream(last), dense(reference, last)) < 1e-12
    assert stream.stats.flush_reasons == {"first frame": 2, "weights changed": 2}
    stream(last)
    assert stream.stats.flush_reasons["weights changed"] == 2


@pytest.mark.parametrize("policy", ["auto:0.3", "skip:5", "top:2"])
def test_weights_written_to_through_data_need_a_reset(policy):
    stream = frame_stream("plain", eventful.parse(policy), DOUBLE)
    *video, last = clip(4, dtype=DOUBLE)
    for frame in video:
        stream(frame)
    stream._bound.model.blocks[1].mlp.fc1.weight.data.mul_(2)
    stream.reset()
    reference = eventful.restore(copy.deepcopy(stream._bound.model))
    assert relative(stream(last), dense(reference, last)) < 1e-12
    assert stream.stats.flush_reasons == {"first frame": 2, "requested": 2}


class Wrong(TimmBlock):
    """An adapter that leaves the second norm out."""

    def norm_2(self, x):
        return x


@pytest.mark.parametrize("policy", ["auto:0.3", "skip:3", "top:3"])
def test_the_first_frame_finds_a_wrong_adapter_and_names_its_block(policy):
    model = eventful.convert(build("plain"), eventful.parse(policy))
    model.blocks[1].__class__ = Wrong
    frame = clip(1)[0]
    stream = eventful.Stream(model, pixels=pixels, costs=COSTS)
    with pytest.raises(ValueError, match=r"blocks\.1 does not compute what .* \(a Block\).*where="):
        stream(frame)
    assert stream.stats.frames == 0
    eventful.Stream(model, pixels=pixels, costs=COSTS, check=False)(frame)


@pytest.mark.parametrize("policy", ["auto:0.3", "skip:3", "top:3"])
def test_hooks_inside_blocks_fire_once_a_frame_and_may_change_what_comes_out(policy):
    model, seen = build("plain"), []
    model.blocks[1].mlp.fc1.register_forward_hook(lambda *_: seen.append(1))
    stream = eventful.Stream(
        eventful.convert(model, eventful.parse(policy)), pixels=pixels, costs=COSTS
    )
    stream(clip(1)[0])
    assert seen == [1]
    model = build("plain")
    model.blocks[1].mlp.fc1.register_forward_hook(lambda module, args, output: output + 1)
    expected = model(clip(1)[0])
    stream = eventful.Stream(
        eventful.convert(model, eventful.parse(policy)), pixels=pixels, costs=COSTS
    )
    torch.testing.assert_close(stream(clip(1)[0]), expected.detach())
