"""The plan of `Auto` on made-up looks: budgets are used up, errors are held."""

import pytest
import torch

from eventful import Auto, Costs
from eventful.motion import Look
from eventful.stream.automatic import Automatic
from eventful.stream.plan import Check

COSTS = Costs(dense=100.0, carried=2.0, held=1.0, partial=60.0, token=1.0)
PATCHES = 64


def look(distance):
    grid = torch.zeros(1, 8, 8)
    return Look(torch.zeros(1, 8, 8, 2), None, grid > 0, grid[0], grid[0], grid, distance)


def run(policy, frames, error):
    """Follow a plan; `error` gives the true error of a moved output by its age."""
    plan, age, spent, errors = Automatic(policy, COSTS, PATCHES), 0, 100.0, [0.0]
    for _ in range(frames - 1):
        age += 1
        choice = plan.decide(look(0.02 * age))
        if choice.kind == "dense":
            ones = torch.ones(PATCHES)
            plan.learn(Check(error(age), error(age) ** 2 * ones / PATCHES, ones, ones))
            age, cost = 0, COSTS.dense
        else:
            cost = COSTS.of(choice.tokens)
        spent += cost
        errors.append(error(age) if age else 0.0)
    return spent / frames / COSTS.dense, sum(errors[25:]) / len(errors[25:])


@pytest.mark.parametrize("share", [0.07, 0.15, 0.24, 0.3, 0.45, 0.9])
def test_a_budget_is_used_up_and_no_more(share):
    used, _ = run(Auto(share=share), 400, lambda age: 0.1 * age**0.35)
    assert used == pytest.approx(share, rel=0.03)


@pytest.mark.parametrize("target", [0.1, 0.15, 0.3])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_an_error_is_held_in_the_mean(target, scale):
    _, mean = run(Auto(max_error=target), 400, lambda age: scale * 0.1 * age**0.6)
    assert 0.8 * target <= mean <= 1.05 * target


def test_a_share_below_what_every_frame_costs_is_refused_with_the_figure():
    with pytest.raises(ValueError, match=r"takes 0\.020 already"):
        Automatic(Auto(share=0.02), COSTS, PATCHES)
