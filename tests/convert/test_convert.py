"""`convert` and `restore`: what they take, what they refuse, what they leave alone."""

import inspect

import pytest
import timm
import torch
from torch import nn

import eventful
from eventful.backbones import LIBRARIES
from eventful.block.options import Options
from tests.zoo import build, clip

POLICY = eventful.TopR(3)


class Twice(nn.Module):
    """Two towers over the same tokens."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second


class StrangeBlock(nn.Module):
    """Attention that no adapter knows."""

    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(24, 3, batch_first=True)

    def forward(self, x):
        return x + self.attn(x, x, x, need_weights=False)[0]


def strange_tower():
    return nn.Sequential(StrangeBlock(), StrangeBlock())


def kinds(model):
    return [type(block).__name__ for block in model.blocks]


def test_signature_and_defaults_are_those_of_the_design():
    parameters = inspect.signature(eventful.convert).parameters.values()
    assert [(p.name, p.kind, p.default) for p in parameters] == [
        ("model", inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty),
        ("policy", inspect.Parameter.POSITIONAL_OR_KEYWORD, eventful.Auto(max_error=0.15)),
        ("where", inspect.Parameter.KEYWORD_ONLY, None),
        ("taps", inspect.Parameter.KEYWORD_ONLY, None),
        ("options", inspect.Parameter.KEYWORD_ONLY, Options()),
        ("sampling", inspect.Parameter.KEYWORD_ONLY, None),
        ("old", inspect.Parameter.VAR_KEYWORD, inspect.Parameter.empty),
    ]


def test_converts_in_place_and_returns_the_model():
    model = build("plain")
    assert eventful.convert(model, POLICY) is model
    assert kinds(model) == ["TimmBlock"] * 3
    assert [block.name for block in model.blocks] == ["blocks.0", "blocks.1", "blocks.2"]


def test_where_is_asked_for_every_block_and_obeyed():
    model, asked = build("eva02"), []
    blocks = list(model.blocks)

    def where(name, module):
        asked.append((name, module))
        return name != "blocks.1"

    eventful.convert(model, POLICY, where=where)
    assert asked == [(f"blocks.{i}", block) for i, block in enumerate(blocks)]
    assert kinds(model) == ["TimmEvaBlock", "EvaBlock", "TimmEvaBlock"]
    assert eventful.Stream(model).gates == [
        f"blocks.{i}.{stage}" for i in (0, 2) for stage in ("qkv", "proj", "mlp")
    ]


def test_where_that_refuses_every_block_is_an_error():
    with pytest.raises(ValueError, match=r"where=\.\.\. refused every block"):
        eventful.convert(build("plain"), POLICY, where=lambda *_: False)


def test_a_model_is_converted_once():
    model = eventful.convert(build("plain"), POLICY)
    with pytest.raises(ValueError, match=r"converted already.*eventful\.restore"):
        eventful.convert(model, POLICY)
    eventful.convert(eventful.restore(model), eventful.KeepAll(), attention="dense")
    assert eventful.Stream(model).policy == eventful.KeepAll()


def test_a_model_without_a_known_block_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="nothing to convert in this ResNet") as error:
        eventful.convert(timm.create_model("test_resnet"), POLICY)
    assert all(kind in str(error.value) for kind in LIBRARIES)


def test_a_model_of_unknown_blocks_alone_is_refused_by_name():
    with pytest.raises(ValueError, match=r"nothing to convert.*it holds 0 \(a .*StrangeBlock\)"):
        eventful.convert(strange_tower(), POLICY)


@pytest.mark.parametrize("restored", [build("plain"), nn.Linear(3, 5)], ids=["model", "linear"])
def test_what_is_not_converted_is_not_restored(restored):
    with pytest.raises(ValueError, match="nothing to restore"):
        eventful.restore(restored)


@pytest.mark.parametrize("name", ["plain", "eva02"])
def test_a_block_by_itself_is_converted_and_restored(name):
    original = build(name).blocks[1]
    x = torch.randn(2, 7, 24)
    expected = original(x)
    block = eventful.convert(original, eventful.KeepAll())
    assert block is not original
    assert torch.equal(block(x), expected)
    stream = eventful.Stream(block)
    assert stream.gates == ["block.qkv", "block.proj", "block.mlp"]
    torch.testing.assert_close(stream(x), expected.detach())
    assert stream.stats.updated == dict.fromkeys(stream.gates, (7, 7))
    assert eventful.restore(block) is original
    assert torch.equal(original(x), expected)


def test_one_block_used_twice_is_refused():
    model = build("plain")
    model.blocks[2] = model.blocks[0]
    with pytest.raises(ValueError, match=r"blocks\.0, blocks\.2: these are one block, used twice"):
        eventful.convert(model, POLICY)
    assert kinds(model) == ["Block"] * 3


def test_one_block_used_twice_may_be_left_out():
    model = build("plain")
    model.blocks[2] = model.blocks[0]
    eventful.convert(model, POLICY, where=lambda name, _: name == "blocks.1")
    assert kinds(model) == ["Block", "TimmBlock", "Block"]


def put_beside(model):
    model.blocks.insert(1, StrangeBlock())
    return model, "blocks.1"


def put_subclass_beside(model):
    """A subclass of a known block may compute something else."""
    block = model.blocks[1]
    block.__class__ = type("OtherBlock", (type(block),), {})
    return model, "blocks.1"


@pytest.mark.parametrize("put", [put_beside, put_subclass_beside])
def test_an_unknown_block_is_refused_unless_left_out(put):
    model, place = put(build("plain"))
    before = dict(model.named_modules())
    with pytest.raises(ValueError, match=rf"cannot convert {place} \(a .*\): no adapter knows"):
        eventful.convert(model, POLICY)
    assert dict(model.named_modules()) == before
    eventful.convert(model, POLICY, where=lambda name, _: name != place)
    assert eventful.Stream(model).gates
    assert model.get_submodule(place) is before[place]


def test_a_list_of_unknown_blocks_is_left_alone_and_reported(caplog):
    model = Twice(build("plain"), strange_tower())
    before = [*model.second]
    eventful.convert(model, POLICY)
    assert kinds(model.first) == ["TimmBlock"] * 3
    assert [*model.second] == before
    assert "left as they are: 2 blocks of second (a " in caplog.text


def test_two_towers_are_both_converted():
    towers = Twice(build("plain"), build("dinov3"))
    eventful.convert(towers, POLICY)
    assert kinds(towers.first) == ["TimmBlock"] * 3
    assert kinds(towers.second) == ["TimmEvaBlock"] * 3
    assert [tower.blocks[0].prefix_tokens for tower in (towers.first, towers.second)] == [1, 5]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("gating", "none"),
        ("attention", "flash"),
        ("gate", "tokens"),
        ("gate_before_norm", "yes"),
        ("prefix", "never"),
    ],
)
def test_an_unknown_option_is_refused_with_the_known_ones(option, value):
    model = build("plain")
    with pytest.raises(ValueError, match=rf"^{option} must be one of \(.*\), got '{value}'"):
        eventful.convert(model, POLICY, **{option: value})
    assert kinds(model) == ["Block"] * 3


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", None, nn.Linear])
def test_what_is_no_module_is_refused(model):
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        eventful.convert(model, POLICY)


@pytest.mark.parametrize("policy", ["top:3", 3, None, eventful.TopR, {"*": "top:3"}])
def test_what_is_no_policy_is_refused(policy):
    model = build("plain")
    with pytest.raises(TypeError, match="expected a policy"):
        eventful.convert(model, policy)
    assert kinds(model) == ["Block"] * 3


def test_policies_by_name_and_pattern():
    top, some, all_ = eventful.TopR(2), eventful.Threshold(0.5), eventful.KeepAll()
    policies = {"*": top, "blocks.[01].mlp": some, "blocks.2.proj": all_}
    model = eventful.convert(build("plain"), policies)
    expected = {f"blocks.{i}.{stage}": top for i in range(3) for stage in ("qkv", "proj", "mlp")}
    expected |= {"blocks.0.mlp": some, "blocks.1.mlp": some, "blocks.2.proj": all_}
    assert eventful.Stream(model).policy == expected


def test_a_later_pattern_wins():
    model = eventful.convert(build("plain"), {"blocks.0.qkv": POLICY, "*": eventful.KeepAll()})
    assert eventful.Stream(model).policy == eventful.KeepAll()


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"*": POLICY, "blocks.0.qvk": POLICY}, r"no gate.*'blocks\.0\.qvk'.*blocks\.0\.qkv"),
        ({"*.norm": POLICY}, r"no gate is called '\*\.norm'"),
        ({"*.qkv": POLICY, "*.mlp": POLICY}, r"no policy for the gates blocks\.0\.proj"),
        ({}, "no policy for the gates"),
    ],
)
def test_policies_must_name_gates_and_leave_none_out(policies, message):
    model = build("plain")
    with pytest.raises(ValueError, match=message):
        eventful.convert(model, policies)
    assert kinds(model) == ["Block"] * 3


def test_policies_of_blocks_that_are_left_out_are_unknown():
    with pytest.raises(ValueError, match=r"no gate is called 'blocks\.1\.qkv'"):
        eventful.convert(
            build("plain"),
            {"*": POLICY, "blocks.1.qkv": POLICY},
            where=lambda name, _: name != "blocks.1",
        )


@pytest.mark.parametrize("name", ["plain", "eva02", "gated"])
def test_state_dict_keys_and_order_stay(name):
    model = build(name)
    keys = list(model.state_dict())
    parameters = [id(p) for p in model.parameters()]
    eventful.convert(model, POLICY)
    assert list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == parameters
    eventful.Stream(model)(clip(1)[0])
    assert list(model.state_dict()) == keys


def test_restore_keeps_hooks_on_blocks():
    model, called = build("plain"), []
    model.blocks[0].register_forward_hook(lambda *_: called.append("before"))
    eventful.convert(model, POLICY)
    model.blocks[0].register_forward_hook(lambda *_: called.append("converted"))
    frame = clip(1)[0]
    model(frame)
    assert called == ["before", "converted"]
    eventful.Stream(model)(frame)
    assert called == ["before", "converted"] * 2
    eventful.restore(model)
    assert type(model.blocks[0]).__name__ == "Block"
    model(frame)
    assert called == ["before", "converted"] * 3


@pytest.mark.parametrize("training", [False, True])
def test_restore_keeps_the_training_flag(training):
    model = eventful.convert(build("layer_scale"), POLICY).train(training)
    eventful.restore(model)
    assert {module.training for module in model.modules()} == {training}


def test_restore_keeps_weights_changed_meanwhile():
    model = eventful.convert(build("plain"), POLICY)
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight.fill_(0.25)
    model.blocks[2].norm1 = type(model.blocks[2].norm1)(24)
    norm = model.blocks[2].norm1
    eventful.restore(model)
    assert model.blocks[1].mlp.fc1.weight.eq(0.25).all()
    assert model.blocks[2].norm1 is norm


@pytest.mark.parametrize("part", ["drop_path1", "drop_path2"])
def test_hooks_on_drop_path_are_refused_because_it_is_left_out(part):
    model = build("layer_scale")
    model.blocks[1].get_submodule(part).register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=rf"blocks.1.{part}: it has forward hooks"):
        eventful.convert(model, eventful.TopR(1))
