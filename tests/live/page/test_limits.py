"""Bounds on what clients send and hold."""

import asyncio
import contextlib
import http.client
import json
import re
import socket
import time

import pytest

from eventful.live.page import Limits, app, serve
from tests.live.page.conftest import Client, wait

CAMERA = {"name": "c", "source": "rtsp://10.0.0.1/"}


def raw(page, data, timeout=20):
    """Everything that comes back for some bytes, until the server closes."""
    with socket.create_connection((page.host, page.port), timeout=timeout) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def chunked(page, pieces):
    """The answer to a body that says no length."""
    connection = http.client.HTTPConnection(page.host, page.port, timeout=20)
    try:
        headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        connection.request("POST", "/api/cameras", pieces, headers, encode_chunked=True)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_a_body_has_a_length_at_most(ask, board):
    fits = json.dumps(CAMERA).encode()
    fits += b" " * (16_384 - len(fits))
    json_type = {"Content-Type": "application/json"}
    assert ask("POST", "/api/cameras", body=fits, headers=json_type).status == 201
    assert ask("POST", "/api/cameras", body=fits + b" ", headers=json_type).error == (
        413,
        "body_too_large",
    )
    assert ask("POST", "/api/cameras", body=bytes(3_000_000), headers=json_type).error == (
        413,
        "body_too_large",
    )
    assert len(board.cameras) == 3


def test_a_body_without_length_too(page, board):
    small = json.dumps(CAMERA).encode()
    assert chunked(page, iter([small[:9], small[9:]]))[0] == 201
    status, value = chunked(page, iter([b"x" * 1000] * 3000))
    assert (status, value["error"]["type"]) == (413, "body_too_large")
    assert len(board.cameras) == 3


def test_bodies_of_reads_count_too(ask):
    assert ask("GET", "/api/status", body=bytes(20_000)).error == (413, "body_too_large")


def test_a_length_that_lies(page):
    head = b"PUT /api/policy HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: "
    for length in (b"99999999999999999999", b"-5", b"1e3", b"5, 6"):
        answer = raw(page, head + length + b"\r\nConnection: close\r\n\r\n{}")
        assert answer.split(b" ")[1] in (b"400", b"413")
        assert b'{"error": {"type": ' in answer


def test_paths_queries_and_headers_have_one(ask, page):
    assert ask("GET", "/" + "a" * 2047).error == (404, "not_found")
    assert ask("GET", "/" + "a" * 2048).error == (414, "target_too_long")
    assert ask("GET", "/api/status?" + "a" * 2048).error == (414, "target_too_long")
    assert ask("GET", "/api/status", headers={"X": "a" * 15_000}).status == 200
    assert ask("GET", "/api/status", headers={"X": "a" * 16_380}).error[0] in (400, 431)
    many = b"".join(b"a%d: b\r\n" % number for number in range(5_000))
    answer = raw(page, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + many + b"\r\n")
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))


def test_headers_are_bounded_behind_another_server(board):
    """`app` alone, without what `serve` puts before it."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"x", b"a" * 16_380)], "scheme": "http",
    }  # fmt: skip
    asyncio.run(app(board)(scope, receive, send))
    assert sent[0]["status"] == 431


@pytest.mark.parametrize(
    "data",
    [b"", b"GET / HTTP/1.1\r\nHost: loc", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "],
)
def test_a_request_that_never_comes_is_cut_off(page, data):
    begun = time.monotonic()
    assert raw(page, data) == b""
    assert 1 < time.monotonic() - begun < 12


def test_a_body_that_never_comes_is_refused(page):
    head = b"PUT /api/policy HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = raw(page, head + b"Content-Length: 20\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"too_slow"' in answer


def test_a_connection_that_is_kept_serves_again_and_ends(page):
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = raw(page, request * 3)  # one after the other, then silence
    assert answer.count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize(
    "data",
    [b"\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-x\r\n\r\n",
     b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n",
     b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
     b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: localhost\r\nA b: c\r\n\r\n",
     b"POST /api/session HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
     b"POST /api/session HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
)  # fmt: skip
def test_what_is_no_http_gets_json_too(page, data):
    answer = raw(page, data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert 400 <= int(head.split(b" ")[1]) < 500 or int(head.split(b" ")[1]) == 501
    assert json.loads(body)["error"]["type"] in ("bad_request", "wrong_host")
    assert b"x-frame-options: DENY" in head


def test_the_api_adds_so_many_cameras(ask, board):
    for number in range(3):
        assert ask("POST", "/api/cameras", CAMERA | {"name": f"c{number}"}).status == 201
    assert ask("POST", "/api/cameras", CAMERA).error == (409, "too_many_cameras")
    assert len(board.cameras) == 5
    assert ask("DELETE", "/api/cameras/c0").status == 204
    assert ask("POST", "/api/cameras", CAMERA).status == 201


def test_event_streams_are_so_many_and_free_their_places(ask, page):
    open_ones = []
    for path in ("/api/events", "/api/results", "/api/results?camera=front"):
        connection = http.client.HTTPConnection(page.host, page.port, timeout=20)
        connection.request("GET", path)
        assert connection.getresponse().status == 200
        open_ones.append(connection)
    answer = ask("GET", "/api/events")
    assert answer.error == (429, "too_many_streams")
    assert answer.headers["retry-after"] == "5"
    assert b"eventful_page_streams 3.0" in ask("GET", "/metrics").body
    for connection in open_ones:
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
    wait(lambda: b"eventful_page_streams 0.0" in ask("GET", "/metrics").body)


def test_connections_are_so_many(board):
    with serve(board, port=0, limits=Limits(connections=4)) as page:
        held = [socket.create_connection((page.host, page.port)) for _ in range(4)]
        time.sleep(0.2)
        more = socket.create_connection((page.host, page.port), timeout=5)
        with more, contextlib.suppress(ConnectionResetError):
            assert more.recv(10) == b""  # closed at once
        for connection in held:
            connection.close()
        time.sleep(0.2)
        assert Client(page)("GET", "/healthz").status == 200


def test_a_reader_that_stalls_is_cut_off(board):
    """It asks for much and takes nothing in: the answer stays in memory until it is cut off."""
    with serve(board, port=0, limits=Limits(seconds=1)) as page:
        ask = Client(page)

        def handles():
            return float(re.search(rb"\nprocess_open_fds (\S+)", ask("GET", "/metrics").body)[1])

        before = handles()
        with socket.create_connection((page.host, page.port)) as connection:
            request = b"GET /static/grafana.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
            connection.sendall(request * 1000)  # 30 MB to come
            wait(lambda: handles() == before + 2)  # of both ends
            wait(lambda: handles() == before + 1)


def test_limits_are_above_zero():
    with pytest.raises(ValueError, match=r"Limits\(streams=...\) must be above 0, got 0"):
        Limits(streams=0)
