"""Who is let in: tokens, sessions, hosts, origins."""

import hmac
import logging
import re
import socket
import ssl
import subprocess
import time

import pytest

from eventful.live.page import Limits, serve
from eventful.live.page.access import Access
from tests.live.page.conftest import TOKEN, Client

BEARER = {"Authorization": f"Bearer {TOKEN}"}
OTHER = "another-token-entirely"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3"])
def test_addresses_that_others_reach_need_a_token(board, host):
    with pytest.raises(ValueError, match="needs a token there"):
        serve(board, host, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_addresses_of_this_machine_need_none(board, host):
    try:
        with serve(board, host, 0) as page:
            assert socket.create_connection((page.host, page.port)).close() is None
    except OSError as error:
        if ":" in host:
            pytest.skip(f"this machine has no IPv6: {error}")
        raise


@pytest.mark.parametrize(
    "token",
    ["", "short", "fifteen-letters", "with a space in it", "ümlaute-im-wort-x", 1_025 * "x"],
)
def test_a_token_has_to_be_long_and_plain(board, token):
    with pytest.raises(ValueError, match=r"secrets\.token_urlsafe"):
        serve(board, port=0, token=token)


def test_nothing_is_told_without_the_token(closed):
    ask = Client(closed)
    for method, path in (
        ("GET", "/api/status"), ("GET", "/api/cameras"), ("POST", "/api/cameras"),
        ("DELETE", "/api/cameras/front"), ("GET", "/api/cameras/front/picture"),
        ("GET", "/api/policy"), ("PUT", "/api/policy"), ("GET", "/api/events"),
        ("GET", "/api/results"), ("GET", "/metrics"), ("GET", "/api/openapi.json"),
        ("DELETE", "/api/session"), ("GET", "/static/main.js"), ("GET", "/no/such/path"),
        ("POST", "/"), ("HEAD", "/api/status"),
    ):  # fmt: skip
        answer = ask(method, path)
        assert answer.status == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        if method != "HEAD":
            assert answer.error == (401, "token_needed")
    assert ask("GET", "/healthz").json == {"status": "ok"}
    assert ask("GET", "/").headers["location"] == "/login"
    assert ask("GET", "/login").status == 200


def test_the_token_lets_in(closed):
    assert Client(closed, BEARER)("GET", "/api/status").status == 200
    assert (
        Client(closed, {"Authorization": f"bearer  {TOKEN} "})("GET", "/api/status").status == 200
    )


@pytest.mark.parametrize(
    "header",
    [f"Bearer {OTHER}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", "Bearer ",
     f"Basic {TOKEN}",
     TOKEN, f"Bearer {TOKEN.upper()}", "Bearer \xff\xfe"],
)  # fmt: skip
def test_another_token_does_not(closed, header):
    assert Client(closed, {"Authorization": header})("GET", "/api/status").error == (
        401,
        "wrong_token",
    )


def test_the_token_counts_in_no_url(closed):
    ask = Client(closed)
    for path in (
        f"/api/status?token={TOKEN}",
        f"/?token={TOKEN}",
        f"/api/status?access_token={TOKEN}",
    ):
        assert ask("GET", path).status in (401, 303)


def test_a_browser_logs_in_and_out(closed):
    ask = Client(closed)
    assert ask("POST", "/api/session", {"token": OTHER}).error == (401, "wrong_token")
    answer = ask("POST", "/api/session", {"token": TOKEN})
    assert (answer.status, answer.body) == (204, b"")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {*re.split("; ", cookie)}
    assert "Secure" not in cookie  # HTTP
    value = cookie.partition(";")[0]
    assert TOKEN not in value
    known = Client(closed, {"Cookie": f"a=b; {value}; c=d"})
    assert known("GET", "/api/status").status == 200
    assert known("GET", "/").status == 200
    assert Client(closed, {"Cookie": value + "x"})("GET", "/api/status").error == (
        401,
        "token_needed",
    )
    assert known("DELETE", "/api/session").status == 204
    assert known("GET", "/api/status").error == (401, "token_needed")  # for the server, too


def test_sessions_end_and_are_few():
    access = Access(TOKEN, limits=Limits(sessions=2, session_hours=0.5 / 3600))
    cookies = [{"cookie": f"eventful_session={access.log_in(TOKEN)}"} for _ in range(3)]
    assert [access.is_known(cookie) for cookie in cookies] == [False, True, True]
    time.sleep(0.6)
    assert not any(access.is_known(cookie) for cookie in cookies)


def test_tokens_are_compared_in_constant_time(monkeypatch):
    """By what the standard library has for it, over digests: of equal length, whatever is sent."""
    compared = []

    def compare(one, other):
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    access = Access(TOKEN)
    for token in ("", "x", TOKEN[:-1], TOKEN, 10_000 * "x"):
        assert access.is_known({"authorization": f"Bearer {token}"}) == (token == TOKEN)
    assert compared == 5 * [(32, 32)]
    assert TOKEN not in repr(vars(access))


def test_tokens_are_never_logged(board, caplog):
    caplog.set_level(logging.DEBUG)
    with serve(board, port=0, token=TOKEN) as page:
        for token in (TOKEN, OTHER):
            ask = Client(page, {"Authorization": f"Bearer {token}"})
            ask("GET", f"/api/status?token={token}")
            ask("POST", "/api/session", {"token": token})
            ask("POST", "/api/session", {"token": {"nested": token}})
            ask("POST", f"/{token}", body=token.encode())
    assert "a wrong token came from 127.0.0.1" in caplog.text
    assert caplog.text.count("a wrong token came") == 1  # no flood
    assert TOKEN not in caplog.text
    assert OTHER not in caplog.text


def test_no_answer_repeats_what_was_sent(closed):
    ask = Client(closed, BEARER)
    secret = "rtsp://me:mysecret@10.0.0.1/"
    for value in (
        {"name": {"a": secret}, "source": 5},
        {"name": "..", "source": secret},
        {"name": "a", "source": "file://mysecret"},
        {"name": "a" * 65, "source": secret},
        {secret: 1},
        [secret],
    ):
        answer = ask("POST", "/api/cameras", value)
        assert answer.error[0] in (403, 422)
        assert b"mysecret" not in answer.body


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:9", "LOCALHOST:1", "[::1]:80", "10.0.0.1", "localhost."]
)
def test_hosts_of_this_machine(refusing, host):
    assert refusing("GET", "/api/status", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0:80", "[::]", "",
     "a b",
     "localhost:x", "localhost@evil.example", "evil.example:127.0.0.1", "2130706433", "127.1"],
)  # fmt: skip
def test_other_hosts_are_refused(refusing, host):
    """DNS rebinding: a page of evil.example whose name leads here keeps that name in Host."""
    assert refusing("GET", "/api/status", headers={"Host": host}).error == (421, "wrong_host")


def test_hosts_may_be_named(board):
    with serve(board, "localhost", 0, hosts=["Cams.Example"]) as page:
        ask = Client(page)
        for host in ("cams.example", "CAMS.example:8008", "localhost"):
            assert ask("GET", "/api/status", headers={"Host": host}).status == 200
        assert ask("GET", "/api/status", headers={"Host": "x.cams.example"}).status == 421


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "http://127.0.0.1", "x"]
)
@pytest.mark.parametrize(
    ("method", "path", "value"),
    [
        ("PUT", "/api/policy", {"policy": "auto:1"}),
        ("POST", "/api/cameras", {"name": "a", "source": "rtsp://10.0.0.1/"}),
        ("DELETE", "/api/cameras/front", None),
        ("POST", "/api/session", {"token": TOKEN}),
    ],
)
def test_pages_of_other_origins_change_nothing(refusing, origin, method, path, value):
    answer = refusing(method, path, value, headers={"Origin": origin})
    assert answer.error == (403, "other_origin")
    assert refusing.board.policies == []
    assert {*refusing.board.cameras} == {"front", "back"}


def test_the_pages_own_origin_may(ask, board, page):
    own = {"Origin": f"http://127.0.0.1:{page.port}", "Sec-Fetch-Site": "same-origin"}
    assert ask("PUT", "/api/policy", {"policy": "auto:0.5"}, headers=own).status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_may_only_link_here(refusing, site):
    sent = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
    assert refusing("GET", "/api/cameras/front/picture", headers=sent).error == (
        403,
        "other_origin",
    )
    assert refusing("GET", "/", headers=sent | {"Sec-Fetch-Mode": "navigate"}).status == 200
    sent["Sec-Fetch-Mode"] = "navigate"
    assert refusing("POST", "/api/cameras", headers=sent).error == (403, "other_origin")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
def test_a_form_of_another_site_cannot_be_json(refusing, kind):
    headers = {"Content-Type": kind} if kind else {}
    answer = refusing("PUT", "/api/policy", body=b'{"policy": "auto:1"}', headers=headers)
    assert answer.error == (415, "not_json")
    assert refusing.board.policies == []


def test_every_answer_has_the_headers(refusing, closed):
    answers = [
        refusing("GET", "/"), refusing("GET", "/static/main.js"), refusing("GET", "/api/status"),
        refusing("GET", "/none"),
        refusing("GET", "/api/cameras/front/picture"), refusing("PUT", "/api/policy", body=b"{"),
        refusing("GET", "/metrics"),
        refusing("GET", "/", headers={"Host": "evil.example"}), Client(closed)("GET", "/"),
        Client(closed)("GET", "/login"),
        refusing("GET", "/" + 3000 * "a"), refusing("OPTIONS", "/api/policy", headers={"Origin": "http://evil.example"}),
    ]  # fmt: skip
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_https_with_a_certificate(board, tmp_path, caplog):
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem", "-out",
         tmp_path / "cert.pem"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl is not there to make a certificate")
    paths = {"certificate": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    with serve(board, port=0, token=TOKEN, **paths) as page:
        assert page.url == f"https://127.0.0.1:{page.port}/"
        with context.wrap_socket(
            socket.create_connection((page.host, page.port)), server_hostname="127.0.0.1"
        ) as connection:
            body = f'{{"token": "{TOKEN}"}}'
            connection.sendall(
                f"POST /api/session HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                "Content-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
            )
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert b" 204 " in answer
    assert b"; Secure" in answer


def test_a_certificate_that_is_none_is_said(board, tmp_path):
    for text in (None, "no certificate"):
        path = tmp_path / "cert.pem"
        if text is not None:
            path.write_text(text)
        with pytest.raises(OSError, match=r"the certificate .*cert.pem or its key cannot be read"):
            serve(board, port=0, certificate=path)


def test_without_a_certificate_the_log_warns(board, caplog):
    with serve(board, "0.0.0.0", 0, token=TOKEN) as page:
        assert page.url == f"http://127.0.0.1:{page.port}/"
        assert (
            Client(page, BEARER)("GET", "/api/status", headers={"Host": page.url[7:-1]}).status
            == 200
        )
    assert "whoever listens on the network reads its token" in caplog.text
    assert TOKEN not in caplog.text
