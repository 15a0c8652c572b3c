"""Hooks inside blocks: each fires in a stream as in the dense model, or is refused by name."""

import pytest
import torch
from timm.layers import DropPath

import eventful
from tests.zoo import FAMILIES, build, clip

FRAMES = {"vitdet_paper_positions": torch.rand(2, 3, 28, 16)}


def frame_of(name):
    return FRAMES.get(name, clip(1)[0])


def unfused(name):
    """Attention in steps, so that the dense model calls dropout on its map."""
    model = build(name)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return model


def called_in(module, frame):
    """Names of the modules inside the middle block whose hooks fire."""
    fired = set()
    inside = module.get_submodule("blocks.1")
    handles = [
        part.register_forward_hook(lambda *_, name=name: fired.add(name))
        for name, part in inside.named_modules()
    ]
    module(frame)
    for handle in handles:
        handle.remove()
    return fired


@pytest.mark.parametrize("name", FAMILIES)
def test_a_hook_that_fires_in_the_dense_model_fires_or_is_refused(name):
    model, frame = unfused(name), frame_of(name)
    for part in called_in(model, frame):
        fired, hooked = [], model.get_submodule(f"blocks.1.{part}".rstrip("."))
        handle = hooked.register_forward_hook(lambda *_, fired=fired: fired.append(1))
        if part in ("attn", "attn.attn_drop") or type(hooked) is DropPath:
            with pytest.raises(ValueError, match=rf"blocks\.1\.{part}: it has forward hooks"):
                eventful.convert(model, eventful.TopR(3))
        else:
            eventful.convert(model, eventful.TopR(3))
            eventful.Stream(model, check=False)(frame)
            assert fired
            eventful.restore(model)
        handle.remove()


@pytest.mark.parametrize("policy", [eventful.TopR(3), eventful.Skip(2)])
@pytest.mark.parametrize("part", ["attn", "attn.attn_drop", "drop_path1"])
@pytest.mark.parametrize("when", ["before the first frame", "between frames"])
def test_a_hook_put_on_after_the_stream_was_made_is_refused(part, policy, when):
    model, video = eventful.convert(build("layer_scale"), policy), clip(4)
    stream, other = (eventful.Stream(model, scene_cuts=None) for _ in range(2))
    if when == "between frames":
        assert torch.equal(stream(video[0]), other(video[0]))
    handle = model.get_submodule(f"blocks.2.{part}").register_forward_pre_hook(lambda *_: None)
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"blocks\.2\.{part}: it has forward hooks"):
            stream(video[1])
    handle.remove()
    for frame in video[1:]:
        assert torch.equal(stream(frame), other(frame))


def test_a_hook_put_on_later_fires_where_the_module_is_called():
    model, seen = eventful.convert(build("plain"), eventful.TopR(3)), []
    stream, video = eventful.Stream(model, scene_cuts=None), clip(3)
    stream(video[0])
    model.blocks[1].attn.qkv.register_forward_hook(lambda m, args, y: seen.append(y.shape))
    stream(video[1])
    assert seen == [(2 * (3 + 1), 3 * 24)]  # chosen tokens and the class token, of both rows
