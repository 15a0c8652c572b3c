"""The tables as data: complete, and typed in as the paper has them."""

from collections import Counter
from itertools import pairwise

import pytest

from eventful.paper import ENTRIES, FURTHER, TABLES, Entry, entries, rows
from eventful.policies import KeepAll, Threshold, TopR


def test_every_row_of_every_table_is_there():
    assert Counter(entry.table for entry in ENTRIES) == {
        "1": 8,
        "A": 4,
        "B": 4,
        "C": 38,
        "D": 16,
        "E": 8,
    }
    assert tuple("1ABCDE") == TABLES
    assert len(FURTHER) == 12


def row(table, size, variant, r=None, **others):
    (found,) = [
        entry
        for entry in entries(table)
        if (entry.size, entry.variant, entry.r) == (size, variant, r)
        and all(getattr(entry, name) == value for name, value in others.items())
    ]
    return found.operations, found.accuracy


@pytest.mark.parametrize(
    ("found", "figures"),
    [
        (row("C", 1024, "dense"), (467.4, 82.93)),
        (row("C", 1024, "full", 768), (122.3, 81.25)),
        (row("C", 1024, "stgt", 256), (142.3, 68.73)),
        (row("C", 672, "token-wise", 384), (57.7, 81.64)),
        (row("C", 672, "stgt", 128), (36.0, 68.13)),
        (row("C", 672, "full", 1024), (115.1, 82.23)),
        (row("C", 1024, "incremental", 512), (None, 81.11)),
        (row("1", 1024, "spatial"), (388.1, 80.15)),
        (row("1", 1024, "spatiotemporal", 512), (70.9, 76.96)),
        (row("E", 672, "spatial"), (159.7, 79.86)),
        (row("E", 672, "spatiotemporal", 384), (41.4, 79.02)),
        (row("B", 1024, "threshold", threshold=5.0), (133.5, 78.11)),
        (row("D", 320, "full", 120, tuned_r=100), (2.62, 64.51)),
        (row("D", 320, "full", 30, tuned_r=50), (1.00, 58.05)),
        (row("A", 224, "dense"), (3.360, 79.06)),
        (row("A", 224, "full", 48), (1.016, 75.88)),
    ],
)
def test_rows_are_those_of_the_paper(found, figures):
    assert found == figures


def test_a_smaller_budget_costs_less_and_is_less_accurate():
    """A digit that was typed wrong would most likely break one of the two."""
    groups = {}
    for entry in ENTRIES:
        if entry.r is not None:
            key = (entry.table, entry.size, entry.variant, entry.tuned_r)
            groups.setdefault(key if entry.table == "D" else key[:3], []).append(entry)
    assert len(groups) == 6 + 2 + 3 + 1
    for group in groups.values():
        for more, less in pairwise(group):
            assert more.r > less.r
            assert more.operations > less.operations
            assert more.accuracy >= less.accuracy


def test_no_two_rows_of_a_table_look_alike():
    keys = Counter((e.table, e.size, e.label, e.r) for e in (*ENTRIES, *FURTHER))
    assert set(keys.values()) == {1}


def test_what_depends_on_data_says_so():
    found = {entry.variant for entry in (*ENTRIES, *FURTHER) if entry.data_dependent}
    assert found == {"spatiotemporal", "threshold", "incremental"}


@pytest.mark.parametrize("ask", [entries, rows])
def test_a_table_that_is_not_there(ask):
    with pytest.raises(ValueError, match="there is no table 'F'; there are 1, A, B, C, D, E"):
        ask("F")


class TestRows:
    def test_there_is_one_for_each_entry(self):
        for table in TABLES:
            assert [found.entry for found in rows(table)] == list(entries(table))

    @pytest.mark.parametrize(
        ("table", "place", "policy", "options"),
        [
            ("C", 0, None, {}),
            ("C", 1, TopR(2048), {"attention": "cached", "half_precision": True}),
            ("C", 7, TopR(2048), {"attention": "dense"}),
            ("C", 18, TopR(256), {"attention": "dense", "gate": "stgt"}),
            ("C", 38, TopR(2048), {"attention": "incremental"}),
            ("1", 1, KeepAll(), {"attention": "dense", "pooling": 2}),
            (
                "E",
                7,
                TopR(128),
                {"attention": "cached", "half_precision": True, "pooling": 2},
            ),
            ("B", 1, Threshold(0.2), {"attention": "cached", "half_precision": True}),
            ("D", 0, None, {}),
            (
                "A",
                3,
                TopR(24),
                {"attention": "cached", "half_precision": True, "prefix": "gated"},
            ),
        ],
    )
    def test_they_say_how_to_convert(self, table, place, policy, options):
        found = rows(table)[place]
        assert (found.policy, found.options) == (policy, options)
        assert found.converts is (policy is not None)

    def test_options_of_one_row_are_its_own(self):
        first, second = rows("C")[1:3]
        first.options["attention"] = "dense"
        assert second.options["attention"] == rows("C")[1].options["attention"] == "cached"


def test_labels():
    entry = Entry("D", "vivit_b_epic", 320, "full", 2.62, 64.51, 120, 100)
    assert entry.label == "full, tuned at 100"
    assert entry.unit == 1e12
    entry = Entry("B", "vitdet_b_vid", 1024, "threshold", 431.8, 83.0, threshold=0.2)
    assert entry.label == "threshold, h = 0.2"
    assert entry.unit == 1e9
