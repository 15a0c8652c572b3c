"""Frames handed in to passes that streams share: what waits, of what kinds, in what order."""

import pytest
import timm
import torch
from torch import nn

import eventful
from eventful import Auto, Budget, Carry, Costs, Together, TopR
from eventful.stream import measure
from tests.laws.frames import NoMotion, flow_is, kinds, scripted
from tests.stream.shared_passes import DOUBLE, asked, dense, rows_run, streams_of, written
from tests.zoo import build, clip, relative


@pytest.fixture(autouse=True)
def _no_motion(monkeypatch):
    flow_is(monkeypatch, NoMotion)


@pytest.fixture
def model():
    return eventful.convert(build("plain", DOUBLE), Auto(share=0.5))


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
