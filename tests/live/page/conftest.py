"""The page of cameras that never were, and a client that sends what it is told to."""

import http.client
import json
import time
from dataclasses import dataclass

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("uvicorn")

from eventful.live.page import Limits, serve
from tests.live.page.boards import FakeBoard

TOKEN = "a-token-for-the-tests"


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The type of an error; fails where an answer is none as it should be."""
        assert 400 <= self.status < 600
        assert self.headers["content-type"] == "application/json"
        assert {*self.json} == {"error"}
        assert {*self.json["error"]} == {"type", "message"}
        return self.status, self.json["error"]["type"]


def wait(condition, seconds=10):
    """Until it holds; fails where it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Client:
    """Sends requests to a page, each over a connection of its own."""

    def __init__(self, page, headers=()):
        self.page = page
        self.headers = dict(headers)

    def __call__(self, method, path, value=None, *, body=None, headers=(), timeout=20):
        sent = self.headers | dict(headers)
        if value is not None:
            body = json.dumps(value)
            sent = {"Content-Type": "application/json"} | sent
        connection = http.client.HTTPConnection(self.page.host, self.page.port, timeout=timeout)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            names = {name.lower(): text for name, text in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()


def two():
    """A board of two cameras that have had eleven frames."""
    made = FakeBoard("front", "back")
    for _ in range(11):
        made.tick()
    return made


@pytest.fixture
def board():
    return two()


@pytest.fixture
def page(board):
    with serve(board, port=0, limits=Limits(cameras=5, streams=3, seconds=2)) as page:
        yield page


@pytest.fixture
def ask(page):
    return Client(page)


@pytest.fixture(scope="session")
def refusing():
    """For tests that change nothing: a page that lasts. Its board is `refusing.board`."""
    board = two()
    with serve(board, port=0) as page:
        made = Client(page)
        made.board = board
        yield made
    assert board.policies == []
    assert {*board.cameras} == {"front", "back"}


@pytest.fixture(scope="session")
def closed():
    """A page that needs a token, and lasts."""
    with serve(two(), port=0, token=TOKEN) as page:
        yield page
