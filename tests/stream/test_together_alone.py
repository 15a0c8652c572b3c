"""Frames handed in to shared passes that fail, or that have to be computed alone."""

import numpy as np
import pytest
import torch
from torch import nn

import eventful
from eventful import Auto, Together, TopR
from tests.laws.frames import NoMotion, Script, flow_is, kinds, scripted
from tests.stream.shared_passes import (
    DOUBLE,
    asked,
    dense,
    raising,
    rows_run,
    streams_of,
    written,
)
from tests.zoo import build, clip, relative


@pytest.fixture(autouse=True)
def _no_motion(monkeypatch):
    flow_is(monkeypatch, NoMotion)


@pytest.fixture
def model():
    return eventful.convert(build("plain", DOUBLE), Auto(share=0.5))


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
