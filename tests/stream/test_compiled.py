"""Streams that compile: the same outputs, and frames undone.

What is compiled runs as it is (`uncompiled`), which is quick.
"""

import pytest
import torch

import eventful
from eventful.attention import Incremental
from eventful.block.gating import first_frame, update
from eventful.stream import compiled
from tests.stream.compiling import CUTS, LIMIT, POLICY, assert_same_work, spoilt, twins, with_cuts
from tests.zoo import FAMILIES, clip, relative, same


@pytest.fixture
def uncompiled(monkeypatch):
    """Blocks do fixed work that can be undone, but are not compiled."""
    monkeypatch.setattr(compiled, "steps", lambda compile: (first_frame, update))


def remembered(stream):
    """A snapshot without what attention keeps, which follows from the buffers."""
    saved = stream.snapshot()
    saved["engine"]["tensors"] = {
        name: {key: tensor for key, tensor in tensors.items() if not key.startswith("attention")}
        for name, tensors in saved["engine"]["tensors"].items()
    }
    for part in ("digest", "turns"):
        del saved["engine"][part]
    return saved


def views(stream):
    return [tuple(stream.gate(name)) for name in stream.gates]


@pytest.mark.usefixtures("uncompiled")
class TestOutputs:
    @pytest.mark.parametrize("attention", ["incremental", "dense"])
    @pytest.mark.parametrize("name", FAMILIES)
    def test_are_those_of_an_eager_stream(self, name, attention):
        ours, eager = twins(name, attention=attention)
        for frame in clip(12, dtype=torch.float64):
            assert relative(ours(frame), eager(frame)) < LIMIT
            assert_same_work(ours, eager)
        assert ours.stats.fallbacks == 0

    @pytest.mark.parametrize(
        "options",
        [
            {"gate": "stgt"},
            {"gate_before_norm": True},
            {"prefix": "gated"},
            {"state_dtype": torch.bfloat16},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("name", ["registers", "sam"])
    def test_are_those_with_every_option(self, name, options):
        ours, eager = twins(name, **options)
        for frame in clip(8, dtype=torch.float64):
            assert relative(ours(frame), eager(frame)) < LIMIT
            assert_same_work(ours, eager)

    @pytest.mark.parametrize("name", ["plain", "sam"])
    def test_are_those_while_the_policy_moves(self, name):
        ours, eager = twins(name)
        policies = (POLICY, eventful.TopFraction(0.5), eventful.KeepAll(), eventful.TopR(1))
        for t, frame in enumerate(clip(12, dtype=torch.float64)):
            ours.policy = eager.policy = policies[t % 4]
            if t == 6:
                ours.policy = eager.policy = {"blocks.1.*": eventful.TopR(7)}
            assert relative(ours(frame), eager(frame)) < LIMIT
            assert_same_work(ours, eager)

    def test_are_those_after_resets(self):
        ours, eager = twins("dinov3")
        for frame, rows in zip(
            clip(9, batch=3, dtype=torch.float64),
            ((), [1], (), (), [0, 2], None, (), [2], ()),
            strict=True,
        ):
            if rows != ():
                ours.reset(rows), eager.reset(rows)
            assert relative(ours(frame), eager(frame)) < LIMIT
            assert_same_work(ours, eager)

    def test_are_those_after_a_snapshot_of_either_kind(self):
        video = clip(9, dtype=torch.float64)
        for before in (0, 1):
            pair = twins("sam")
            for frame in video[:4]:
                pair[before](frame)
            saved = pair[before].snapshot()
            for stream in pair:
                stream.load_snapshot(saved)
            for frame in video[4:]:
                assert relative(pair[0](frame), pair[1](frame)) < LIMIT
                assert pair[0].stats.updated == pair[1].stats.updated
                assert pair[0].stats.operations == pair[1].stats.operations

    def test_leave_nothing_behind_for_undoing(self):
        ours, _ = twins("registers")
        for frame in clip(3, dtype=torch.float64):
            ours(frame)
            for block in ours._bound.blocks.values():
                state = block.binding.state
                parts = (*state.gates.values(), *state.buffers.values())
                assert [part.before for part in parts] == [None] * 6


BAD = {"NaN": torch.nan, "infinity": torch.inf}


@pytest.mark.usefixtures("uncompiled")
class TestFramesWithNaN:
    """The frame is computed before anyone looks at it, and then taken back."""

    @pytest.mark.parametrize("value", BAD)
    @pytest.mark.parametrize("gate", ["token", "stgt"])
    @pytest.mark.parametrize("name", ["plain", "registers", "dinov3", "gated", "sam"])
    def test_never_came(self, name, gate, value):
        stream, _ = twins(name, gate=gate)
        control, _ = twins(name, gate=gate)
        for t, frame in enumerate(clip(9, dtype=torch.float64)):
            if t in (3, 6):
                before, seen, stats = remembered(stream), views(stream), str(stream.stats)
                with pytest.raises(ValueError, match=f"frame {t} holds NaN or infinity"):
                    stream(spoilt(frame, BAD[value]))
                assert same(remembered(stream), before)
                assert same(views(stream), seen)
                assert str(stream.stats) == stats
            assert relative(stream(frame), control(frame)) < LIMIT
            assert stream.stats.updated == control.stats.updated
        assert stream.stats.flushes == control.stats.flushes
        assert stream.stats.fallbacks == 0

    @pytest.mark.parametrize("state_dtype", [torch.bfloat16, torch.float32])
    def test_never_came_with_narrow_state(self, state_dtype):
        stream, _ = twins("sam", state_dtype=state_dtype)
        video = clip(4, dtype=torch.float64)
        for frame in video[:3]:
            stream(frame)
        before = remembered(stream)
        with pytest.raises(ValueError, match="frame 3 holds NaN"):
            stream(spoilt(video[3]))
        assert same(remembered(stream), before)

    @pytest.mark.parametrize("after", ["another", "a reset of a row", "a reset", "a cut"])
    def test_are_refused_whatever_came_before(self, after):
        """Where a frame is not computed as the others are, it is looked at first."""
        stream, _ = twins("plain", scene_cuts=CUTS if after == "a cut" else None)
        control, _ = twins("plain", scene_cuts=CUTS if after == "a cut" else None)
        video = clip(6, dtype=torch.float64)
        for frame in video[:4]:
            stream(frame), control(frame)
        if after == "another":
            with pytest.raises(ValueError, match="frame 4 holds NaN"):
                stream(spoilt(video[4]))
        if after == "a cut":
            video[4:, 0] = clip(1, dtype=torch.float64, seed=9)[0, 0]
        if after.startswith("a reset"):
            rows = [1] if "row" in after else None
            stream.reset(rows), control.reset(rows)
        before = remembered(stream)
        for _ in range(2):
            with pytest.raises(ValueError, match="frame 4 holds NaN"):
                stream(spoilt(video[4]))
            assert same(remembered(stream), before)
        for frame in video[4:]:
            assert relative(stream(frame), control(frame)) < LIMIT
            assert stream.stats.updated == control.stats.updated
        assert stream.stats.flushes == control.stats.flushes

    def test_are_refused_at_first_and_at_another_size(self):
        stream, _ = twins("sam")
        frame, second = clip(2, dtype=torch.float64)
        with pytest.raises(ValueError, match="frame 0 holds NaN"):
            stream(spoilt(frame))
        assert stream.stats.frames == 0
        stream(frame)
        before = remembered(stream)
        with pytest.raises(ValueError, match="frame 1 holds NaN"):
            stream(spoilt(torch.cat([frame, frame], dim=2)))
        assert same(remembered(stream), before)
        stream(second)
        assert stream.stats.flush_reasons == {"first frame": 2}


@pytest.mark.usefixtures("uncompiled")
class TestSceneCuts:
    @pytest.mark.parametrize("rows", [[0], [1], [0, 1]], ids=str)
    @pytest.mark.parametrize("name", ["plain", "dinov3", "sam"])
    def test_are_found_and_flushed_as_in_an_eager_stream(self, name, rows):
        ours, eager = twins(name, scene_cuts=CUTS)
        for frame in with_cuts(rows):
            assert relative(ours(frame), eager(frame)) < LIMIT
            assert ours.stats.updated == eager.stats.updated
            assert list(ours.stats.flushes) == list(eager.stats.flushes)
            pairs = zip(ours._engine._histories, eager._engine._histories, strict=True)
            assert all([*one] == pytest.approx([*other]) for one, other in pairs)
            assert [len(history) for history in ours._engine._histories] == [
                len(history) for history in eager._engine._histories
            ]
        cuts = [(flush.frame, flush.row) for flush in ours.stats.flushes if flush.frame]
        assert cuts == [(5, row) for row in rows]
        assert ours.stats.flush_reasons["scene cut"] == len(rows)
        assert ours.stats.fallbacks == 0

    def test_fall_on_one_frame_with_a_requested_row(self):
        ours, eager = twins("plain", scene_cuts=CUTS)
        for t, frame in enumerate(with_cuts([0])):
            if t == 5:
                ours.reset([1]), eager.reset([1])
            assert relative(ours(frame), eager(frame)) < LIMIT
        assert list(ours.stats.flushes) == list(eager.stats.flushes)
        assert ours.stats.flush_reasons == {"first frame": 2, "scene cut": 1, "requested": 1}


@pytest.mark.usefixtures("uncompiled")
class TestOverflow:
    """More rows must be computed anew than there is room for, as on devices that cannot look."""

    @pytest.fixture(autouse=True)
    def little_room(self, monkeypatch):
        monkeypatch.setattr(compiled, "must_bound", lambda device: True)
        room = Incremental.rotated_rows
        monkeypatch.setattr(Incremental, "spare_rows", room)

    @pytest.mark.parametrize("name", ["plain", "registers", "sam"])
    def test_falls_back_to_attention_from_the_buffers(self, name):
        ours, eager = twins(name)
        fallbacks = []
        for frame in clip(30, dtype=torch.float64):
            before = ours.stats.fallbacks
            output = ours(frame)
            fallbacks.append(ours.stats.fallbacks - before)
            assert relative(output, eager(frame)) < LIMIT
            assert ours.stats.updated == eager.stats.updated
            global_block = ours._bound.blocks["blocks.1"].binding.state.attention
            if fallbacks[-1]:
                tokens = len(ours.gate("blocks.1.qkv").updated[0])
                assert global_block.corrected == (0, 0)
                assert global_block.recomputed == (tokens, tokens)
        assert set(fallbacks) == {0, 1}
        assert eager.stats.fallbacks == 0
        assert set(ours.stats.flush_reasons) == {"first frame"}

    def test_is_not_missed(self, monkeypatch):
        """Without the fallback outputs would be wrong."""
        ours, eager = twins("plain")
        read = compiled.read
        blind = []

        def careless(*arguments):
            verdict = read(*arguments)
            blind.append(verdict.overflow)
            return verdict._replace(overflow=False)

        monkeypatch.setattr(compiled, "read", careless)
        errors = [relative(ours(frame), eager(frame)) for frame in clip(30, dtype=torch.float64)]
        assert any(blind)
        assert max(errors) > 10 * LIMIT

    def test_with_nan_is_a_frame_that_never_came(self):
        ours, eager = twins("plain")
        for frame in clip(12, dtype=torch.float64):
            if ours.stats.frames:
                with pytest.raises(ValueError, match="NaN"):
                    ours(spoilt(frame))
            assert relative(ours(frame), eager(frame)) < LIMIT


@pytest.mark.usefixtures("uncompiled")
class TestRefusals:
    @pytest.mark.parametrize("attention", ["cached", "query_key"])
    def test_of_forms_of_attention_that_do_not_compile(self, attention):
        with pytest.raises(ValueError, match=rf"blocks\.0 was converted with .*{attention}"):
            twins("plain", attention=attention)

    MEND = r"fixed number of tokens, such as TopR\(256\).*blocks\.0\.qkv has threshold:1\.5"

    def test_of_a_threshold_on_the_first_frame(self):
        stream, eager = twins("plain", eventful.Threshold(1.5))
        frame = clip(1, dtype=torch.float64)[0]
        with pytest.raises(ValueError, match=self.MEND):
            stream(frame)
        assert stream.stats.frames == 0
        with pytest.raises(ValueError, match="before the first frame"):
            stream.snapshot()
        stream.policy = eager.policy = POLICY
        for frame in clip(3, dtype=torch.float64):
            assert relative(stream(frame), eager(frame)) < LIMIT

    @pytest.mark.parametrize("gates", ["*", "blocks.0.qkv"])
    def test_of_a_threshold_later(self, gates):
        stream, eager = twins("sam")
        video = clip(6, dtype=torch.float64)
        for frame in video[:3]:
            stream(frame), eager(frame)
        before, seen = stream.snapshot(), views(stream)
        stream.policy = {gates: eventful.Threshold(1.5)}
        for _ in range(2):
            with pytest.raises(ValueError, match=self.MEND):
                stream(video[3])
        stream.policy = POLICY
        assert same(stream.snapshot(), before)
        assert same(views(stream), seen)
        for frame in video[3:]:
            assert relative(stream(frame), eager(frame)) < LIMIT
        assert stream.stats.flush_reasons == {"first frame": 2}

    def test_of_a_model_that_fails_halfway(self):
        """The next frame is computed in full, as without compiling."""
        stream, eager = twins("plain")
        video = clip(6, dtype=torch.float64)
        for frame in video[:3]:
            stream(frame), eager(frame)

        def fails(*_):
            raise ZeroDivisionError

        norm = stream._bound.model.blocks[2].norm2
        hook = norm.register_forward_pre_hook(fails)
        for each in (stream, eager):
            with pytest.raises(ZeroDivisionError):
                each(video[3])
        hook.remove()
        for frame in video[3:]:
            assert relative(stream(frame), eager(frame)) < LIMIT
        assert list(stream.stats.flushes) == list(eager.stats.flushes)
        assert stream.stats.flush_reasons["interrupted"] == 2


@pytest.mark.usefixtures("uncompiled")
class TestPrepare:
    def test_leaves_the_stream_as_it_is(self):
        stream, eager = twins("plain", scene_cuts=CUTS)
        video = clip(5, dtype=torch.float64)
        stream.prepare(video[0], [eventful.TopR(2), eventful.KeepAll()])
        assert stream.stats.frames == 0
        for frame in video[:3]:
            stream(frame), eager(frame)
        before, seen = stream.snapshot(), views(stream)
        stream.prepare(video[4], [eventful.TopR(2), {"*.mlp": eventful.TopR(5)}])
        assert same(stream.snapshot(), before)
        assert same(views(stream), seen)
        assert stream.policy == POLICY
        for frame in video[3:]:
            assert relative(stream(frame), eager(frame)) < LIMIT

    def test_runs_what_the_policy_will_be_set_to(self, monkeypatch):
        """Gates that a mapping leaves out keep what they have now, not what `convert` said."""
        stream, _ = twins("plain")
        stream.policy = {"*.qkv": eventful.TopR(9)}
        seen = []
        run = eventful.Stream.__call__

        def noting(self, frame):
            output = run(self, frame)
            seen.append({name: counts[0] for name, counts in self.stats.updated.items()})
            return output

        monkeypatch.setattr(eventful.Stream, "__call__", noting)
        frame = clip(1, dtype=torch.float64)[0]
        stream.prepare(frame, [{"*.mlp": eventful.TopR(5)}, eventful.TopR(2)])
        stages = {"qkv": 10, "proj": 4, "mlp": 6}
        expected = {f"blocks.{i}.{stage}": n for i in range(3) for stage, n in stages.items()}
        assert seen[1] == expected
        assert set(seen[3].values()) == {3}

    def test_does_nothing_without_compiling(self):
        _, eager = twins("plain")
        eager.prepare(torch.zeros(1), [eventful.TopR(1000)])
        assert eager.stats.frames == 0

    def test_refuses_what_a_frame_would(self):
        stream, _ = twins("plain")
        with pytest.raises(ValueError, match="fixed number of tokens"):
            stream.prepare(clip(1, dtype=torch.float64)[0], [eventful.Threshold(1.0)])
