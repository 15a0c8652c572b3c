"""Timing and its summaries, without a model."""

import itertools

import pytest
import torch

from eventful.bench import Setup, Spread
from eventful.bench.case import fastest, race, speedup

SETUP = Setup(torch.device("cpu"), repeats=3)


def test_contenders_take_turns_and_another_one_begins_each_round():
    seen = []
    contenders = {name: (lambda i, name=name: seen.append(f"{name}{i}")) for name in "abc"}
    seconds = race(contenders, SETUP, lambda i: seen.append(f"prepared{i}"))
    assert seen == [
        *("prepared0", "a0", "b0", "c0"),
        *("prepared1", "b1", "c1", "a1"),
        *("prepared2", "c2", "a2", "b2"),
    ]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_only_the_contender_is_timed(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(Setup, "now", lambda self: next(clock))
    seconds = race({"a": lambda i: next(clock)}, SETUP, lambda i: [next(clock) for _ in range(10)])
    assert seconds == {"a": [2, 2, 2]}


def test_percentiles():
    assert Spread.of([t / 1e3 for t in range(11)]) == pytest.approx((5, 1, 9))
    assert Spread.of([0.007]) == pytest.approx((7, 7, 7))


def test_ratios_pair_the_times_of_a_round():
    seconds = {"dense": [1.0, 10.0, 100.0], "ours": [0.5, 5.0, 400.0], "slow": [7.0, 8.0, 200.0]}
    assert speedup(seconds, "ours", "dense") == 2.0
    assert speedup(seconds, "dense", "dense") == 1.0
    assert fastest(seconds, ["dense", "slow"]) == "slow"
