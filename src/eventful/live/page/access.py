"""Who may ask: hosts that a request may name, origins of changes, the token, browsers' sessions."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from typing import final

from eventful.live.page.limits import Limits
from eventful.live.page.refusals import Refusal

COOKIE = "eventful_session"
SHORTEST, LONGEST = 16, 1_024
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", re.ASCII)
_TOKEN = re.compile(r"[!-~]+", re.ASCII)
_SAFE = ("GET", "HEAD", "OPTIONS")


@final
class Access:
    """Decides by a request's headers whether it is answered.

    Args:
        token: What clients have to know; None lets everyone in who reaches the page.
        hosts: Names of this machine that a request may give in its Host header, besides
            `localhost` and addresses.
        limits: Bounds on sessions.

    Raises:
        ValueError: The token is too short or holds other than printable ASCII.
    """

    def __init__(
        self, token: str | None = None, hosts: Collection[str] = (), limits: Limits | None = None
    ) -> None:
        if token is not None:
            check_token(token)
        self._token = None if token is None else _digest(token)
        self._hosts = {"localhost", *(host.lower().rstrip(".") for host in hosts)}
        self._limits = limits or Limits()
        self._sessions: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def needs_token(self) -> bool:
        """Whether there is a token."""
        return self._token is not None

    def check_host(self, host: str | None) -> None:
        """Refuse a request that was sent to another name, as after DNS rebinding.

        A page of another site can have its own name resolved to this machine, but never to an
        address: so addresses are let in.

        Args:
            host: The Host header.
        """
        if host is None:
            raise Refusal("bad_request", "the Host header is missing")
        found = _HOST.fullmatch(host.lower())
        name = found["name"].rstrip(".") if found else ""
        if name in self._hosts:
            return
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            address = None
        if address is None or address.is_unspecified:
            raise Refusal(
                "wrong_host",
                "this name of the machine is not known; ask for its address, or start the page "
                "with the name among its hosts",
            )

    def check_origin(self, method: str, headers: dict[str, str]) -> None:
        """Refuse what a page of another site sends.

        Args:
            method: Of the request.
            headers: By lower-case name.
        """
        site = headers.get("sec-fetch-site", "none")
        visit = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        origin = headers.get("origin")
        other = origin is not None and origin.partition("://")[2] != headers.get("host")
        if (site not in ("none", "same-origin") and not visit) or (method not in _SAFE and other):
            raise Refusal("other_origin", "a page of another site may not ask for this")

    def is_known(self, headers: dict[str, str]) -> bool:
        """Whether the request brings the token, or the cookie of a session.

        Args:
            headers: By lower-case name.
        """
        if self._token is None:
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(token.strip()):
            return True
        return self._is_session(_cookie(headers))

    def log_in(self, token: str) -> str:
        """The value of a new session's cookie.

        Raises:
            Refusal: The token is another one.
        """
        if self._token is not None and not self._is_token(token):
            raise Refusal("wrong_token", "this is not the token that the page was started with")
        session = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[_digest(session)] = time.time() + 3600 * self._limits.session_hours
            while len(self._sessions) > self._limits.sessions:
                self._sessions.popitem(last=False)
        return session

    def log_out(self, headers: dict[str, str]) -> None:
        """End the session of the request's cookie.

        Args:
            headers: By lower-case name.
        """
        with self._lock:
            self._sessions.pop(_digest(_cookie(headers)), None)

    def _is_token(self, token: str) -> bool:
        return self._token is not None and hmac.compare_digest(_digest(token), self._token)

    def _is_session(self, session: str) -> bool:
        with self._lock:
            return time.time() < self._sessions.get(_digest(session), 0.0)


def check_token(token: str) -> None:
    """Refuse a token that can be guessed, or cannot be sent.

    Raises:
        ValueError: It is such a one.
    """
    plain = _TOKEN.fullmatch(token) is not None
    if not plain or not SHORTEST <= len(token) <= LONGEST:
        others = "" if plain else ", others among them"
        raise ValueError(
            f"a token has {SHORTEST} to {LONGEST:,} printable ASCII characters and no spaces, got "
            f"{len(token)} characters{others}; "
            'python -c "import secrets; print(secrets.token_urlsafe())" makes one'
        )


def _digest(secret: str) -> bytes:
    """Of equal length for every secret, so that comparing takes equally long."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _cookie(headers: dict[str, str]) -> str:
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""
