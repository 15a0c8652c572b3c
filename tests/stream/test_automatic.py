"""The plan of `Auto` on made-up distances: budgets are used up, errors held, the best way taken."""

from collections import Counter

import pytest
import torch

from eventful import Auto, Costs
from eventful.stream.automatic import Automatic
from eventful.stream.plan import Check

COSTS = Costs(dense=100.0, carried=2.0, held=1.0, partial=60.0, token=1.0)
HEAD = Costs(dense=100.0, carried=20.0, held=0.5, partial=60.0, token=1.0)  # with a heavy decoder
PATCHES = 64


def run(policy, frames, error, costs=COSTS, held=1.2):
    """Follow a plan; `error` gives the true error of a moved output by its age."""
    plan, age, spent, errors = Automatic(policy, costs, PATCHES), 0, 100.0, [0.0]
    kinds = Counter()
    for _ in range(frames - 1):
        age += 1
        choice = plan.decide(0.02 * age)
        kinds[choice.kind] += 1
        if choice.kind == "dense":
            ones, moved = torch.ones(PATCHES), error(age)
            squares = (moved**2 * ones / PATCHES, (held * moved) ** 2 * ones / PATCHES)
            plan.learn(Check(moved, held * moved, *squares, ones))
            age, cost = 0, costs.dense
        else:
            cost = costs.held if choice.kind == "held" else costs.of(choice.tokens)
        spent += cost
        shown = error(age) if age else 0.0
        errors.append(held * shown if choice.kind == "held" else shown)
    return spent / frames / costs.dense, sum(errors[25:]) / len(errors[25:]), kinds


@pytest.mark.parametrize("costs", [COSTS, HEAD])
@pytest.mark.parametrize("share", [0.07, 0.15, 0.24, 0.3, 0.45, 0.9])
def test_a_budget_is_used_up_and_no_more(share, costs):
    used, _, _ = run(Auto(share=share), 400, lambda age: 0.1 * age**0.35, costs)
    assert used == pytest.approx(share, rel=0.03, abs=1 / 400)  # to a dense frame


@pytest.mark.parametrize("held", [0.9, 1.1, 1.6])
@pytest.mark.parametrize("target", [0.1, 0.15, 0.3])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_an_error_is_held_in_the_mean(target, scale, held):
    _, mean, _ = run(
        Auto(max_error=target), 400, lambda age: scale * 0.1 * age**0.6, HEAD, held=held
    )
    assert 0.8 * target <= mean <= 1.05 * target


@pytest.mark.parametrize("policy", [Auto(share=0.3), Auto(max_error=0.15)])
@pytest.mark.parametrize(
    ("costs", "held", "kind"),
    [
        (HEAD, 1.1, "held"),  # moving gains less than the decoder costs
        (HEAD, 2.5, "carried"),
        (COSTS, 1.3, "carried"),
        (COSTS, 0.8, "held"),  # what moves is noise
    ],
)
def test_outputs_are_held_or_moved_as_it_pays(policy, costs, held, kind):
    _, _, kinds = run(policy, 200, lambda age: 0.1 * age**0.35, costs, held)
    assert kinds[kind] > 0.9 * (kinds["held"] + kinds["carried"] + kinds["partial"])


def test_a_share_below_what_every_frame_costs_is_refused_with_the_figure():
    with pytest.raises(ValueError, match=r"takes at least 0\.010 already"):
        Automatic(Auto(share=0.01), COSTS, PATCHES)
