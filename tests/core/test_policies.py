"""Policies: what they choose, what they refuse, their text form and which gate gets which."""

import json
import math
import re
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eventful.ops import Index
from eventful.policies import (
    KeepAll,
    PerGate,
    Policy,
    Threshold,
    TopFraction,
    TopR,
    for_gates,
    parse,
)

ERROR = torch.tensor([[0.5, 0.0, 2.0, 1.0, 0.25], [0.0, 3.0, 0.125, 0.5, 1.0]])


@pytest.mark.parametrize(
    ("policy", "rows"),
    [
        (TopR(1), [[2], [1]]),
        (TopR(3), [[0, 2, 3], [1, 3, 4]]),
        (TopR(5), [[0, 1, 2, 3, 4]] * 2),
        (TopFraction(0.0), [[2], [1]]),
        (TopFraction(0.39), [[2], [1]]),
        (TopFraction(0.59), [[2, 3], [1, 4]]),
        (TopFraction(1), [[0, 1, 2, 3, 4]] * 2),
        (Threshold(0.5), [[2, 3], [1, 4]]),
        (Threshold(0.49), [[0, 2, 3], [1, 3, 4]]),
        (Threshold(2), [[], [1]]),
        (Threshold(0), [[0, 2, 3, 4], [1, 2, 3, 4]]),
        (KeepAll(), [[0, 1, 2, 3, 4]] * 2),
    ],
    ids=str,
)
def test_choices_by_hand(policy, rows):
    index = policy.select(ERROR)
    assert [row.tolist() for row in index.rows()] == rows
    assert index.tokens == 5


@settings(deadline=None, max_examples=60)
@given(f=st.floats(0, 1), errors=st.lists(st.floats(0, 100, width=32), min_size=1, max_size=9))
def test_a_fraction_keeps_the_floor_but_one_and_no_other_is_larger(f, errors):
    mask = TopFraction(f).select(torch.tensor([errors])).mask()[0]
    assert mask.sum() == max(1, math.floor(f * len(errors)))
    kept = [e for e, chosen in zip(errors, mask.tolist(), strict=True) if chosen]
    left = [e for e, chosen in zip(errors, mask.tolist(), strict=True) if not chosen]
    assert min(kept) >= max(left, default=0)


@pytest.mark.parametrize("r", [0, -1, True, 1.0, "1", None, math.nan])
def test_top_r_takes_whole_numbers_from_one_on(r):
    with pytest.raises(ValueError, match=re.escape(f"at least 1, got {r!r}")):
        TopR(r)


@pytest.mark.parametrize("f", [-0.1, 1.1, -math.inf, math.inf, math.nan, True])
def test_a_fraction_is_from_zero_to_one(f):
    with pytest.raises(ValueError, match=re.escape(f"from 0 to 1, got {f!r}")):
        TopFraction(f)


@pytest.mark.parametrize("h", [-0.1, -math.inf, math.inf, math.nan, True])
def test_a_threshold_is_finite_and_not_negative(h):
    with pytest.raises(ValueError, match=re.escape(f"of at least 0, got {h!r}")):
        Threshold(h)


def test_more_tokens_than_there_are_raises_with_the_mend():
    with pytest.raises(ValueError, match=r"TopR\(6\) .* \(5\); use r <= 5, or KeepAll\(\)"):
        TopR(6).select(ERROR)


policies = st.one_of(
    st.integers(1, 10**6).map(TopR),
    st.floats(0, 1).map(TopFraction),
    st.floats(0, allow_infinity=False, allow_nan=False).map(Threshold),
    st.just(KeepAll()),
)


@given(policies)
def test_parse_undoes_str(policy):
    assert parse(str(policy)) == policy


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("top:256", TopR(256)),
        ("fraction:0.25", TopFraction(0.25)),
        ("threshold:1.0", Threshold(1.0)),
        ("all", KeepAll()),
    ],
)
def test_the_documented_text_forms(text, policy):
    assert parse(text) == policy
    assert str(policy) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "top",
        "top:",
        "top:1.5",
        "top:x",
        "Top:3",
        "bottom:3",
        "fraction:x",
        "fraction",
        "threshold:",
        "threshold:1:2",
        "all:3",
        "all:",
        "top:needs",
    ],
)
def test_text_that_is_no_policy_raises_with_the_forms(text):
    with pytest.raises(
        ValueError, match=re.escape(f"policy {text!r} is not understood") + ".*; write"
    ):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top:0", "TopR(r) needs"),
        ("top:-3", "TopR(r) needs"),
        ("fraction:2", "TopFraction(f) needs"),
        ("threshold:nan", "Threshold(h) needs"),
        ("threshold:inf", "Threshold(h) needs"),
    ],
)
def test_a_number_out_of_range_raises_as_the_policy_does(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text)


GATES = ["blocks.0.qkv", "blocks.0.mlp", "blocks.1.qkv", "blocks.1.mlp"]


@pytest.mark.parametrize(
    ("wanted", "default", "expected"),
    [
        (TopR(2), None, [2, 2, 2, 2]),
        ({"*": TopR(2)}, None, [2, 2, 2, 2]),
        ({"*.mlp": TopR(2), "*.qkv": TopR(5)}, None, [5, 2, 5, 2]),
        ({"*": TopR(1), "blocks.1.qkv": TopR(7)}, None, [1, 1, 7, 1]),
        ({"blocks.1.*": TopR(3)}, dict.fromkeys(GATES, TopR(9)), [9, 9, 3, 3]),
        ({}, dict.fromkeys(GATES, TopR(9)), [9, 9, 9, 9]),
        ({"blocks.[0-9].mlp": TopR(4), "blocks.?.qkv": TopR(6)}, None, [6, 4, 6, 4]),
    ],
)
def test_every_gate_gets_the_policy_that_names_it(wanted, default, expected):
    given_default = dict(default) if default else None
    chosen = for_gates(wanted, GATES, default)
    assert list(chosen) == GATES
    assert list(chosen.values()) == [TopR(r) for r in expected]
    assert default == given_default


def test_an_unknown_gate_raises_with_near_names():
    with pytest.raises(ValueError, match=r"no gate is called 'blocks.0.qvk'; .*blocks\.0\.qkv"):
        for_gates({"*": TopR(1), "blocks.0.qvk": TopR(2)}, GATES)


def test_an_unknown_gate_unlike_any_raises_with_the_first_names():
    with pytest.raises(ValueError, match=r"'xyz'; there are: blocks\.0\.qkv, .*, \.\.\."):
        for_gates({"xyz": TopR(2)}, GATES)


def test_gates_without_a_policy_raise_by_name():
    with pytest.raises(ValueError, match=r"gates blocks\.0\.qkv, blocks\.1\.qkv; add them, or"):
        for_gates({"*.mlp": TopR(2)}, GATES)


@pytest.mark.parametrize("value", ["top:256", 256, None, TopR])
def test_what_is_no_policy_raises(value):
    for wanted in (value, {"*": value}):
        with pytest.raises(TypeError, match=re.escape(f"got {value!r}")):
            for_gates(wanted, GATES)


def test_a_policy_of_ones_own_needs_select_alone():
    @dataclass(frozen=True)
    class Odd(Policy):
        def select(self, error):
            return Index.from_mask(torch.arange(error.shape[1]) % 2 == torch.ones_like(error))

    assert for_gates(Odd(), ["gate"]) == {"gate": Odd()}
    assert Odd().select(ERROR).positions.tolist() == [1, 3, 1, 3]
    with pytest.raises(TypeError, match="select"):
        Policy()


OWN = {GATES[0]: "top:5", GATES[1]: "threshold:0.5", GATES[2]: "all", GATES[3]: "fraction:0.25"}


@pytest.fixture
def file(tmp_path):
    """Writes a calibration file; what is passed replaces its parts."""

    def write(**parts):
        content = {"format": "eventful calibration", "version": 1, "policies": OWN} | parts
        path = tmp_path / "street.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write


def test_a_calibration_file_gives_every_gate_its_own(file):
    policy = parse(file())
    backwards = GATES[::-1]
    assert {name: str(one) for name, one in for_gates(policy, backwards).items()} == OWN
    assert list(for_gates(policy, backwards)) == backwards
    assert policy == parse(file()) != parse(file(policies=OWN | {GATES[3]: "top:1"}))


def test_the_text_of_a_file_holds_it_to_what_it_held(file):
    policy = parse(file())
    assert parse(str(policy)) == policy
    file(policies=OWN | {GATES[0]: "top:6"})
    with pytest.raises(ValueError, match=r"street\.json has changed: .* expected .*street"):
        parse(str(policy))


def test_policies_of_gates_choose_what_any_of_them_would_and_check_that_all_fit():
    policy = PerGate((("a", TopR(1)), ("b", Threshold(0.9)), ("c", TopR(1))))
    assert [row.tolist() for row in policy.select(ERROR).rows()] == [[2, 3], [1, 4]]
    with pytest.raises(ValueError, match=r"TopR\(6\) asks for more"):
        PerGate((("a", TopR(1)), ("b", TopR(6)))).select(ERROR)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (GATES[:3], r"\(the model has no blocks\.1\.mlp\)"),
        ([*GATES, "a", "b", "c", "d"], r"\(it has no a, b, c and 1 more\)"),
        (["a", *GATES[1:]], r"\(it has no a; the model has no blocks\.0\.qkv\)"),
    ],
)
def test_a_file_of_another_model_raises_with_the_gates(file, names, told):
    with pytest.raises(ValueError, match=r"street\.json was calibrated for a model .*" + told):
        for_gates(parse(file()), names)


def test_policies_of_all_gates_are_refused_for_some(file):
    policy = parse(file())
    with pytest.raises(ValueError, match=r"pass them alone, or dict\(policy\.gates\) \|"):
        for_gates({"*.mlp": policy}, GATES, dict.fromkeys(GATES, TopR(1)))
    assert for_gates(dict(policy.gates) | {"*.mlp": TopR(9)}, GATES)[GATES[3]] == TopR(9)


@pytest.mark.parametrize("gates", [(), (("a", TopR(1)), ("a", TopR(2)))])
def test_each_gate_has_one_policy(gates):
    with pytest.raises(ValueError, match="one policy for each gate"):
        PerGate(gates)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"format": "other"}, "is no calibration file"),
        ({"version": 2}, "is a calibration file of version 2, this release reads 1"),
        ({"policies": {}}, "is damaged: .* one policy for each gate"),
        ({"policies": ["top:5"]}, "is damaged: its policies are not texts"),
        ({"policies": OWN | {"a": 5}}, "is damaged: its policies are not texts"),
        ({"policies": OWN | {"a": "top:0"}}, r"is damaged: .*TopR\(r\) needs"),
        ({"policies": OWN | {"a": "other.json"}}, "is damaged: policy 'other.json' is not under"),
    ],
)
def test_a_file_that_is_none_of_a_calibration_raises(file, parts, told):
    with pytest.raises(ValueError, match=rf"street\.json {told}"):
        parse(file(**parts))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00"])
def test_bytes_that_are_none_of_a_calibration_raise(tmp_path, content):
    path = tmp_path / "street.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"street\.json is no calibration file"):
        parse(str(path))


def test_a_file_that_is_not_there_raises_with_what_writes_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="write one with `eventful calibrate`"):
        parse(str(tmp_path / "none.json"))
