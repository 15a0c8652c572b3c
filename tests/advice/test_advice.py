"""`eventful.advice`: what it foretells, held against streams, dense outputs and plain counting."""

import itertools
from statistics import fmean

import pytest
import timm
import torch

import eventful
from eventful.advice import Expectation, Price, Range, Skipping, advise, advising
from eventful.advice.expectation import ranged
from eventful.advice.footage import Watch
from eventful.advice.replay import Step, replay
from eventful.advice.samples import Taker, windows
from eventful.advice.skipping import held_errors, skipping
from eventful.advice.verdict import verdict
from eventful.policies import Auto
from eventful.stream.costs import Costs
from eventful.stream.gain import LONGEST
from eventful.stream.probe import Probe

COSTS = Costs(dense=100.0, carried=5.0, held=1.0, partial=60.0, token=5.0)  # nothing in part
CHEAP = Costs(dense=100.0, carried=5.0, held=4.9, partial=6.0, token=0.1)  # partial frames pay
SIDE = 96


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=SIDE, num_classes=0).eval()
    return eventful.convert(model)


@pytest.fixture(scope="module")
def video():
    """Coarse noise that moves, and in a part changes; another scene from frame 40 on."""
    generator = torch.Generator().manual_seed(1)
    ground = torch.rand(2, 1, 3, 24, 60, generator=generator)
    ground = torch.nn.functional.interpolate(ground.flatten(0, 1), scale_factor=6, mode="bicubic")
    frames = []
    for number in range(56):
        frame = ground[number // 40, :, :SIDE, number : number + SIDE].clamp(0, 1)[None].clone()
        frame[..., 30:54, 30:54] *= 0.5 + 0.4 * torch.rand((), generator=generator)
        frames.append(frame)
    frames[5] = frames[4].clone()
    return frames


def stream_of(model, policy, costs=COSTS):
    options = {"method": "forward_features", "check": False, "costs": costs}
    return eventful.Stream(model, policy=policy, **options)


class Runner:
    def __init__(self, stream):
        self.stream, self.ran = stream, 0

    def frame(self, prepared):
        return prepared

    def eventful(self, prepared):
        self.ran += 1
        return self.stream(prepared)

    def dense(self, prepared):
        return None, 90.0


@pytest.fixture(scope="module")
def seen(model, video):
    """A probe, the footage, and one window of which every frame up to the cut is dense."""
    return look(model, video, COSTS)


def look(model, video, costs):
    stream = stream_of(model, Auto(), costs)
    stream(video[0])
    probe = Probe(stream)
    watch = Watch(probe, 25.0)
    for frame in video:
        watch.add(frame)
    footage = watch.footage()
    outputs = []
    for frame in video:
        stream.reset([0])
        stream(frame)
        outputs.append(probe.outputs)
    return probe, footage, outputs


def window_of(probe, footage, outputs, video, dense):
    taker = Taker(probe, footage, dense)
    for number in range(dense[0], dense[-1] + 1):
        taker.add(video[number], outputs[number] if number in dense else None)
    return taker.window()


def test_a_probe_finds_the_errors_that_dense_frames_of_a_stream_find(model, video, seen):
    probe, _, outputs = seen
    stream, before, checked = stream_of(model, Auto(max_error=0.15)), 0, 0
    pictures = [probe.picture(frame) for frame in video]
    for number, frame in enumerate(video):
        stream(frame)
        (row,) = stream.stats.rows
        if row.kind != "dense":
            assert row.kind in ("carried", "held")
            continue
        if row.error is not None:
            rest = slice(before, number + 1)
            check = probe.moved(pictures[rest], outputs[rest])[number - before]
            assert row.error == pytest.approx(check.shown, rel=1e-3) or row.error == pytest.approx(
                check.held, rel=1e-3
            )
            checked += 1
        before = number
    assert checked > 3


def test_recomputed_tokens_lessen_what_a_probe_finds(video, seen):
    probe, _, outputs = seen
    pictures = [probe.picture(frame) for frame in video[:6]]
    errors = [probe.moved(pictures, outputs[:6], level)[4].shown for level in (0, 3, 5)]
    assert errors[0] > errors[1] > errors[2] > 0


def test_footage_is_what_a_stream_sees(model, video, seen):
    probe, footage, _ = seen
    assert footage.frames == len(video)
    assert footage.still == {5}
    stream = stream_of(model, Auto())
    for frame in video:
        stream(frame)
    assert list(footage.cuts) == [f.frame for f in stream.stats.flushes if f.reason == "scene cut"]
    assert footage.cuts == (40,)
    assert footage.distances.shape == (LONGEST + 1, len(video))
    for before, now in ((0, 1), (3, 9), (10, 50)):
        view = probe.view(probe.picture(video[before]))
        exact = view.distance(probe.picture(video[now]))
        assert footage.distance(before, now) == pytest.approx(exact, rel=0.05)
    assert footage.joined(0, 39)
    assert not footage.joined(39, 40)
    assert footage.moving == 1


@pytest.mark.parametrize("costs", [COSTS, CHEAP])
@pytest.mark.parametrize("error", [0.05, 0.1, 0.2])
def test_a_replay_costs_what_the_stream_costs_where_all_is_known(model, video, costs, error):
    probe, footage, outputs = look(model, video, costs)
    parts = [tuple(range(9)), tuple(range(9, 18)), tuple(range(18, 27)), tuple(range(27, 40)),
             tuple(range(40, 56))]  # fmt: skip
    known = [window_of(probe, footage, outputs, video, part) for part in parts]
    patches = probe.layout.grid[0] * probe.layout.grid[1]
    steps = replay(Auto(max_error=error), costs, patches, footage, known)
    stream, kinds = stream_of(model, Auto(max_error=error), costs), []
    for frame in video:
        stream(frame)
        kinds.append(stream.stats.rows[0].kind)
    assert [kinds[n] for n in (0, 5, 40)] == [steps[n].kind for n in (0, 5, 40)]
    price = Price(costs, probe.counted, costs.dense)
    assert price.operations(steps) == pytest.approx(1 / stream.stats.ratio, rel=0.25)


def test_windows_lie_apart_within_the_video():
    for frames in (12, 39, 80, 300, 5000):
        found = windows(frames)
        numbers = [*itertools.chain(*found)]
        assert numbers == sorted(set(numbers))
        assert 0 <= numbers[0] <= numbers[-1] < frames
        assert len(numbers) <= max(12, frames / 3)
        assert len(found) <= 6


def test_pairs_across_a_cut_are_left_out(video, seen):
    probe, footage, outputs = seen
    window = window_of(probe, footage, outputs, video, (36, 38, 39, 41, 43))
    assert {sample.age for sample in window.samples} == {1, 2, 3}


def test_held_errors_are_those_of_all_pairs(video, seen):
    probe, footage, outputs = seen
    dense = [(name, [one[name] for one in outputs]) for name in outputs[0]]
    ((_, tokens),) = dense
    norm = next(iter(probe._engine.taps.norms.values()))
    exact = [norm(one) for one in tokens]
    known = [window_of(probe, footage, outputs, video, tuple(range(40)))]
    found = held_errors(footage, known)
    for age in (1, 3, 6):
        pairs = [(exact[n], exact[n - age]) for n in range(age, 40)]
        wanted = fmean(((a - b).norm() / a.norm()).item() for a, b in pairs)
        assert found[age] == pytest.approx(wanted, rel=0.15)


def test_skipping_costs_what_counting_says():
    held, price = [0.0, 0.1, 0.2, 0.3], Price(COSTS, COSTS, 80.0)
    assert skipping(0.0, held, price) == Skipping(1.0, 1.0, 80.0)
    third = skipping(0.1, held, price)  # means of 0, 0.1, 0.2
    assert third.every == pytest.approx(3)
    assert third.operations == pytest.approx((1 + 2 * 0.01) / 3)
    assert third.milliseconds == pytest.approx((80 + 2 * 1.0) / 3)
    assert skipping(9.0, held, price).every == pytest.approx(4)  # no more is known


def test_ranges_grow_with_the_spread_between_windows():
    narrow, wide = ranged(0.2, [0.19, 0.21], 1.0), ranged(0.2, [0.1, 0.4], 1.0)
    assert wide.low < narrow.low < 0.2 < narrow.high < wide.high <= 1
    assert ranged(1.2, [], 1.0) == Range(1.2, pytest.approx(0.938, abs=1e-3), 1.2)


def expectation(error, time, every):
    found = Range(time, time, time)
    skipped = Skipping(every, 1 / every, 100 / every)
    return Expectation(error, found, found.times(100), found, {}, skipped, 1 / every)


@pytest.mark.parametrize(
    ("times", "every", "use", "policy"),
    [
        ((0.5, 0.3, 0.2), (1.5, 2.5, 3.5), "auto", "error:0.15"),
        ((0.9, 0.8, 0.5), (1.1, 1.2, 1.3), "auto", "error:0.2"),
        ((0.6, 0.5, 0.4), (1.5, 2.1, 3.1), "skip", "skip:2"),
        ((0.6, 0.6, 0.4), (1.5, 1.9, 3.1), "auto", "error:0.15"),  # there is no skip:1.9
        ((1.3, 1.2, 1.1), (1.1, 1.2, 1.3), "nothing", None),
    ],
)
def test_the_verdict_is_for_what_takes_least_time(times, every, use, policy):
    found = verdict([*map(expectation, (0.1, 0.15, 0.2), times, every)])
    assert (found.use, found.policy) == (use, policy)


def test_advice_runs_the_model_on_a_third_of_the_frames_at_most(model, video):
    runner, told = Runner(stream_of(model, Auto())), []
    advice = advise(lambda: iter(video), runner, 25.0, progress=lambda *args: told.append(args))
    assert runner.ran == advice.dense_frames + 1
    assert advice.dense_frames <= len(video) / 3
    assert advice.price.dense_ms == 90
    assert [one.error for one in advice.expectations] == [0.1, 0.15, 0.2]
    assert told[-1] == ("running the model on samples", advice.dense_frames, advice.dense_frames)
    again = advise(lambda: iter(video), Runner(stream_of(model, Auto())), 25.0)
    assert again.expectations == advice.expectations


def test_no_frames_and_too_few_are_refused(model, video):
    with pytest.raises(ValueError, match="no frame"):
        advise(lambda: iter(()), Runner(stream_of(model, Auto())), 25.0)
    with pytest.raises(ValueError, match="7 frames can foretell nothing"):
        advise(lambda: iter(video[:7]), Runner(stream_of(model, Auto())), 25.0)


def test_scenes_too_short_to_compare_frames_of_are_refused(model, video, monkeypatch):
    monkeypatch.setattr(advising, "windows", lambda frames, most: [(3,), (20,)])
    with pytest.raises(ValueError, match="the scene is cut 1 times in 56 frames"):
        advise(lambda: iter(video), Runner(stream_of(model, Auto())), 25.0)


def test_a_probe_needs_a_stream_that_has_run(model, video):
    with pytest.raises(ValueError, match="that has run a frame"):
        Probe(stream_of(model, Auto()))
    stream = stream_of(model, eventful.Skip(2))
    stream(video[0])
    with pytest.raises(ValueError, match="under Auto"):
        Probe(stream)


def test_steps_are_priced_by_kind():
    steps = [Step("dense"), Step("partial", 3), Step("carried"), Step("held")]
    price = Price(COSTS, CHEAP, 90.0)
    assert price.milliseconds(steps) == pytest.approx((100 + 60 + 15 + 5 + 1) / 4)
    assert price.operations(steps) == pytest.approx((100 + 6.3 + 5 + 4.9) / 400)
