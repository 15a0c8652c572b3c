"""Gatings beyond the paper's, and other measures: the laws, and their equations written out."""

import pytest
import torch
from torch.nn import functional as F

import eventful
from eventful.block.gate import MEASURES
from eventful.counting import Observer
from tests.zoo import FAMILIES, SIZE, build, clip, relative, same, stream_of

TOP = eventful.TopR(3)
GATINGS = ("hold", "input")


def dense(name, frame, dtype=torch.float64):
    with torch.inference_mode():
        return build(name, dtype).forward_features(frame)


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("name", FAMILIES)
def test_law_1_keep_all_and_first_frames_are_dense(name, gating):
    stream = stream_of(name, eventful.KeepAll(), torch.float64, gating=gating)
    for frame in clip(3, dtype=torch.float64):
        assert relative(stream(frame), dense(name, frame)) < 1e-10
    stream.policy = TOP
    stream.reset()
    last = clip(4, dtype=torch.float64)[-1]
    assert relative(stream(last), dense(name, last)) < 1e-10


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("name", FAMILIES)
def test_law_2_a_still_video_stays_still(name, gating):
    stream = stream_of(name, eventful.Threshold(1e-3), gating=gating)
    frame = clip(1)[0]
    first = stream(frame)
    for _ in range(3):
        assert relative(stream(frame), first) < 1e-5
    prefix = getattr(stream._originals[0], "num_prefix_tokens", 0)
    assert set(stream.stats.updated.values()) == {(prefix, prefix)}


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("name", ["plain", "dinov3", "sam"])
def test_law_5_outputs_never_alias_state(name, gating):
    stream, twin = (stream_of(name, TOP, gating=gating) for _ in range(2))
    for frame in clip(4):
        output = stream(frame)
        assert torch.equal(output, twin(frame))
        with torch.inference_mode():
            output.fill_(torch.nan)


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("name", FAMILIES)
def test_law_6_rows_do_not_see_each_other(name, gating):
    both = stream_of(name, eventful.Threshold(1.5), torch.float64, gating=gating)
    alone = [stream_of(name, eventful.Threshold(1.5), torch.float64, gating=gating) for _ in "ab"]
    for frame in clip(4, dtype=torch.float64):
        output = both(frame)
        for row, stream in enumerate(alone):
            assert relative(output[row], stream(frame[row : row + 1])[0]) < 1e-10
    assert len(set(next(iter(both.stats.updated.values())))) == 2  # rows differ in number


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("name", ["plain", "dinov3", "sam", "vitdet_paper_positions"])
def test_law_7_state_stays_constant_and_a_snapshot_goes_on(name, gating):
    stream = stream_of(name, TOP, gating=gating, measure="relative-age")
    first, second, *rest = clip(5)
    stream(first)
    size = stream.stats.state_bytes
    stream(second)
    other = stream_of(name, TOP, gating=gating, measure="relative-age")
    other.load_snapshot(stream.snapshot())
    for frame in rest:
        assert same(stream(frame), other(frame))
    assert stream._state_bytes() == size


class Written:
    """The model "plain" for one video, gated as the equations say, three tokens at a time."""

    def __init__(self, gating, model):
        self.model, self.gating, self.memory = model, gating, {}

    def embed(self, frame):
        model = self.model
        return model._pos_embed(model.patch_embed(frame))[0]

    def picked(self, key, c):
        """The class token and the three of largest error; all of them on the first frame."""
        if key not in self.memory:
            self.memory[key] = c.clone()
            return torch.arange(len(c))
        u = self.memory[key]
        error = (u - c).norm(dim=1)
        index = torch.cat([torch.zeros(1, dtype=torch.int64), error[1:].topk(3).indices + 1])
        u[index] = c[index]
        return index

    def put(self, key, index, values, tokens):
        held = self.memory.setdefault(key, values.new_zeros(tokens, values.shape[1]))
        held[index] = values
        return held

    def attention(self, block, q, kv):
        heads = block.attn.num_heads
        q = q.view(len(q), heads, -1).transpose(0, 1)
        k, v = kv.view(len(kv), 2, heads, -1).permute(1, 2, 0, 3)
        return F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)

    def block(self, i, block, x, index):
        tokens, dim = x.shape
        if self.gating == "input":
            qkv = block.attn.qkv(block.norm1(x[index]))
            kv = self.put((i, "kv"), index, qkv[:, dim:], tokens)
            y = x[index] + block.attn.proj(self.attention(block, qkv[:, :dim], kv))
            y = y + block.mlp(block.norm2(y))
            return self.put((i, "out"), index, y, tokens).clone()
        c = block.norm1(x)
        index = self.picked((i, "qkv"), c)
        qkv = self.put((i, "b_qkv"), index, block.attn.qkv(c[index]), tokens)
        o = self.attention(block, qkv[:, :dim], qkv[:, dim:])
        index = self.picked((i, "proj"), o)
        x = self.put((i, "x1"), index, x[index] + block.attn.proj(o[index]), tokens).clone()
        c = block.norm2(x)
        index = self.picked((i, "mlp"), c)
        return self.put((i, "x2"), index, x[index] + block.mlp(c[index]), tokens).clone()

    @torch.inference_mode()
    def __call__(self, frame):
        x, index = self.embed(frame), None
        if self.gating == "input":
            index = self.picked("input", self.model.blocks[0].norm1(x))
        for i, block in enumerate(self.model.blocks):
            x = self.block(i, block, x, index)
        return self.model.norm(x)


@pytest.mark.parametrize("gating", GATINGS)
def test_outputs_are_those_of_the_equations(gating):
    written = Written(gating, build("plain", torch.float64))
    stream = stream_of("plain", TOP, torch.float64, gating=gating)
    paper = stream_of("plain", TOP, torch.float64)
    for frame in clip(6, batch=1, dtype=torch.float64):
        output = stream(frame)
        assert relative(output[0], written(frame)) < 1e-10
        like_the_paper = relative(output, paper(frame)) < 1e-10
    assert not like_the_paper


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("name", ["plain", "dinov3", "registers"])
def test_products_are_those_that_run(name, gating):
    stream = stream_of(name, TOP, gating=gating)
    first, *video = clip(3)
    stream(first)
    for frame in video:
        with Observer() as observer:
            stream(frame)
        kinds = ("qkv", "query_key", "attention_value", "projection", "mlp")
        counted = sum(getattr(stream.stats.operations, kind) for kind in kinds)
        assert counted == observer.linear + observer.matmul + observer.attention


def test_one_gate_is_the_only_one():
    stream = stream_of("plain", TOP, gating="input")
    assert stream.gates == ["blocks.0.qkv"]
    for frame in clip(2):
        stream(frame)
    assert stream.stats.updated == {"blocks.0.qkv": (4, 4)}
    ratio = stream.stats.operations.total / stream.stats.dense_operations.total
    assert ratio < 4 / 16 + 0.05
    with pytest.raises(ValueError, match=r"no gate is called 'blocks\.1\.mlp'"):
        stream.policy = {"blocks.1.mlp": TOP}


@pytest.mark.parametrize("option", [{"attention": "cached"}, {"sampling": 5}, {"pooling": 2}])
def test_one_gate_refuses_what_is_for_three(option):
    name = "sam" if "pooling" in option else "plain"
    with pytest.raises(ValueError, match=f"it takes {next(iter(option))}="):
        eventful.convert(build(name), TOP, gating="input", **option)


def test_one_gate_needs_blocks_in_order():
    model = eventful.convert(build("plain"), TOP, gating="input")
    stream = eventful.Stream(model, scene_cuts=None, method="forward_features")
    stream._module.blocks = torch.nn.Sequential(*reversed(list(stream._module.blocks)))
    with pytest.raises(RuntimeError, match="the network's only gate sits in another block"):
        stream(clip(1)[0])


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_pick_by_their_definition(measure):
    """One video, frame by frame: what the first gate lets through, from errors kept by hand."""
    stream = stream_of("no_class_token", eventful.TopR(2), torch.float64, measure=measure)
    block = stream._originals[0].blocks[0]
    reference, age = None, None
    for frame in clip(8, batch=1, dtype=torch.float64):
        with torch.inference_mode():
            model = stream._originals[0]
            c = block.norm1(model._pos_embed(model.patch_embed(frame)))[0]
        stream(frame)
        if reference is None:
            reference, age = c.clone(), torch.zeros(len(c))
            continue
        rank = (reference - c).norm(dim=1)
        assert torch.allclose(stream.gate("blocks.0.qkv").error[0], rank)
        rank = rank / reference.norm(dim=1) if "relative" in measure else rank
        rank = rank * (age + 1) if "age" in measure else rank
        chosen = rank.topk(2).indices
        expected = torch.zeros(len(c), dtype=torch.bool).index_fill(0, chosen, True)
        assert torch.equal(stream.gate("blocks.0.qkv").updated[0], expected)
        reference[chosen], age = c[chosen], age + 1
        age[chosen] = 0


def test_every_token_has_its_turn_by_age():
    """A change of every token, each of another size, and then none: errors stay what they are."""
    generator = torch.Generator().manual_seed(0)
    frame = torch.randn(1, 3, *SIZE, generator=generator)
    stream = stream_of("no_class_token", eventful.TopR(1), measure="age", gating="input")
    stream(frame)
    moved = frame + 0.3 * torch.randn(1, 3, *SIZE, generator=generator)
    seen = set()
    for _ in range(40):
        stream(moved)
        seen |= set(stream.gate("blocks.0.qkv").updated[0].nonzero().flatten().tolist())
    assert len(seen) == 15


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("measure", ["error", "relative-age"])
@pytest.mark.parametrize("name", ["plain", "sam"])
def test_compiled_streams_give_the_same(name, gating, measure):
    model = eventful.convert(build(name), TOP, gating=gating, measure=measure)
    options = {"scene_cuts": None, "method": "forward_features"}
    fast = eventful.Stream(model, compile=True, **options)
    plain = eventful.Stream(model, **options)
    for t, frame in enumerate(clip(5)):
        if t == 3:
            with pytest.raises(ValueError, match="NaN"):
                fast(frame * torch.nan)
        assert relative(fast(frame), plain(frame)) < 2e-5
        if t < 3:  # the frame behind one that is taken back computes attention anew
            assert fast.stats.operations == plain.stats.operations


@pytest.mark.parametrize("gating", ["paper", "hold", "input"])
def test_the_first_gate_norms_its_input_once(gating):
    model = eventful.convert(build("plain"), eventful.TopR(3), gating=gating)
    stream = eventful.Stream(model, check=False)
    frame = torch.rand(1, 3, *SIZE)
    stream(frame)
    calls = []
    handle = model.blocks[0].norm1.register_forward_hook(lambda *seen: calls.append(seen))
    stream(frame)
    handle.remove()
    # with one gate, the chosen tokens are normed where they are projected, too
    assert len(calls) == (2 if gating == "input" else 1)
