"""Costs in time: the fastest runs count, in turn, and what does less costs no more."""

import pytest
import torch

from eventful.stream import measure

QUIET = {
    "watch": 0.5,
    "motion": 2.0,
    "back": 1.5,
    "held": 0.1,
    "carried": 4.0,
    "few": 20.0,
    "many": 40.0,
    "dense": 100.0,
}


def test_a_busy_moment_counts_for_none(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(measure, "now", lambda _: clock[0])

    def work(name):
        def run():
            order.append(name)
            clock[0] += QUIET[name] * (10 if len(order) in range(4, 10) else 1) / 1e3

        return run

    found = measure._fastest({name: work(name) for name in QUIET}, torch.zeros(1))
    assert found == pytest.approx(QUIET)
    assert order == [*QUIET] * measure.RUNS


def test_costs_of_a_row():
    costs = measure._ordered(QUIET, rows=2, few=10, many=30)
    assert (costs.dense, costs.carried, costs.held) == (52.0, 4.0, 0.55)
    assert (costs.token, costs.partial) == (0.5, 7.0)
    assert (costs.of(30), costs.back) == (22.0, 1.5)


@pytest.mark.parametrize("kind", ["held", "carried", "few", "many", "motion"])
def test_what_does_less_costs_no_more_however_noisy_the_machine(kind):
    for times in (0.01, 300.0):
        costs = measure._ordered(QUIET | {kind: times}, rows=1, few=10, many=30)
        assert costs.token > 0
        assert costs.held <= costs.carried <= costs.partial
        assert costs.carried <= costs.dense
        assert costs.share(30) <= 1
