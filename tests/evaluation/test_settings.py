"""Settings: variants and policies, by text and as the paper has them."""

import pytest

from eventful import Auto, KeepAll, Skip, TopFraction, TopR
from eventful.evaluation import VARIANTS, Setting, combined
from eventful.evaluation.baselines import LowResolution
from eventful.paper import TABLES, rows


def test_settings_combine():
    names = [
        one.name for one in combined(["stgt", "dense", "spatial"], [TopR(3), TopFraction(0.5)])
    ]
    assert names == ["stgt, top:3", "stgt, fraction:0.5", "dense", "spatial"]
    with pytest.raises(ValueError, match="got 'tokenwise'; do you mean 'token-wise'"):
        combined(["tokenwise"], [TopR(3)])
    with pytest.raises(ValueError, match="the variant 'full' needs a policy, such as top:512"):
        combined(["dense", "full"], [])
    assert combined(["dense"], [])[0].policy is None


def test_settings_are_those_of_the_paper():
    for table in TABLES:
        for row in rows(table):
            setting = Setting.of(row)
            expected = dict(VARIANTS[setting.variant])
            assert expected == {k: v for k, v in setting.options.items() if k != "prefix"}
            assert setting.policy == row.policy


def test_frame_policies_come_once_whatever_the_variants():
    found = combined(["input", "dense", "paper"], ["skip:5", "top:3", "auto:0.20"])
    names = [one.name for one in found]
    assert names == ["input, top:3", "dense", "paper, top:3", "skip:5", "auto:0.2"]
    assert [one.policy for one in found[-2:]] == [Skip(5), Auto(share=0.2)]
    assert found[-1].text == "auto:0.20"
    assert found[-1].as_dict() == {"variant": "auto", "policy": "auto:0.2", "options": {}}


def test_frame_policies_alone_need_no_variant():
    assert [one.name for one in combined(["incremental", "dense"], ["skip:5"])] == [
        "dense",
        "skip:5",
    ]


@pytest.mark.parametrize("measure", ["", "-relative", "-age", "-relative-age"])
@pytest.mark.parametrize("gating", ["paper", "hold", "input"])
def test_gatings_by_name(gating, measure):
    (setting,) = combined([gating + measure], [TopR(3)])
    assert setting.options == {"gating": gating, "measure": measure[1:] or "error"}
    assert setting.name == f"{gating}{measure}, top:3"


def test_settings_keep_the_text_of_their_policy():
    one, two = combined(["input"], ["fraction:0.20", KeepAll()])
    assert (one.text, two.text) == ("fraction:0.20", "all")
    assert one == combined(["input"], ["fraction:0.2"])[0]


def test_low_resolution_is_a_baseline_of_evaluation():
    (setting,) = combined([], ["lowres:0.250"])
    assert (setting.name, setting.variant, setting.text) == (
        "lowres:0.25",
        "lowres",
        "lowres:0.250",
    )
    assert setting.policy == LowResolution(0.25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lowres:much", "'lowres:much' is not understood .*; write lowres:0.25"),
        ("lowres:", "nothing stands after the colon"),
        ("lowres:0", "a number above 0 and at most 1, got 0"),
        ("lowres:nan", "at most 1, got nan"),
        ("skip:0", "a whole number k of at least 1, got 0"),
        ("plan:5", "policy 'plan:5' is not understood"),
    ],
)
def test_texts_that_make_no_sense_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        combined([], [text])
