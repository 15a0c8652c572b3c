"""`eventful paper ops`: what it prints for machines and for people."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from eventful.cli.commands import paper
from eventful.paper import ENTRIES, FURTHER

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "paper_ops.json"
KEYS = ["table", "model", "size", "variant", "r", "paper", "computed", "data_dependent"]


@pytest.fixture(scope="module")
def report():
    return json.loads(json.dumps(paper.ops()))


def test_entries_have_the_agreed_form(report):
    entries = report["entries"]
    assert len(entries) == len(ENTRIES) + len(FURTHER)
    for entry in entries:
        assert list(entry) == KEYS
        assert isinstance(entry["data_dependent"], bool)
        assert entry["model"] in ("vitdet_b_vid", "vivit_b_epic", "vivit_b_kinetics")
        assert isinstance(entry["size"], int)
        assert entry["r"] is None or isinstance(entry["r"], int)
        assert (entry["paper"] is None) == (entry["variant"] == "incremental")
        assert (entry["computed"] is None) == entry["variant"].startswith("threshold")


def test_the_budget_of_dense_rows_is_null(report):
    without = {entry["variant"] for entry in report["entries"] if entry["r"] is None}
    assert without == {"dense", "spatial"} | {f"threshold, h = {h}" for h in (0.2, 1.0, 5.0)}


def test_units_are_those_of_the_paper(report):
    for entry in report["entries"]:
        if entry["computed"] is not None:
            assert (entry["computed"] < 10) == entry["model"].startswith("vivit")


def test_the_summary_counts_what_agrees(report):
    compared = [
        abs(entry["computed"] / entry["paper"] - 1)
        for entry in report["entries"]
        if entry["paper"] and not entry["data_dependent"]
    ]
    found = report["summary"]
    assert found["entries"] == len(report["entries"]) == 90
    assert found["compared"] == len(compared) == 63
    assert found["agree"] == sum(deviation <= 0.003 for deviation in compared) == 63
    assert found["largest_deviation"] == max(compared)


def test_the_committed_result_is_this_one(report):
    committed = json.loads(RESULT.read_text())
    for found, expected in zip(report["entries"], committed["entries"], strict=True):
        assert {**found, "computed": 0} == {**expected, "computed": 0}
        if found["data_dependent"] and found["computed"] is not None:  # decoders differ a little
            assert found["computed"] == pytest.approx(expected["computed"], rel=5e-3)
        else:
            assert found["computed"] == expected["computed"]


def test_people_get_a_table_with_a_summary(report):
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(paper.ops_table(report))
    text = console.export_text()
    assert "467.4 " in text
    assert "467.44" in text
    assert "full, tuned at 200" in text
    assert "63 of these agree within 0.3 %" in " ".join(text.split())
