"""Models that wrappers and users have changed: a stream leaves them as they are."""

import functools
from types import MethodType

import pytest
import torch
from torch import nn

import eventful
from tests.zoo import build, clip

POLICY = eventful.KeepAll()
COMPILED = {"backend": "eager"}


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-5)


class Outer(nn.Module):
    """A wrapper as DDP and FSDP are: attributes come from and go to what it wraps."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        vars(self)["_sealed"] = True

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def __setattr__(self, name, value):
        if "_sealed" in vars(self) and name != "training":
            setattr(self.module, name, value)
        else:
            super().__setattr__(name, value)

    def __getstate__(self):
        raise RuntimeError("holds a process group")

    def forward(self, x):
        return self.module(x)


def wrapped_blocks(model):
    model.blocks = nn.Sequential(*map(Outer, model.blocks))
    return model


WRAPPERS = {
    "around the model": Outer,
    "around it twice": lambda model: Outer(Outer(model)),
    "around every block": wrapped_blocks,
    "in parallel": nn.DataParallel,
    "a list": nn.Sequential,
}


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_stream_runs_through_wrappers_and_leaves_the_model_alone(wrap):
    model, frame = build("plain"), clip(1)[0]
    expected, whole = model(frame), WRAPPERS[wrap](model)
    eventful.convert(whole, POLICY)
    before = [(name, id(module), dict(vars(module))) for name, module in whole.named_modules()]
    stream = eventful.Stream(whole)
    close(stream(frame), expected)
    for _ in range(2):
        stream(frame)
    assert stream.stats.operations.total
    after = [(name, id(module), dict(vars(module))) for name, module in whole.named_modules()]
    assert before == after
    close(whole(frame), expected)
    close(eventful.restore(whole)(frame), expected)


def test_a_method_is_found_through_a_wrapper():
    model, frame = build("plain"), clip(1)[0]
    expected = model.forward_features(frame)
    stream = eventful.Stream(eventful.convert(Outer(model), POLICY), method="forward_features")
    close(stream(frame), expected)
    close(model.forward_features(frame), expected)


def compiled_inside(model):
    for i, block in enumerate(model.blocks):
        model.blocks[i] = torch.compile(block, **COMPILED)
    return model


def compiled_in_place(model):
    model.compile(**COMPILED)
    return model


def closure(model):
    inner = model.forward
    model.forward = lambda x: inner(x) / 2
    return model


def default(model):
    def forward(x, run=model.forward):
        return run(x)

    model.forward = forward
    return model


def another_method(model):
    inner = model.forward_features
    model.forward_features = lambda x, **kwargs: inner(x, **kwargs) / 2
    return model


REFUSED = {
    "torch.compile": (lambda model: torch.compile(model, **COMPILED), "forward"),
    "torch.compile of every block": (compiled_inside, r"blocks\.0\.forward"),
    "compile()": (compiled_in_place, "_compiled_call_impl"),
    "a closure": (closure, "forward"),
    "a default": (default, "forward"),
    "another method": (another_method, "forward_features"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_functions_that_hold_the_model_are_refused_by_name(kind):
    wrap, name = REFUSED[kind]
    model, frame = build("plain"), clip(1)[0]
    children = [name for name, _ in model.named_children()]
    with torch.no_grad():
        whole = wrap(model)
        expected = whole(frame)
    eventful.convert(whole, POLICY)
    with pytest.raises(ValueError, match=rf"its attribute {name} is a function that holds on to"):
        eventful.Stream(whole)
    assert [name for name, _ in model.named_children()] == children
    with torch.no_grad():
        close(eventful.restore(whole)(frame), expected)


@pytest.mark.parametrize("some", [slice(0, 3), slice(1, 2)])
def test_a_block_whose_compile_was_called_is_refused(some):
    model = build("plain")
    for block in model.blocks[some]:
        block.compile(**COMPILED)
    with pytest.raises(ValueError, match=r"blocks\.\d: its compile\(\) has been called"):
        eventful.convert(model, POLICY)


def halved(model, x, **kwargs):
    return type(model).forward_features(model, x, **kwargs) / 2


def doubled(model):
    model.forward_features = MethodType(halved, model)


def hooked(model):
    """As accelerate sets a forward."""

    def new_forward(module, *args, **kwargs):
        return module._old_forward(*args, **kwargs) / 2

    model._old_forward = model.forward
    model.forward = functools.update_wrapper(functools.partial(new_forward, model), model.forward)


def in_containers(model):
    model.steps = {"all": [(model.forward_features,), functools.partial(model.forward_head)]}
    model.forward = MethodType(lambda m, x: m.steps["all"][1](m.steps["all"][0][0](x)) / 2, model)


def of_a_part(model):
    model.blocks.forward = MethodType(lambda m, x: type(m).forward(m, x) / 2, model.blocks)


def kept_aside(model):
    """A list that torch does not see as one of modules."""
    vars(model)["order"] = [model.blocks, {"norm": model.norm}]
    model.forward_features = MethodType(
        lambda m, x, **_: m.order[1]["norm"](m.order[0](m._pos_embed(m.patch_embed(x)))), model
    )


BOUND = {f.__name__: f for f in (doubled, hooked, in_containers, of_a_part, kept_aside)}


@pytest.mark.parametrize("change", BOUND)
def test_methods_set_on_a_model_are_bound_to_the_streams_own(change):
    model, video = build("plain"), clip(3)
    BOUND[change](model)
    expected = [model(frame) for frame in video]
    stream = eventful.Stream(eventful.convert(model, POLICY), scene_cuts=None)
    for frame, dense in zip(video, expected, strict=True):
        close(stream(frame), dense)
    assert stream.stats.flush_reasons == {"first frame": 2}
    close(model(video[0]), expected[0])


def test_a_method_that_was_set_may_be_the_one_to_run():
    model, frame = build("plain"), clip(1)[0]
    doubled(model)
    expected = model.forward_features(frame)
    stream = eventful.Stream(eventful.convert(model, POLICY), method="forward_features")
    close(stream(frame), expected)


def test_helpers_that_hold_the_model_stay_unless_they_are_what_runs():
    model, frame = build("plain"), clip(1)[0]
    expected = model(frame)
    model.scaled = lambda x: x * model.num_prefix_tokens
    model.encode = lambda x: model(x)[:, :2]
    model.to = lambda *args: nn.Module.to(model, *args)
    stream = eventful.Stream(eventful.convert(model, POLICY))
    close(stream(frame), expected)
    with pytest.raises(ValueError, match="its attribute encode is a function that holds on to"):
        eventful.Stream(model, method="encode")


def test_a_helper_that_runs_the_model_past_the_stream_ends_in_an_error():
    model, frame = build("plain"), clip(1)[0]
    model.all_blocks = lambda x: model.blocks(x) / 2
    model.forward_features = MethodType(
        lambda m, x, **_: m.norm(m.all_blocks(m._pos_embed(m.patch_embed(x)))), model
    )
    stream = eventful.Stream(eventful.convert(model, POLICY))
    with pytest.raises(RuntimeError, match="every eventful block must run once"):
        stream(frame)


def test_functions_that_hold_something_else_stay():
    model, frame, seen = build("plain"), clip(1)[0], []
    model.note = lambda x: seen.append(x / 2)
    model.myself = [seen]
    model.myself.append(model.myself)
    stream = eventful.Stream(eventful.convert(model, POLICY))
    stream(frame)
    assert stream._bound.module.note is model.note
    assert stream._bound.module.myself is model.myself
