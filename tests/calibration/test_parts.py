"""The parts of calibration by hand: search, sensitivities, allocation, trials."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import eventful
from eventful.calibration import Allocation, Figures, Target, Trial, Trials
from eventful.calibration.allocation import equally
from eventful.calibration.sensitivity import Sensitivity, predict, sensitivities, slopes
from eventful.policies import Threshold, TopFraction, for_gates

SEEN = {
    "a": torch.tensor([[8.0, 1.0, 4.0, 2.0], [4.0, 8.0, 1.0, 2.0]]),
    "b": torch.tensor([[0.1, 0.4, 0.2, 0.8], [0.2, 0.8, 0.4, 0.1]]),
}


def trial(error, share, policies=None, seen=SEEN):
    return Trial(policies or equally(list(seen), 0.5), Figures(error, share), seen)


@pytest.mark.parametrize(("name", "value"), [("error", 0.3), ("share", 0.25)])
def test_the_search_ends_close_below_the_target(name, value):
    target = Target(**{name: value})
    runs = target.search(lambda price: trial(0.02 * price, 1 / price), 1.0, 100.0)
    best = target.best(runs)
    assert 0.97 * value <= getattr(best.figures, name) <= value
    assert best == runs[-1]


@pytest.mark.parametrize(("name", "value", "end"), [("error", 0.01, 1.0), ("share", 0.001, 100.0)])
def test_the_search_goes_to_the_end_where_the_target_is_out_of_reach(name, value, end):
    target = Target(**{name: value})
    prices = []

    def at(price):
        prices.append(price)
        return trial(0.02 * price, 1 / price)

    best = target.best(target.search(at, 1.0, 100.0))
    assert not target.met(best)
    assert prices[-1] == pytest.approx(end, rel=0.02)
    assert best.figures.error == pytest.approx(0.02 * prices[-1])


def test_the_best_is_the_cheapest_or_most_exact_of_those_that_meet_the_target():
    runs = [trial(0.1, 0.5), trial(0.2, 0.2), trial(0.15, 0.3), trial(0.3, 0.1)]
    assert Target(error=0.2).best(runs) is runs[1]
    assert Target(share=0.4).best(runs) is runs[2]
    assert Target(error=0.05).best(runs) is runs[0]


def test_thresholds_by_hand():
    allocation = Allocation.of(trial(0.1, 0.5), {"a": 4.0})
    assert allocation.thresholds(1.0, weight=0.0) == pytest.approx({"a": 2.0, "b": 0.2})
    assert allocation.thresholds(1.0, weight=0.5) == pytest.approx({"a": 1.0, "b": 0.2})
    assert allocation.thresholds(3.0, weight=1.0) == pytest.approx({"a": 1.5, "b": 0.6})
    chosen = allocation.policies("threshold", 3.0, weight=1.0)
    assert chosen == {"a": Threshold(1.5), "b": Threshold(0.6)}


def test_shares_are_those_of_the_tokens_beyond_the_thresholds():
    allocation = Allocation.of(trial(0.1, 0.5), {"a": 4.0})
    chosen = allocation.policies("top", 3.0, weight=1.0)
    assert {name: policy.count(4) for name, policy in chosen.items()} == {"a": 3, "b": 1}
    assert allocation.policies("top", 1e-6, weight=0.0)["a"].count(4) == 4
    assert allocation.policies("top", 1e6, weight=0.0)["a"].count(4) == 1


def test_where_most_tokens_are_still_the_threshold_is_the_least_error():
    seen = {"a": torch.tensor([[0.0, 0.0, 0.0, 3.0]])}
    start = trial(0.1, 0.5, equally(["a"], 0.5), seen)
    assert Allocation.of(start, {}).thresholds(1.0, weight=0.0) == {"a": 3.0}


def test_sensitivities_by_hand():
    """Gate a halved adds 0.2 and saves 0.1; its errors left undone rise from 3 to 7."""

    def run(policies):
        (name,) = [name for name, policy in policies.items() if policy.f != 0.5]
        assert policies[name] == TopFraction(0.25)
        return trial(0.3, 0.4) if name == "a" else trial(0.15, 0.2)

    start = trial(0.1, 0.5)
    found = sensitivities(start, run)
    assert found["a"] == pytest.approx((0.2, 0.1, 4.0, 1.0))
    assert found["b"] == pytest.approx((0.05, 0.3, 0.4, 1.0))
    mean = (2.0 + 1 / 6) / 2
    assert slopes(found) == pytest.approx({"a": 2 / mean, "b": 1 / 6 / mean})
    foretold = predict(start, found, {"a": TopFraction(0.25), "b": TopFraction(0.75)})
    assert foretold.error == pytest.approx(0.1 + 0.2 - 0.05 * 0.2 / 0.4)
    assert foretold.share == pytest.approx(0.5 - 0.1 + 0.3)
    assert predict(start, found, start.policies) == Figures(0.1, 0.5)


def test_one_token_is_doubled_instead_and_a_gate_without_a_choice_left_out():
    seen = {"a": SEEN["a"], "c": torch.tensor([[2.0], [1.0]])}
    start = trial(0.1, 0.5, equally(["a", "c"], 0.25), seen)

    def run(policies):
        assert policies["a"].count(4) == 2
        return trial(0.06, 0.7)

    found = sensitivities(start, run)
    assert found == {"a": pytest.approx((-0.04, -0.2, -4.0, -1.0))}
    assert slopes(found) == {"a": 1.0}


def test_slopes_are_bounded_and_equal_where_they_mean_nothing():
    def of(error):
        return Sensitivity(error, 0.1, 1.0, 1.0)

    found = {"a": of(20.0), "c": of(-1.0), "d": of(0.1)} | {f"b{i}": of(0.0) for i in range(13)}
    assert slopes(found) == dict.fromkeys(found, 0.1) | {"a": 10.0}
    assert slopes({"a": of(-0.1), "b": of(-0.2)}) == {}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=(12, 20), patch_size=4, embed_dim=24, depth=2, num_heads=3)
    return eventful.convert(vit, eventful.KeepAll())


def tried(model, frames, policy):
    trials = Trials(model, frames, lambda y: y, normalize=False, method="forward_features")
    return trials.run(for_gates(policy, trials.gates))


def test_a_trial_keeps_what_gates_saw_and_leaves_the_model_as_it_is(model):
    frames = list(torch.rand(3, 2, 3, 12, 20) * 0.1)
    found = tried(model, frames, TopFraction(0.2))
    stream = eventful.Stream(model, policy=TopFraction(0.2), method="forward_features")
    errors = []
    for frame in frames:
        stream(frame)
        errors.append(stream.gate("blocks.1.mlp").error[:, 1:])
    assert torch.equal(found.seen["blocks.1.mlp"], torch.cat(errors[1:]))
    assert all(errors.shape == (2 * 2, 15) for errors in found.seen.values())
    assert eventful.Stream(model).policy == eventful.KeepAll()


def test_frames_behind_a_scene_cut_do_not_count(model):
    """The third frame is of another scene, and computed in full."""
    still = torch.rand(1, 3, 12, 20)
    frames = [still + 0.01 * torch.rand(1, 3, 12, 20) for _ in range(8)]
    cut = torch.rand(1, 3, 12, 20) * 9 - 30
    plain = tried(model, frames, TopFraction(0.2))
    found = tried(model, [*frames, cut], TopFraction(0.2))
    assert found.figures == plain.figures
    assert torch.equal(found.seen["blocks.0.qkv"], plain.seen["blocks.0.qkv"])
