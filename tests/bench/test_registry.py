"""The names of cases, and what chooses them."""

import pytest

from eventful.bench import SUITES, cases, select


@pytest.mark.parametrize("quick", [False, True])
def test_names_are_unique_and_begin_with_their_suite(quick):
    names = [case.name for case in cases("all", quick)]
    assert len(set(names)) == len(names)
    for suite in SUITES:
        own = [case.name for case in cases(suite, quick)]
        assert own
        assert all(name.startswith(f"{suite}/") for name in own)
    assert len(names) == sum(len(cases(suite, quick)) for suite in SUITES)


@pytest.mark.parametrize(
    "name",
    [
        "attention/N4096-M512/random",
        "attention/N196-M3/recorded",
        "block/vit-b-1024-r512",
        "backbone/vit_b16-1024-r512",
        "backbone/sam_b-1024-r256",
        "backbone/dinov3_s16-512-r128",
        "memory/vit_b16-1024-r512",
        "first-frame/sam_b-672-r220",
        "streams/vit_s14-518-r171-x4",
    ],
)
def test_known_names(name):
    assert [case.name for case in select(cases("all"), [name])] == [name]


def test_patterns_match_with_and_without_the_suite():
    among = cases("attention")
    assert len(select(among, ["attention/N196-*"])) == len(select(among, ["N196-*"])) == 12
    assert len(select(among, ["N196-*", "*/recorded"])) == 12 + 3 * 6
    assert select(among, []) == among


def test_a_pattern_without_a_match_names_near_ones():
    with pytest.raises(ValueError, match="no case matches 'N4096-M511/random'") as error:
        select(cases("attention"), ["N196-*", "N4096-M511/random"])
    assert "attention/N4096-M512/random" in str(error.value)
    assert "--list shows all 48" in str(error.value)


def test_an_unknown_suite_names_the_known():
    with pytest.raises(ValueError, match=r"one of attention, .* or all, got 'bogus'"):
        cases("bogus")
