"""What `benchmarks/quality_times.py` makes of times, and that its table is the results' own."""

import json
import sys
from pathlib import Path

import pytest
import torch

from eventful.evaluation import combined
from tests.evaluation import annotated_data as data

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("the benchmarks are not installed with the package", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))
try:
    import quality_times
    from filling import filled
finally:
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def clock(monkeypatch):
    """Each timed call takes the milliseconds that stand next in a list."""
    times = []

    def timed(runner, frame):
        return runner(frame), times.pop(0)

    monkeypatch.setattr(quality_times, "timed", timed)
    return times


def frames(count):
    return list(torch.rand(count, 1, 3, 42, 70, generator=torch.Generator().manual_seed(3)))


def measured(clock, text, milliseconds, count=4, rounds=1):
    clock += milliseconds
    (setting,) = combined(["input"], [text])
    model = data.network((42, 70)).backbone
    row = quality_times.measure(model, setting, frames(count), rounds)
    assert not clock
    return row


def test_dense_and_plan_come_in_turn_and_change_places(clock):
    warming = [1, 1, 1, 1]
    first = [170, 90, 2, 98, 102, 60, 4, 100]  # dense, plan, plan, dense, ...
    row = measured(clock, "skip:2", warming + first)
    assert row["time_ratio"] == pytest.approx(300 / 66)
    assert (row["dense_ms"], row["ms"], row["first_ms"]) == (100, 22, 90)
    assert row["actions"] == {"held": {"frames": 2, "ms": 3}, "dense": {"frames": 1, "ms": 60}}
    assert row["operations_ratio"] == pytest.approx(2)
    assert row["operations_ratio_later"] == pytest.approx(3)
    assert row["setting"] == "skip:2"


def test_the_time_of_a_frame_is_its_median_over_the_rounds(clock):
    rounds = [9, 9, 5, 10, 9, 9, 500, 30, 9, 9, 4, 20]  # dense, plan, plan, dense; ...
    row = measured(clock, "skip:2", [1] * 4 + rounds, count=2, rounds=3)
    assert row["time_ratio"] == pytest.approx(20 / 5)
    assert row["rounds"] == pytest.approx([10 / 5, 30 / 500, 20 / 4])


def test_gates_apart_from_the_first_frame_and_the_error_of_the_same_run(clock):
    row = measured(clock, "top:3", [1] * 4 + [100, 110, 20, 100, 100, 30], count=3)
    assert row["actions"] == {"gated": {"frames": 2, "ms": 25}}
    assert row["first_ms"] == 110
    assert 0 < row["relative_error"] < row["relative_error_max"]
    assert 1 < row["operations_ratio"] < row["operations_ratio_later"]


def test_what_is_timed():
    names = [one.name for one in quality_times.settings()]
    eighth = [f"{one}, fraction:0.125" for one in ("incremental", "input", "hold")]
    plans = ["skip:5", "carry:5", "lowres:0.25", "auto:0.2"]
    assert names == [*plans, "incremental, fraction:0.25", *eighth]


def test_the_table_says_time_beside_error(clock):
    row = measured(clock, "skip:2", [1] * 4 + [100, 90, 2, 98, 102, 60, 4, 100])
    row |= {"relative_error": 0.25, "relative_error_max": 0.75, "rounds": [2.5, 3.0]}
    table = quality_times.tables({"clips": {"street": [row]}})
    text = filled("<!-- times: plans -->\nold\n<!-- end -->", "times", table)
    assert text.splitlines()[3] == (
        "| street | `skip:2` | 3.00x | 4.55x (2.50 to 3.00) | 100 ms | 22 ms | 0.250 | 0.750 |"
    )


def test_the_table_in_the_documentation_is_up_to_date():
    text = quality_times.PAGE.read_text()
    assert "<!-- times: plans -->" in text
    found = json.loads(quality_times.RESULTS.read_text())
    new = filled(text, "times", quality_times.tables(found))
    assert new == text, "run benchmarks/quality_times.py --draw"
