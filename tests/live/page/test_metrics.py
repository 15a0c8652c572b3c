"""What Prometheus reads, and a dashboard that asks for nothing else."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from eventful.live.page import dashboard
from eventful.live.page.refusals import KINDS

DOCS = Path(__file__).parents[3] / "docs" / "live-page.md"


def samples(ask, parse=families, accept="text/plain"):
    """All samples by name and labels."""
    text = ask("GET", "/metrics", headers={"Accept": accept}).body.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def of(found, name, **labels):
    return found[name, frozenset(labels.items())]


def test_metrics_are_the_boards(ask, board):
    board.change(
        "front", dropped=3, failed=2, reconnects=5, estimate=None, state="waiting", retry_in=4.5
    )
    found = samples(ask)
    front, back = board.cameras["front"], board.cameras["back"]
    assert of(found, "eventful_camera_frames_total", camera="front", outcome="processed") == 11
    assert of(found, "eventful_camera_frames_total", camera="front", outcome="dropped") == 3
    assert of(found, "eventful_camera_frames_total", camera="front", outcome="failed") == 2
    assert of(found, "eventful_camera_reconnects_total", camera="front") == 5
    assert of(found, "eventful_camera_operations_total", camera="back") == back.operations
    assert (
        of(found, "eventful_camera_dense_operations_total", camera="back") == back.dense_operations
    )
    assert of(found, "eventful_camera_latency_seconds", camera="front") == front.latency_ms / 1000
    assert of(found, "eventful_camera_results_per_second", camera="front") == 9.7
    assert of(found, "eventful_camera_estimated_error", camera="back") == back.estimate
    assert ("eventful_camera_estimated_error", frozenset({("camera", "front")})) not in found
    assert of(found, "eventful_camera_state", camera="front", state="waiting") == 1
    assert of(found, "eventful_camera_state", camera="front", state="live") == 0
    assert of(found, "eventful_camera_retry_seconds", camera="front") == 4.5
    assert of(found, "eventful_camera_kind", camera="back", kind=back.kind) == 1
    assert of(found, "eventful_info", model="demo ViT-S/14", policy="auto:0.2") == 1
    assert of(found, "eventful_target", holds="share") == 0.2


def test_latencies_are_a_histogram_in_seconds(ask, board):
    found = samples(ask)
    latencies = [point.latency_ms for name in board.points for point in board.points[name]]
    for bound in (0.005, 0.01, 0.02, 0.04, 0.08):
        expected = sum(latency <= 1000 * bound for latency in latencies)
        assert of(found, "eventful_latency_seconds_bucket", le=str(bound)) == expected
    assert of(found, "eventful_latency_seconds_bucket", le="+Inf") == 22
    assert of(found, "eventful_latency_seconds_count") == 22
    assert of(found, "eventful_latency_seconds_sum") == pytest.approx(sum(latencies) / 1000)


@pytest.mark.parametrize(
    ("bounds", "counts"), [((10.0, 20.0), (1, 4)), ((10.0, 20.0), (1, 4, 6)), ((), ())]
)
def test_a_histogram_always_ends_in_all(ask, board, monkeypatch, bounds, counts):
    monkeypatch.setattr(board, "latencies", lambda: (bounds, counts, 12.0))
    found = samples(ask)
    assert of(found, "eventful_latency_seconds_count") == (counts[-1] if counts else 0)


def test_openmetrics_is_given_to_those_who_ask(ask):
    found = samples(ask, open_families, "application/openmetrics-text; version=1.0.0")
    assert of(found, "eventful_camera_frames_total", camera="front", outcome="processed") == 11


@pytest.mark.parametrize(
    ("policy", "labels"),
    [("error:0.15", {"holds": "error"}), ("time:0.3", {"holds": "time"}), ("auto:0.1/0.5",
     {"holds": "share"}),
     ("latency:40", {"holds": "latency_ms"}), ("carry:5", None)],
)  # fmt: skip
def test_targets_of_policies(ask, board, policy, labels):
    board.policy = policy
    found = {key: value for key, value in samples(ask).items() if key[0] == "eventful_target"}
    assert [dict(key[1]) for key in found] == ([labels] if labels else [])


def test_names_of_cameras_are_labels_whatever_they_hold(ask, board):
    name = 'a"} 1\nevil_metric{x="\\'
    board.add(name, "rtsp://10.0.0.1/")
    found = samples(ask)
    assert of(found, "eventful_camera_reconnects_total", camera=name) == 0
    assert not [key for key in found if key[0] == "evil_metric"]


def test_refusals_are_counted_by_type(ask):
    ask("GET", "/none")
    ask("GET", "/none")
    ask("GET", "/", headers={"Host": "evil.example"})
    found = samples(ask)
    assert of(found, "eventful_page_refused_total", type="not_found") == 2
    assert of(found, "eventful_page_refused_total", type="wrong_host") == 1
    assert {dict(key[1])["type"] for key in found if key[0] == "eventful_page_refused_total"} == {
        *KINDS
    }


def test_the_dashboard_asks_for_metrics_and_labels_that_are_there(ask, board):
    """In both directions: nothing in it is unknown, and nothing of ours is left out."""
    board.change("front", retry_in=4.5, state="waiting")
    board.policy = "error:0.1"
    found = samples(ask)
    labels = {}
    for name, pairs in found:
        labels.setdefault(name, set()).update(dict(pairs))
    expressions = [
        target["expr"] for panel in json.loads(dashboard())["panels"] for target in panel["targets"]
    ]
    variables = [each.get("query") for each in json.loads(dashboard())["templating"]["list"]]
    asked = set()
    for expression in expressions + [each["query"] for each in variables if isinstance(each, dict)]:
        names = re.findall(r"\b(?:eventful|process)_\w+", expression)
        assert names, expression
        asked.update(names)
        for name, filters in re.findall(r"(\w+)\{([^}]*)\}", expression):
            used = set(re.findall(r"(\w+)[=!]=?~?\"", filters)) | set(
                re.findall(r"(\w+)=~", filters)
            )
            assert used - {"instance"} <= labels[name], expression
    assert asked <= {*labels}
    ours = {name for name in labels if name.startswith("eventful_")}
    assert ours - asked <= {"eventful_latency_seconds_count", "eventful_latency_seconds_sum"}


def test_the_dashboard_is_whole():
    value = json.loads(dashboard())
    panels = value["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not mine & cells, panel["title"]
        cells |= mine
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_docs_say_what_each_metric_means(ask, board):
    if not DOCS.is_file():
        pytest.skip("the documentation is not installed with the package")
    board.change("front", retry_in=4.5)
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in samples(ask)}
    ours = {name for name in names if name.startswith("eventful_")}
    told = {*re.findall(r"^\| `(eventful_\w+)", DOCS.read_text(), re.M)}
    assert told == ours
