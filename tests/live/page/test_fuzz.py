"""Bad requests by the hundred: each gets a typed 4xx, and nothing else is disturbed."""

import contextlib
import json
import random
import socket
import string
import threading

import pytest

from eventful.live.page import Limits, serve
from tests.live.page.conftest import TOKEN, Client, two, wait
from tests.live.page.test_events import _events

PATHS = (
    "/api/cameras", "/api/policy", "/api/status", "/api/session", "/api/events", "/api/results",
    "/api/cameras/front", "/api/cameras/front/picture", "/api/cameras/front/history", "/metrics",
)  # fmt: skip
CHANGES = (("POST", "/api/cameras"), ("PUT", "/api/policy"), ("POST", "/api/session"))


class Bad:
    """Makes requests as bytes, all of which are to be refused."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def request(self):
        kind = self.random.choice(
            (self.token, self.junk_body, self.json_body, self.near_miss, self.large_body,
             self.chunks,
             self.path, self.method, self.host, self.origin, self.query, self.headers, self.noise,
             self.short)
        )  # fmt: skip
        return kind.__name__, kind()

    def bytes(self, most):
        return self.random.randbytes(self.random.randint(0, most))

    def text(self, most, letters=string.printable):
        return "".join(self.random.choices(letters, k=self.random.randint(0, most)))

    def build(self, method, path, body=b"", headers=None, token=TOKEN):
        sent = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(body))}
        if body:
            sent["Content-Type"] = "application/json"
        if token:
            sent["Authorization"] = f"Bearer {token}"
        sent |= headers or {}
        lines = [f"{name}: {value}" for name, value in sent.items() if value is not None]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""])
        return head.encode("latin-1", "replace") + body

    def token(self):
        wrong = self.random.choice(
            [None, TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "x" * self.random.randint(1, 9000),
             self.text(40, string.ascii_letters)]
        )  # fmt: skip
        method, path = self.random.choice([*CHANGES[:2], *(("GET", path) for path in PATHS)])
        body = b'{"policy": "auto:1"}' if method != "GET" else b""
        cookie = {"Cookie": f"eventful_session={self.text(99, string.hexdigits)}"}
        return self.build(method, path, body, cookie, wrong)

    def junk_body(self):
        method, path = self.random.choice(CHANGES)
        return self.build(method, path, b"\x00" + self.bytes(3000))

    def value(self, depth=3):
        leaves = (None, True, 10**400, -0.5, "", self.text(20), "\ud800", "a" * 5000, float("nan"))
        kind = self.random.randint(0, 3 if depth else 1)
        if kind < 2:
            return self.random.choice(leaves)
        count = self.random.randint(0, 4)
        if kind == 2:
            return [self.value(depth - 1) for _ in range(count)]
        return {self.text(9): self.value(depth - 1) for _ in range(count)}

    def json_body(self):
        method, path = self.random.choice(CHANGES)
        nested = self.random.choice(("[", '{"a":'))
        return self.build(
            method,
            path,
            self.random.choice(
                (
                    json.dumps(self.value()).encode(),
                    (nested * 7000).encode()[:16_000],
                    b"9" * 16_000,
                    b'"\xff"',
                )
            ),
        )

    def near_miss(self):
        """One field of a good request made bad."""
        scheme = self.random.choice(
            ("file://", "http://", "", "-", "concat:", "pipe:", "\x00", "data:")
        )
        fields = [
            ("POST", "/api/cameras", {"name": "new", "source": scheme + self.text(30)}),
            ("POST", "/api/cameras", {"name": "../" + self.text(30), "source": "rtsp://10.0.0.1/"}),
            ("POST", "/api/cameras", {"name": "front", "source": "rtsp://10.0.0.1/"}),
            (
                "POST",
                "/api/cameras",
                {"name": "new", "source": "rtsp://10.0.0.1/", self.text(9) + "x": 1},
            ),
            ("POST", "/api/cameras", {"name": self.value(), "source": self.value()}),
            ("PUT", "/api/policy", {"policy": self.text(30) + ".json"}),
            ("PUT", "/api/policy", {"policy": "auto:" + self.text(9, string.ascii_letters)}),
            ("PUT", "/api/policy", {"policy": 0.2}),
            ("POST", "/api/session", {"token": self.text(99)}),
        ]
        method, path, value = self.random.choice(fields)
        return self.build(method, path, json.dumps(value).encode())

    def large_body(self):
        method, path = self.random.choice(CHANGES)
        body = b'{"policy": "' + b"a" * self.random.randint(17_000, 2_000_000)
        return self.build(method, path, body)

    def chunks(self):
        method, path = self.random.choice(CHANGES)
        piece = b"4000\r\n" + 0x4000 * b"a" + b"\r\n"
        bodies = (
            piece * self.random.randint(2, 60) + b"0\r\n\r\n",
            b"zz\r\n",
            b"-5\r\n",
            b"ffffffffffffffffffff\r\n",
        )
        headers = {
            "Transfer-Encoding": "chunked",
            "Content-Type": "application/json",
            "Content-Length": None,
        }
        return self.build(method, path, headers=headers) + self.random.choice(bodies)

    def path(self):
        letters = string.ascii_letters + "./%-_~:@!$&'()*+,;="
        path = self.random.choice(
            ("/" + self.text(60, letters), "/static/../" + self.text(9, letters), "/" + "a" * 9000,
             "/%00", "/%ff%fe", "*", "http://evil.example/api/status",
             "/static/%2e%2e/%2e%2e/etc/passwd",
             "/api/cameras/" + self.text(9, letters) + "/picture")
        )  # fmt: skip
        return self.build("GET", path + "x", headers=None)

    def method(self):
        method = self.random.choice(
            ("TRACE", "CONNECT", "PROPFIND", "get", "PATCH", "BREW", "Ü", "G T")
        )
        return self.build(method, self.random.choice(PATHS))

    def host(self):
        hosts = (
            None,
            "",
            "evil.example",
            "localhost:99999999",
            "a" * 300,
            "127.0.0.1.evil.example",
            "\x7f",
        )
        return self.build(
            "GET", self.random.choice(PATHS), headers={"Host": self.random.choice(hosts)}
        )

    def origin(self):
        headers = self.random.choice(
            ({"Origin": "http://" + self.text(20, string.ascii_letters)}, {"Origin": "null"},
             {"Origin": "http://[::1"}, {"Sec-Fetch-Site": self.text(9,
             string.ascii_letters) + "x"})
        )  # fmt: skip
        return self.build("PUT", "/api/policy", b'{"policy": "auto:1"}', headers)

    def query(self):
        path = self.random.choice(
            (
                "/api/cameras/front/picture?width=",
                "/api/cameras/front/history?since=",
                "/api/results?camera=",
            )
        )
        value = self.random.choice(("x", "-5x", "1e999x", "%00", "", "9" * 400 + "x", "'--"))
        return self.build("GET", path + value)

    def headers(self):
        headers = self.random.choice(
            ({"X": "a" * 60_000}, {f"x{number}": "y" for number in range(2000)}, {"A B": "c"},
             {"X": "a\x00b"},
             {"Content-Length": "-1"}, {"Content-Length": "9" * 40}, {"Transfer-Encoding": "gzip"},
             {"Content-Type": "text/plain", "Content-Length": "2"}, {"Cookie": ";" * 20_000},
             {"Content-Type": "application/json", "Content-Encoding": "gzip",
             "Content-Length": "2"})
        )  # fmt: skip
        return self.build("PUT", "/api/policy", headers=headers) + b"xx"

    def noise(self):
        return b"\x00" + self.bytes(2000) + b"\r\n\r\n"

    def short(self):
        """A body of which the end never comes."""
        return self.build(
            "PUT",
            "/api/policy",
            headers={"Content-Length": "50", "Content-Type": "application/json"},
        )


def answer_to(page, data):
    with socket.create_connection((page.host, page.port), timeout=20) as connection:
        received = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)  # may be refused before all is sent; the answer is there
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                received += piece
    return received


def check(name, data, received):
    shown = (name, data[:300], received[:300])
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4"), shown
    lowered = head.lower()
    assert b"content-type: application/json" in lowered, shown
    assert b"x-frame-options: deny" in lowered, shown
    error = json.loads(body)["error"]
    assert {*error} == {"type", "message"}, shown
    assert TOKEN not in error["message"]


def attack(seed, requests):
    board = two()
    cameras, policy = {*board.cameras}, board.policy
    seen = []
    with serve(board, port=0, token=TOKEN, limits=Limits(seconds=0.5)) as page:
        ask = Client(page, {"Authorization": f"Bearer {TOKEN}"})
        watching = threading.Thread(target=_watch, args=(page, seen))
        watching.start()
        wait(lambda: board.subscriptions)
        bad = Bad(seed)
        for _ in range(requests):
            name, data = bad.request()
            check(name, data, answer_to(page, data))
            board.tick()
        assert ask("GET", "/api/status").status == 200
        wait(lambda: len(seen) == requests)
        assert b"eventful_page_refused_total" in ask("GET", "/metrics").body
    watching.join(10)
    assert seen == list(range(11, 11 + requests))  # of the client that was there all the time
    assert ({*board.cameras}, board.policy, board.policies) == (cameras, policy, [])


def _watch(page, seen):
    with socket.create_connection((page.host, page.port), timeout=60) as connection:
        connection.sendall(
            b"GET /api/results?camera=front HTTP/1.0\r\nHost: localhost\r\n"
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
        )
        with connection.makefile("rb") as lines:
            seen.extend(value["frame"] for _, value in _events(lines))


@pytest.mark.parametrize("seed", [1, 2])
def test_bad_requests(seed):
    attack(seed, 60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_a_thousand_bad_requests(seed):
    attack(seed, 1000)
