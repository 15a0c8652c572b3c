"""Frames handed in to passes that streams share: refused, failed, alone, and in what order."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

import eventful
from eventful import Auto, Budget, Carry, Costs, Together, TopR
from eventful.stream import measure
from tests.laws.frames import COSTS, NoMotion, Script, flow_is, kinds, pixels, scripted
from tests.zoo import build, clip, relative

DOUBLE = torch.float64
OPTIONS = {"scene_cuts": None, "pixels": pixels, "method": "forward_features", "costs": COSTS}


@pytest.fixture(autouse=True)
def _no_motion(monkeypatch):
    flow_is(monkeypatch, NoMotion)


@pytest.fixture
def model():
    return eventful.convert(build("plain", DOUBLE), Auto(share=0.5))


def streams_of(model, count, **options):
    return [eventful.Stream(model, **OPTIONS | options) for _ in range(count)]


def written(streams, *texts):
    """Give each stream its first frame and what comes then; returns the frames after it."""
    videos = [clip(8, 1, DOUBLE, seed=seed) for seed in range(len(streams))]
    for stream, (first, *_), text in zip(streams, videos, texts, strict=True):
        scripted(stream, first, text)
    return [list(frames) for frames in zip(*(video[1:] for video in videos), strict=True)]


def asked(streams, frames, passes):
    return [stream.ask(passes, frame) for stream, frame in zip(streams, frames, strict=True)]


def rows_run(stream, found):
    """Note how many rows each pass of a stream takes."""
    run = stream._bound.run

    def counted(x, inputs):
        found.append(len(x))
        return run(x, inputs)

    stream._bound.run = counted
    return found


def dense(model, frame):
    with torch.inference_mode():
        return model.forward_features(frame)


def raising(stream, monkeypatch, when=lambda x: True, error=OSError):
    """Make a stream's last block raise."""
    block = list(stream._bound.blocks.values())[-1]
    to_mlp = block.to_mlp

    def broken(x):
        if when(x):
            raise error("broken")
        return to_mlp(x)

    monkeypatch.setattr(block, "to_mlp", broken)


class TestWaiting:
    def test_a_stream_whose_frame_waits_refuses_everything_else(self, model):
        streams, passes = streams_of(model, 2), Together()
        (before, now, then, *_) = written(streams, "p3 p4 p5", "p2 p2 p2")
        asked(streams, before, passes), passes.run()
        saved = streams[0].snapshot()
        policy, tickets = streams[0].policy, asked(streams, now, passes)
        for attempt, what in (
            (lambda: streams[0](then[0]), "run another frame"),
            (lambda: streams[0].ask(passes, then[0]), "run another frame"),
            (streams[0].snapshot, "save anything"),
            (lambda: streams[0].load_snapshot(saved), "go on from a snapshot"),
            (lambda: list(streams[0].run(then[:1], lookahead=2)), "begin another run"),
            (lambda: setattr(streams[0], "policy", Auto(share=0.9)), "set a policy"),
            (lambda: setattr(streams[0], "policy", TopR(3)), "set a policy"),
            (lambda: setattr(streams[0], "budget", Budget()), "set a budget"),
        ):
            with pytest.raises(RuntimeError, match=rf"cannot {what} while a frame waits; call run"):
                attempt()
        for ticket in tickets:
            assert ticket.waits
            with pytest.raises(RuntimeError, match="still waits to be computed; call run"):
                _ = ticket.output
        passes.run()
        assert not any(ticket.waits for ticket in tickets)
        assert [stream.stats.rows[0].tokens for stream in streams] == [5, 3]
        assert streams[0].policy == policy
        assert streams[0].budget is None
        streams[0].snapshot(), streams[0](then[0])
        assert streams[0].stats.frames == 4
        streams[0].policy = Auto(share=0.9)

    def test_reset_meanwhile_is_of_the_next_frame(self, model):
        streams, passes = streams_of(model, 2), Together()
        now, then, *_ = written(streams, "p3 p4", "p2 p2")
        asked(streams, now, passes)
        streams[0].reset()
        passes.run()
        assert kinds(streams[0]) == ["partial"]
        assert relative(streams[0](then[0]), dense(model, then[0])) < 1e-12
        assert streams[0].stats.flush_reasons["requested"] == 1

    def test_frames_may_be_written_over_meanwhile(self, model):
        streams, own, passes = streams_of(model, 2), streams_of(model, 2), Together()
        (now, *_), _ = written(streams, "p3", "p15"), written(own, "p3", "p15")
        expected = [stream(frame) for stream, frame in zip(own, now, strict=True)]
        tickets = asked(streams, now, passes)
        for frame in now:
            frame.zero_()
        passes.run()
        for ticket, output in zip(tickets, expected, strict=True):
            assert relative(ticket.output, output) < 1e-12

    def test_nothing_to_run_is_no_error(self, model):
        passes = Together()
        passes.run()
        assert not streams_of(model, 1)[0].ask(passes, clip(1, 1, DOUBLE)[0]).waits  # dense
        passes.run()

    def test_passes_come_first(self, model):
        (stream,) = streams_of(model, 1)
        frame = clip(1, 1, DOUBLE)[0]
        with pytest.raises(
            TypeError, match=r"an eventful\.Together and then a frame, got a Tensor"
        ):
            stream.ask(frame, frame)
        stream(frame)


class TestAlone:
    def test_token_policies_and_batches_wait_for_nothing(self, model):
        video = clip(5, 2, DOUBLE)
        for options in ({"policy": TopR(4)}, {}):
            (stream, own), passes = streams_of(model, 2, **options), Together()
            for frame in video:
                ticket = stream.ask(passes, frame)
                assert not ticket.waits
                assert torch.equal(ticket.output, own(frame))
            assert stream.stats.kinds == own.stats.kinds

    @pytest.mark.slow
    def test_a_runtime_keeps_its_graphs(self):
        pytest.importorskip("openvino")
        model = eventful.convert(build("plain"), Auto(share=0.5))
        (stream,), passes = streams_of(model, 1, runtime="openvino"), Together()
        (own,) = streams_of(model, 1)
        first, *video = clip(4, 1)
        scripted(stream, first, "p3 c p4"), scripted(own, first, "p3 c p4")
        for frame in video:
            ticket = stream.ask(passes, frame)
            assert not ticket.waits
            assert relative(ticket.output, own(frame)) < 1e-4

    @pytest.mark.parametrize("kind", [torch.tensor, np.array])
    def test_inputs_that_are_arrays(self, kind):
        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.vit = build("plain", DOUBLE)

            def forward(self, x, scale):
                return self.vit.forward_features(x) * float(scale[700])

        model = eventful.convert(Scaled(), Auto(share=0.5))
        joined, alone = (streams_of(model, 2, method="forward") for _ in range(2))
        first, *video = clip(4, 1, DOUBLE)
        for t, frame in enumerate((first, *video)):
            passes, tickets = Together(), []
            for row, stream in enumerate(joined):
                values = [1.0] * 700 + [1.0 + row] + [1.0] * 700  # numpy's repr leaves this out
                tickets.append(stream.ask(passes, frame, scale=kind(values)))
                expected = alone[row](frame, scale=kind(values))
                assert not tickets[-1].waits
                assert relative(tickets[-1].output, expected) < 1e-12
            if t == 0:
                for stream in (*joined, *alone):
                    stream._engine._schedule.plans[:] = [Script("p4 p3 c")]
        assert kinds(joined[0]) == ["carried"]

    def test_other_inputs_are_shared_where_they_are_equal(self):
        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.vit = build("plain", DOUBLE)

            def forward(self, x, scale):
                return self.vit.forward_features(x) * scale

        model = eventful.convert(Scaled(), Auto(share=0.5))
        streams = streams_of(model, 3, method="forward")
        frame, later = clip(2, 1, DOUBLE)
        scales, sizes, passes = (2.0, 2.0, 3.0), [], Together()
        for stream, scale in zip(streams, scales, strict=True):
            stream(frame, scale=scale)
            stream._engine._schedule.plans[:] = [Script("p4")]
            rows_run(stream, sizes)
        tickets = [s.ask(passes, later, scale=x) for s, x in zip(streams, scales, strict=True)]
        passes.run()
        assert sizes == [2, 1]
        a, b, c = (ticket.output for ticket in tickets)
        assert relative(a, b) < 1e-12
        assert relative(a * 1.5, c) < 1e-12


class TestKinds:
    def test_two_models_and_two_sizes(self):
        models = [eventful.convert(build(n, DOUBLE), Auto(share=0.5)) for n in ("plain", "dinov3")]
        net = timm.create_model(
            "vit_tiny_patch16_224", img_size=32, dynamic_img_size=True, num_classes=0
        )
        models.append(eventful.convert(net.double().eval(), Auto(share=0.5)))
        sizes = [None, None, (32, 48), (64, 32)]
        places = [models[0], models[1], models[2], models[2]]
        joined, alone, sizes_run = [], [], []
        for model in places:
            joined += streams_of(model, 2)
            alone += streams_of(model, 2)
        videos = []
        for size in (size for size in sizes for _ in range(2)):
            generator = torch.Generator().manual_seed(len(videos))
            shape = (4, 1, 3, *size) if size else None
            video = clip(4, 1, DOUBLE, len(videos)) if shape is None else None
            videos.append(torch.rand(shape, generator=generator).double() if shape else video)
        for streams in (joined, alone):
            for stream, video in zip(streams, videos, strict=True):
                scripted(stream, video[0], "p3 c p1")
        for stream in joined:
            rows_run(stream, sizes_run)
        passes = Together()
        for t in range(1, 4):
            sizes_run.clear()
            tickets = asked(joined, [video[t] for video in videos], passes)
            passes.run()
            assert sizes_run == [2, 2, 2, 2]
            for ticket, own, video in zip(tickets, alone, videos, strict=True):
                assert relative(ticket.output, own(video[t])) < 1e-11

    def test_a_module_replaced_between_two_streams(self):
        """Each runs what the model held when it was made."""
        net = build("plain", DOUBLE)
        model = eventful.convert(net, Auto(share=0.5))
        streams = streams_of(model, 1, method="forward")
        model.head = nn.Linear(24, 7).double()
        streams += streams_of(model, 1, method="forward")
        frames, *_ = written(streams, "p3", "p15")
        passes = Together()
        tickets = asked(streams, frames, passes)
        passes.run()
        with torch.inference_mode():
            expected = model(frames[1])
        assert relative(tickets[1].output, expected) < 1e-11

    @pytest.mark.parametrize("count", [15, 16, 17, 33, 40])
    def test_more_frames_than_a_pass_takes(self, model, count):
        texts = ["p3 c", "p1 p2", "c p15"] * 14
        streams, own, found = streams_of(model, count), streams_of(model, count), []
        frames, more, *_ = written(streams, *texts[:count])
        written(own, *texts[:count])
        for stream in streams:
            rows_run(stream, found)
        passes = Together()
        for now in (frames, more):
            found.clear()
            tickets = asked(streams, now, passes)
            passes.run()
            assert sum(found) == count
            assert max(found) == min(count, Together.AT_ONCE)
            for ticket, stream, frame in zip(tickets, own, now, strict=True):
                assert relative(ticket.output, stream(frame)) < 1e-12


class TestFailures:
    def test_a_pass_that_fails(self, model, monkeypatch):
        """Its frames have its error and are computed in full next; other passes go on."""
        other = eventful.convert(build("dinov3", DOUBLE), Auto(share=0.5))
        streams = [*streams_of(model, 3), *streams_of(other, 2)]
        texts = "p3 p3 p2", "c p4 p2", "p15 p1 p2", "p3 p3 p2", "c p2 p2"
        now, then, last, *_ = written(streams, *texts)
        passes = Together()
        with monkeypatch.context() as patch:
            for stream in streams[:3]:
                raising(stream, patch)
            tickets = asked(streams, now, passes)
            passes.run()
        for number in (0, 2):
            for _ in range(2):
                with pytest.raises(OSError, match="broken"):
                    _ = tickets[number].output
        assert tickets[1].output is not None  # carried: alone, no block computes anything
        assert all(ticket.output.isfinite().all() for ticket in tickets[3:])
        tickets = asked(streams, then, passes)
        passes.run()
        for number in (0, 2):
            stream, frame = streams[number], then[number]
            assert relative(tickets[number].output, dense(model, frame)) < 1e-12
            assert stream.stats.flush_reasons == {"first frame": 1, "interrupted": 1}
        for stream in (streams[1], *streams[3:]):
            assert kinds(stream) == ["partial"]
            assert stream.stats.flush_reasons == {"first frame": 1}
        for stream in streams:
            stream._engine._schedule.plans[:] = [Script("p2")]
        tickets = asked(streams, last, passes)
        passes.run()
        assert [kinds(stream) for stream in streams] == [["partial"]] * 5

    def test_a_model_that_takes_no_batches(self, model, caplog):
        streams, own = streams_of(model, 3), streams_of(model, 3)
        texts = "p3 p2 p1", "p5 c p2", "c p15 p3"
        videos, _ = written(streams, *texts), written(own, *texts)
        for stream in streams:
            run = stream._bound.run

            def one(x, inputs, run=run):
                if len(x) > 1:
                    raise ValueError("one image, please")
                return run(x, inputs)

            stream._bound.run = one
        for frames in videos[:3]:
            passes = Together()
            tickets = asked(streams, frames, passes)
            passes.run()
            for ticket, stream, frame in zip(tickets, own, frames, strict=True):
                assert relative(ticket.output, stream(frame)) < 1e-12
        assert len(caplog.records) == 1
        assert "one image, please" in caplog.text

    def test_an_interrupt_leaves_no_stream_behind(self, model, monkeypatch):
        other = eventful.convert(build("dinov3", DOUBLE), Auto(share=0.5))
        streams, passes = [*streams_of(model, 2), *streams_of(other, 2)], Together()
        now, then, *_ = written(streams, "p3 p3", "p4 p1", "p3 p3", "p3 p2")
        with monkeypatch.context() as patch:
            raising(streams[0], patch, error=KeyboardInterrupt)
            tickets = asked(streams, now, passes)
            with pytest.raises(KeyboardInterrupt):
                passes.run()
        assert [ticket.waits for ticket in tickets] == [False, False, True, True]
        passes.run()
        assert tickets[2].output.isfinite().all()
        assert not tickets[3].waits
        for stream, frame in zip(streams, then, strict=True):
            stream(frame)
        assert [kinds(stream) for stream in streams] == [["dense"]] * 2 + [["partial"]] * 2

    def test_a_bad_frame_is_refused_at_once(self, model):
        streams, own, passes = streams_of(model, 3), streams_of(model, 3), Together()
        texts = "p3 p2", "p4 c", "c p2"
        (now, then, *_), _ = written(streams, *texts), written(own, *texts)
        wrong = now[1].clone()
        wrong[0, 0, 0, 0] = torch.nan
        first = streams[0].ask(passes, now[0])
        for bad, error, what in (
            (wrong, ValueError, "NaN"),
            (now[1][:, :2], ValueError, "channels"),
            (now[1].long(), TypeError, "floating"),
        ):
            with pytest.raises(error, match=what):
                streams[1].ask(passes, bad)
        last = streams[2].ask(passes, now[2])
        again = streams[1].ask(passes, now[1])
        passes.run()
        for ticket, stream, frame in zip((first, again, last), own, now, strict=True):
            assert relative(ticket.output, stream(frame)) < 1e-12
        tickets = asked(streams, then, passes)
        passes.run()
        for ticket, stream, frame in zip(tickets, own, then, strict=True):
            assert relative(ticket.output, stream(frame)) < 1e-12

    def test_weights_that_change(self, model):
        streams, passes = streams_of(model, 3), Together()
        now, then, _last, *_ = written(streams, "p3", "p4", "p2")
        two = asked(streams[:2], now[:2], passes)
        with torch.no_grad():
            model.blocks[0].original.mlp.fc1.weight.mul_(1.5)
        late = streams[2].ask(passes, now[2])
        assert not late.waits
        assert kinds(streams[2]) == ["dense"]
        streams[2]._engine._schedule.plans[:] = [Script("p2")]
        later = streams[2].ask(passes, then[2])
        passes.run()
        for ticket in two:
            with pytest.raises(RuntimeError, match="weights changed while the frame waited"):
                _ = ticket.output
        assert later.output.isfinite().all()
        assert kinds(streams[2]) == ["partial"]
        for stream, frame in zip(streams[:2], then, strict=False):
            assert relative(stream(frame), dense(model, frame)) < 1e-12

    def test_train_mode_meanwhile(self, model):
        streams, passes = streams_of(model, 2), Together()
        now, then, *_ = written(streams, "p3", "p4")
        tickets = asked(streams, now, passes)
        model.train()
        passes.run()
        with pytest.raises(RuntimeError, match=r"in train mode; call model\.eval"):
            _ = tickets[0].output
        model.eval()
        assert relative(streams[0](then[0]), dense(model, then[0])) < 1e-12


class Heads(nn.Module):
    """A model whose outputs are not one tensor that begins with the batch."""

    def __init__(self, give):
        super().__init__()
        self.vit, self.give = build("plain", DOUBLE), give

    def forward(self, x):
        return self.give(self.vit.forward_features(x))


FORMS = {
    "a dict an image": (lambda y: [{"mean": row.mean(0), "label": "x"} for row in y], False),
    "a mean of the batch": (lambda y: y.mean(), False),
    "a mean with its axes": (lambda y: y.mean((0, 1, 2), keepdim=True), False),
    "tokens first": (lambda y: y.transpose(0, 1), False),
    "the number of rows": (lambda y: (y, len(y)), False),
    "an array": (lambda y: (y, np.arange(5)), False),
    "a dict of the batch": (lambda y: {"all": y, "more": (y[:, 0], "names", None, 3)}, True),
}


class TestForms:
    @pytest.mark.parametrize("form", FORMS)
    def test_outputs_are_those_of_streams_alone(self, form, caplog):
        give, shares = FORMS[form]
        model = eventful.convert(Heads(give), Auto(share=0.5))
        joined, alone = (streams_of(model, 3, method="forward") for _ in range(2))
        texts = "p3 c p2 p4", "p5 p1 c p15", "c p2 p2 p3"
        videos, _ = written(joined, *texts), written(alone, *texts)
        sizes = []
        for stream in joined:
            rows_run(stream, sizes)
        for frames in videos[:4]:
            passes = Together()
            tickets = asked(joined, frames, passes)
            passes.run()
            for ticket, stream, frame in zip(tickets, alone, frames, strict=True):
                ours, theirs = map(torch.utils._pytree.tree_flatten, (ticket.output, stream(frame)))
                assert ours[1] == theirs[1]
                for a, b in zip(ours[0], theirs[0], strict=True):
                    if isinstance(a, torch.Tensor):
                        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
                    else:
                        assert np.array_equal(a, b)
        assert sizes == ([3] * 4 if shares else [3] + [1] * 12)
        assert not caplog.records  # none has failed

    def test_outputs_share_no_memory(self, model):
        streams, passes = streams_of(model, 2), Together()
        now, then, *_ = written(streams, "p3 h", "p2 h")
        tickets = asked(streams, now, passes)
        passes.run()
        a, b = (ticket.output for ticket in tickets)
        kept, other = a.clone(), b.clone()
        a.zero_()
        assert torch.equal(b, other)
        assert torch.equal(streams[0](then[0]), kept)  # held

    @pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
    def test_modes(self, model, mode):
        """Outputs are ordinary tensors, and what is remembered serves in any other mode."""
        streams, own, passes = streams_of(model, 2), streams_of(model, 2), Together()
        texts = "p3 c p2", "p2 p4 c"
        videos, _ = written(streams, *texts), written(own, *texts)
        for frames, inside in zip(videos, (True, False, True), strict=False):
            with mode(inside) if mode is torch.inference_mode else mode():
                tickets = asked(streams, [frame.clone() for frame in frames], passes)
                passes.run()
            for ticket, stream, frame in zip(tickets, own, frames, strict=True):
                output = ticket.output
                assert not output.requires_grad
                assert not output.is_inference()
                assert relative(output, stream(frame)) < 1e-12
        nn.Linear(24, 2).double()(output).sum().backward()


class TestOtherState:
    @pytest.mark.parametrize("share", [0.2, 0.4])
    def test_a_shared_budget_decides_the_same(self, model, share):
        videos = [clip(30, 1, DOUBLE, seed=seed) for seed in range(4)]
        videos[0][:] = videos[0][0]  # a still one
        found = []
        for passes in (Together(), None):
            budget = Budget()
            streams = streams_of(model, 4, policy=Auto(share=share), budget=budget)
            told = []
            for frames in zip(*videos, strict=True):
                if passes is None:
                    for stream, frame in zip(streams, frames, strict=True):
                        stream(frame)
                else:
                    asked(streams, frames, passes), passes.run()
                told.append([(kinds(s), s.stats.rows[0].tokens) for s in streams])
            found.append(told)
        assert found[0] == found[1]
        assert {kind for told in found[0] for (kind,), _ in told} >= {"dense", "partial", "held"}

    def test_a_snapshot_in_between(self, model):
        policy = Auto(share=0.4)
        streams, own = (streams_of(model, 3, policy=policy) for _ in range(2))
        videos, passes = [clip(12, 1, DOUBLE, seed=seed) for seed in range(3)], Together()
        sizes = []
        for t, frames in enumerate(zip(*videos, strict=True)):
            if t == 5:
                saved = [stream.snapshot() for stream in streams]
                streams = streams_of(model, 3, policy=policy)
                for stream, content in zip(streams, saved, strict=True):
                    stream.load_snapshot(content)
                    rows_run(stream, sizes)
            tickets = asked(streams, frames, passes)
            passes.run()
            for ticket, stream, frame in zip(tickets, own, frames, strict=True):
                assert relative(ticket.output, stream(frame)) < 1e-12
        assert max(sizes) > 1  # those that went on share passes too
        for stream, other in zip(streams, own, strict=True):
            assert stream.stats.kinds == other.stats.kinds

    def test_a_policy_between_frames(self, model):
        streams, own, passes = streams_of(model, 2), streams_of(model, 2), Together()
        videos = [clip(9, 1, DOUBLE, seed=seed) for seed in range(2)]
        for t, frames in enumerate(zip(*videos, strict=True)):
            if t in (3, 6):
                streams[0].policy = own[0].policy = Carry(3) if t == 3 else Auto(share=0.5)
            tickets = asked(streams, frames, passes)
            passes.run()
            for ticket, stream, frame in zip(tickets, own, frames, strict=True):
                assert relative(ticket.output, stream(frame)) < 1e-12
        assert streams[0].stats.kinds == own[0].stats.kinds

    def test_statistics_tell_of_each_frame_once(self, model):
        streams, passes = streams_of(model, 2), Together()
        now, *_ = written(streams, "p3", "c")
        asked(streams, now, passes)
        assert [stream.stats.frames for stream in streams] == [1, 1]
        passes.run()
        passes.run()
        assert [stream.stats.frames for stream in streams] == [2, 2]
        assert all(stream.stats.seconds > 0 for stream in streams)


def test_what_frames_cost_is_measured_once_in_passes_of_several(monkeypatch):
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5).eval()
    eventful.convert(model, policy=eventful.Auto(time=0.5))
    passes, taken = Together(), []

    def timed(*args, beside):
        taken.append(beside)
        return Costs(dense=100.0, carried=3.0, held=1.0, partial=6.0, token=0.4)

    monkeypatch.setattr(measure, "timed_costs", timed)
    streams = [eventful.Stream(model) for _ in range(3)]
    for stream in streams:
        stream.ask(passes, torch.rand(1, 3, 64, 64))
    assert taken == [Together.USUAL]
    assert {stream.costs for stream in streams} == {timed(beside=1)}
    eventful.Stream(model)(torch.rand(1, 3, 64, 64))
    assert taken[-1] == 1


def test_measuring_shared_passes_leaves_what_is_remembered(monkeypatch):
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5).eval()
    eventful.convert(model, policy=eventful.Auto(time=0.9))
    video = torch.rand(5, 1, 3, 64, 64)
    known = Costs(dense=100.0, carried=3.0, held=1.0, partial=6.0, token=0.4)
    timed = measure.timed_costs
    monkeypatch.setattr(measure, "timed_costs", lambda *a, **k: timed(*a, **k) and known)
    passes, measured, told = Together(), eventful.Stream(model), eventful.Stream(model, costs=known)
    for frame in video:
        tickets = [stream.ask(passes, frame) for stream in (measured, told)]
        passes.run()
        assert torch.equal(*(ticket.output for ticket in tickets))
