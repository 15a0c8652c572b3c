"""Server-Sent Events, as a client reads them."""

import http.client
import json
import threading
import time
from contextlib import contextmanager

import pytest

from eventful.live.page import serve
from tests.live.page.conftest import wait


@contextmanager
def stream(page, path):
    """Events of a stream as pairs (name, value)."""
    connection = http.client.HTTPConnection(page.host, page.port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    try:
        yield _events(answer)
    finally:
        answer.close()
        connection.close()


def _events(answer):
    name = None
    for line in answer:
        field, _, text = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = text
        elif field == "data":
            yield name, json.loads(text)


def test_results_come_as_they_are_made(page, board):
    with stream(page, "/api/results?camera=front") as events:
        wait(lambda: board.subscriptions)
        for _ in range(5):
            board.tick()
        found = [next(events) for _ in range(5)]
    assert [name for name, _ in found] == 5 * ["result"]
    assert [value["frame"] for _, value in found] == [11, 12, 13, 14, 15]
    assert {value["camera"] for _, value in found} == {"front"}
    assert found[0][1]["values"] == {"boxes": [11, 12, 13, 14], "score": None}
    assert {*found[0][1]} == {
        "camera", "frame", "time", "arrived", "kind", "estimate", "latency_ms", "values"
    }  # fmt: skip
    wait(lambda: not board.subscriptions)  # ended, with its client


def test_results_of_all_cameras(page, board):
    with stream(page, "/api/results") as events:
        wait(lambda: board.subscriptions)
        board.tick()
        assert {next(events)[1]["camera"] for _ in range(2)} == {"front", "back"}


def test_results_of_no_camera(ask, board):
    assert ask("GET", "/api/results?camera=none").error == (404, "no_such_camera")
    assert not board.subscriptions


def test_the_state_comes_every_second(page, board):
    with stream(page, "/api/events") as events:
        begun = time.monotonic()
        states = []
        for _ in range(3):
            states.append(next(events))
            board.tick()
    assert 1.5 < time.monotonic() - begun < 10
    assert [name for name, _ in states] == 3 * ["status"]
    assert [status["cameras"][0]["processed"] for _, status in states] == [11, 12, 13]


def test_a_quiet_stream_shows_that_it_lives(page, monkeypatch):
    monkeypatch.setattr("eventful.live.page.events.QUIET", 0.6)
    connection = http.client.HTTPConnection(page.host, page.port, timeout=10)
    connection.request("GET", "/api/results")
    answer = connection.getresponse()
    assert [answer.readline() for _ in range(4)] == [
        b": results follow\n",
        b"\n",
        b": quiet\n",
        b"\n",
    ]
    answer.close()
    connection.close()


@pytest.mark.parametrize("path", ["/api/events", "/api/results"])
def test_streams_end_with_the_page(board, path):
    with serve(board, port=0) as page, stream(page, path) as events:
        threading.Timer(0.3, page.close).start()
        begun = time.monotonic()
        list(events)  # ends by itself
        assert time.monotonic() - begun < 8
    assert not board.subscriptions
