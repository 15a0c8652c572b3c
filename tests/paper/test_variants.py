"""Each variant in float64 against the reference, over six frames.

Index sets of all gates, outputs, and operations to the integer.
"""

import pytest

import eventful
from tests.paper import counts, models
from tests.paper.cases import CLIPS, GATED, HALF, PLAIN, POOLED, QUICK, SAMPLED, case, serves
from tests.paper.runs import run

EXACT, ROUNDED = 1e-9, 2e-3
TOP = eventful.TopR(3)
FORMS = ("cached", "query_key", "dense", "incremental")


def matrix(cases, clips=CLIPS):
    """Each case on each clip that serves it; clips that show nothing new in kind are slow tests."""
    return pytest.mark.parametrize(
        ("chosen", "clip"),
        [
            pytest.param(
                chosen,
                clip,
                id=f"{name} - {clip}",
                marks=() if clip in QUICK else pytest.mark.slow,
            )
            for name, chosen in cases.items()
            for clip in clips
            if serves(clip, chosen.variant)
        ],
    )


def check(clip, chosen, policy=TOP, batch=1, tolerance=EXACT):
    steps = run(clip, chosen, policy, batch)
    for step in steps:
        found, expected = step.updated
        assert found == expected
        assert models.error(*step.outputs) < tolerance
    for step in steps:
        found, expected = step.operations
        assert found == expected
        assert counts.total(found) == counts.total(expected)
    return steps


def numbers_updated(steps):
    """How many tokens any gate has let through in any row, first frame aside."""
    sets = [rows for step in steps[1:] for rows in step.updated[0].values()]
    return {len(row) for rows in sets for row in rows}


@pytest.mark.parametrize("batch", [1, 3])
@matrix(GATED | POOLED | SAMPLED)
def test_in_float64(chosen, clip, batch):
    check(clip, chosen, batch=batch)


@pytest.mark.parametrize("batch", [1, 3])
@matrix(HALF)
def test_in_half_precision(chosen, clip, batch):
    check(clip, chosen, batch=batch, tolerance=ROUNDED)


@matrix({"spatial": case("dense", pooling=2)})
def test_pooled_keys_and_values_alone(chosen, clip):
    check(clip, chosen, eventful.KeepAll(), batch=3)


@matrix({"sampled": case("dense", sampling={"blocks.0": 11, "blocks.2": 5})})
def test_sampled_tokens_alone(chosen, clip):
    check(clip, chosen, eventful.KeepAll(), batch=3)


@matrix({form: case(form, prefix="gated") for form in FORMS}, PLAIN)
def test_a_class_token_that_competes_with_the_others(chosen, clip):
    assert numbers_updated(check(clip, chosen, batch=3)) == {TOP.r}


@matrix(
    {name: chosen for name, chosen in (GATED | POOLED | SAMPLED).items() if not chosen.variant.stgt}
)
def test_a_threshold_lets_another_number_of_tokens_through_in_each_row(chosen, clip):
    steps = check(clip, chosen, eventful.Threshold(3.0), batch=3)
    assert len(numbers_updated(steps)) > 3
