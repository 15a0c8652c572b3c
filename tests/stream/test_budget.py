"""A budget that streams share: its mean holds, it goes where pictures change, rounds are even."""

import random
import threading
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import timm
import torch

import eventful
from eventful import Auto, Budget, Carry, Costs, KeepAll, Skip
from eventful.stream.automatic import Automatic
from eventful.stream.budget import Wish
from eventful.stream.plan import Check

COSTS = Costs(dense=100.0, carried=3.0, held=3.0, partial=6.0, token=0.4)
PATCHES = 256


class Camera:
    """A plan on a made-up picture whose distance and true error grow with age at a speed."""

    def __init__(self, policy, budget, speed, costs=COSTS):
        self.plan = Automatic(policy, costs, PATCHES, budget=budget)
        self.speed, self.costs, self.age = speed, costs, 0
        self.kinds, self.spent, self.errors = Counter(), costs.dense, []

    def frame(self):
        self.age += 1
        error = self.speed * self.age**0.6
        choice = self.plan.decide(None if self.speed == 0 else error)
        self.kinds[choice.kind] += 1
        if choice.kind == "dense":
            even = torch.ones(PATCHES) / PATCHES
            self.plan.learn(Check(error, 2 * error, even * error**2, even * 4 * error**2, even))
            self.age, cost = 0, self.costs.dense
        else:
            cost = self.costs.held if choice.kind == "held" else self.costs.of(choice.tokens)
        self.spent += cost
        self.errors.append(self.speed * self.age**0.6)
        return cost


def run(speeds, share=0.1, frames=300, shared=True, costs=COSTS):
    budget = Budget() if shared else None
    cameras = [Camera(Auto(share=share), budget, speed, costs) for speed in speeds]
    rounds = [sum(camera.frame() for camera in cameras) for _ in range(frames - 1)]
    used = sum(camera.spent for camera in cameras) / frames / len(cameras) / costs.dense
    return cameras, np.array(rounds), used


HALF_STILL = [0.004] * 8 + [0.1] * 8


@pytest.mark.parametrize("share", [0.08, 0.1, 0.15, 0.2, 0.35])
@pytest.mark.parametrize("speeds", [HALF_STILL, [0.05] * 5, [0.0] * 3 + [0.1] * 6, [0.03]])
def test_the_mean_share_holds_over_all_streams(share, speeds):
    _, _, used = run(speeds, share, frames=500)
    assert used == pytest.approx(share, rel=0.03, abs=1.1 / 500 / len(speeds))


def test_dense_frames_go_where_pictures_change():
    cameras, _, _ = run(HALF_STILL)
    still, moving = ([c.kinds["dense"] for c in half] for half in (cameras[:8], cameras[8:]))
    assert max(still) < 0.5 * min(moving)
    alone, _, _ = run(HALF_STILL, shared=False)
    before, now = (np.mean([c.errors for c in some[8:]]) for some in (alone, cameras))
    assert now < 0.85 * before


def test_streams_alike_get_alike():
    cameras, _, _ = run([0.05] * 7, share=0.2)
    dense = [camera.kinds["dense"] for camera in cameras]
    assert max(dense) <= 1.15 * min(dense)


@pytest.mark.parametrize("share", [0.1, 0.12, 0.16, 0.2, 0.3])
def test_rounds_of_many_streams_cost_the_same(share):
    random.seed(0)
    speeds = [random.uniform(0.002, 0.1) for _ in range(16)]
    _, rounds, _ = run(speeds, share, frames=600)
    late = rounds[150:]  # the first frames are paid off
    assert np.percentile(late, 95) <= 1.3 * np.median(late)


def test_what_a_round_has_left_goes_to_tokens():
    cameras, _, _ = run(HALF_STILL, share=0.1)  # pays for 1.15 dense frames a round
    assert sum(camera.kinds["partial"] for camera in cameras) > 100
    cameras, _, _ = run(HALF_STILL, share=0.145)  # for 1.9: two on most rounds
    assert sum(camera.kinds["partial"] for camera in cameras) == 0


def test_a_stream_alone_does_as_its_plan_alone():
    (own,), _, _ = run([0.05], 0.15, 400, shared=False)
    (only,), _, _ = run([0.05], 0.15, 400)
    assert only.kinds["dense"] == pytest.approx(own.kinds["dense"], abs=2)
    assert np.mean(only.errors) == pytest.approx(np.mean(own.errors), rel=0.05)


def test_the_part_of_a_stream_that_goes_comes_to_the_others():
    budget = Budget()
    cameras = [Camera(Auto(share=0.1), budget, 0.1) for _ in range(6)]
    for _ in range(100):
        for camera in cameras:
            camera.frame()
    left = cameras[:3]
    before = sum(camera.spent for camera in left)
    for _ in range(300):
        for camera in left:
            camera.frame()
    used = (sum(camera.spent for camera in left) - before) / 300 / 3 / COSTS.dense
    assert used == pytest.approx(0.1, rel=0.05)


def test_streams_of_other_rates_share_it_too():
    budget = Budget()
    cameras = [Camera(Auto(share=0.15), budget, 0.05) for _ in range(8)]
    every = [1, 1, 1, 2, 2, 3, 5, 5]  # one frame in so many ticks
    for tick in range(900):
        for camera, period in zip(cameras, every, strict=True):
            if tick % period == 0:
                camera.frame()
    frames = [len(camera.errors) + 1 for camera in cameras]
    used = sum(camera.spent for camera in cameras) / sum(frames) / COSTS.dense
    assert used == pytest.approx(0.15, rel=0.05)
    shares = [camera.kinds["dense"] / n for camera, n in zip(cameras, frames, strict=True)]
    assert max(shares) < 1.6 * min(shares)  # by its own frames, each gets the same


def test_streams_of_other_sizes_pay_what_they_cost():
    budget = Budget()
    large = Costs(dense=400.0, carried=12.0, held=12.0, partial=24.0, token=1.6)
    cameras = [Camera(Auto(share=0.15), budget, 0.05, costs) for costs in [COSTS, large] * 4]
    for _ in range(500):
        for camera in cameras:
            camera.frame()
    used = sum(camera.spent for camera in cameras) / sum(501 * c.costs.dense for c in cameras)
    assert used == pytest.approx(0.15, rel=0.03)
    small, big = (sum(c.kinds["dense"] for c in cameras[n::2]) for n in (0, 1))
    assert small > 1.2 * big  # an error costs four times as much to mend there


def test_no_stream_goes_unchecked_for_ever():
    cameras, _, _ = run([0.001] * 4 + [0.1] * 12, share=0.15, frames=300)
    assert all(camera.kinds["dense"] >= 3 for camera in cameras[:4])


def test_the_index_counts_the_error_now_against_what_there_was():
    e = [0.1, 0.2, 0.25, 0.4]
    saved = sum(e[-1] - 0.75 * each for each in e) + e[-1]
    assert Budget.index(4, e[-1], sum(e)) == pytest.approx(saved)
    rising = [Budget.index(n, e[n - 1], sum(e[:n])) for n in range(1, 5)]
    assert all(before < after for before, after in pairwise(rising))


def test_units_do_not_mix():
    budget = Budget()
    Automatic(Auto(share=0.2), Costs(100.0, 3.0, 3.0, 6.0, 0.4, "operations"), 64, budget=budget)
    with pytest.raises(ValueError, match="counts ms, the others operations"):
        Automatic(Auto(time=0.2), COSTS, 64, budget=budget)


def test_it_may_be_asked_from_many_threads():
    budget, wishes = Budget(), 2000
    spent = []

    def stream():
        row, own = budget.join("ms"), 0.0
        for number in range(wishes):
            wish = Wish(saves=number % 7 + 1.0, earned=10.0, usual=3.0, dense=100.0)
            more = budget.ask(row, wish)
            budget.pay(wish, 3.0 + more)
            own += 3.0 + more
        spent.append(own)

    threads = [threading.Thread(target=stream) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(spent) / (4 * wishes) == pytest.approx(10.0, rel=0.05)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = timm.create_model("test_vit", img_size=64, num_classes=0).eval()
    return eventful.convert(made, policy=Auto(share=0.3))


def noise(seed, count):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 3, 64, 64, generator=generator) for _ in range(count)]


def test_real_streams_share_and_tell_why(model):
    budget = Budget()
    streams = [eventful.Stream(model, budget=budget, scene_cuts=None) for _ in range(3)]
    still, frames, reasons = noise(9, 1)[0], noise(1, 60), set()
    for frame in frames:
        streams[0](still)
        for stream in streams[1:]:
            stream(frame)
            reasons |= {row.reason for row in stream.stats.rows}
    used = sum(s.stats.total_operations for s in streams)
    assert used == pytest.approx(
        0.3 * sum(s.stats.total_dense_operations for s in streams), rel=0.1
    )
    assert streams[0].stats.kinds == {"dense": 1, "held": 59}
    assert "it saves most" in reasons


@pytest.mark.parametrize(
    "policy", [Auto(max_error=0.1), Auto(latency_ms=5), Auto(share=0.2, worst=0.5), Skip(2)]
)
def test_other_policies_refuse_a_budget_by_name(model, policy):
    with pytest.raises(ValueError, match=f"share=.*got {policy}"):
        eventful.Stream(model, policy=policy, budget=Budget())
    stream = eventful.Stream(model, budget=Budget())
    with pytest.raises(ValueError, match="budget="):
        stream.policy = policy
    stream.budget = None
    stream.policy = policy
    with pytest.raises(ValueError, match="budget="):
        stream.budget = Budget()


def test_token_policies_refuse_it_too(model):
    with pytest.raises(ValueError, match="budget="):
        eventful.Stream(model, policy=KeepAll(), budget=Budget())
    assert isinstance(eventful.Stream(model, policy=Carry(2)).policy, Carry)


def test_lookahead_refuses_it(model):
    stream = eventful.Stream(model, budget=Budget())
    with pytest.raises(ValueError, match="lookahead does not go with a shared budget"):
        stream.run(noise(4, 5), lookahead=2)
    stream.budget = None
    assert len([*stream.run(noise(4, 5), lookahead=2)]) == 5


def test_it_is_joined_and_left_between_frames_without_a_dense_one(model):
    budget = Budget()
    stream = eventful.Stream(model, policy=Auto(share=0.3), scene_cuts=None)
    frames = noise(2, 12)
    for frame in frames[:6]:
        stream(frame)
    stream.budget = budget
    credit = budget.credit
    for frame in frames[6:]:
        stream(frame)
    assert "first frame" not in {row.reason for row in stream.stats.rows}
    assert budget.credit != credit == 0
    stream.budget = None
    after = budget.credit
    stream(frames[0])
    assert budget.credit == after
    assert dict(stream.stats.flush_reasons) == {"first frame": 1}


def test_a_snapshot_goes_on_alike(model):
    def stream(budget):
        return eventful.Stream(model, budget=budget, scene_cuts=None)

    frames = noise(3, 30)
    first = stream(Budget())
    for frame in frames[:10]:
        first(frame)
    saved = first.snapshot()
    one, other = stream(Budget()), stream(Budget())
    one.load_snapshot(saved), other.load_snapshot(saved)
    for frame in frames[10:]:
        assert torch.equal(one(frame), other(frame))
    assert one.stats.kinds == other.stats.kinds
