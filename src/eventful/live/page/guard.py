"""Stands before the application: what is too large, too slow or not entitled goes no further."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from typing import final

from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eventful.live.page.access import Access
from eventful.live.page.addresses import masked
from eventful.live.page.limits import Limits
from eventful.live.page.refusals import Refusal, Refusals

_log = logging.getLogger("eventful")

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
# What a browser needs before it can log in, and what a supervisor asks that has no token.
OPEN = {"/login", "/static/login.js", "/static/page.css", "/static/icon.svg", "/healthz"}
SESSION = "/api/session"
LINGER = 8 * 2**20  # bytes of a refused body that are read and thrown away
TELL = 10.0  # seconds between two lines of the log on wrong tokens


class _GoneError(Exception):
    """The client went before its request was whole."""


@final
class Guard:
    """An ASGI application around another.

    Args:
        inner: The application that it guards.
        access: Who may ask.
        limits: How much.
        refusals: Counts them.
    """

    def __init__(self, inner: ASGIApp, access: Access, limits: Limits, refusals: Refusals) -> None:
        self._inner = inner
        self._access = access
        self._limits = limits
        self._refusals = refusals
        self._told = -TELL

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            body = await self._admit(scope, receive)
        except Refusal as refusal:
            if refusal.kind == "token_needed" and (scope["method"], scope["path"]) == ("GET", "/"):
                await RedirectResponse("/login", 303)(scope, receive, answer)
                return
            self._tell(refusal, scope)
            await self._refuse(refusal, scope, receive, answer)
            return
        except _GoneError:
            return
        try:
            await self._inner(scope, _again(body, receive), answer)
        except Exception:  # the application has answered that it failed
            _log.error("the page could not answer a request\n%s", masked(traceback.format_exc()))

    async def _admit(self, scope: Scope, receive: Receive) -> bytes:
        """The request's body, if it may go on."""
        target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if target > self._limits.target:
            raise Refusal(
                "target_too_long", f"path and query have {self._limits.target} bytes at most"
            )
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self._limits.headers:
            raise Refusal("headers_too_large", f"headers have {self._limits.headers} bytes at most")
        headers = _headers(scope)
        self._access.check_host(headers.get("host"))
        self._access.check_origin(scope["method"], headers)
        logs_in = scope["path"] == SESSION and scope["method"] == "POST"
        if not logs_in and scope["path"] not in OPEN and not self._access.is_known(headers):
            kind = "wrong_token" if "authorization" in headers else "token_needed"
            raise Refusal(
                kind,
                "send the token that the page was started with: `Authorization: Bearer TOKEN`",
                {"www-authenticate": "Bearer"},
            )
        body = await self._read(headers, receive)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and kind != "application/json":
            raise Refusal("not_json", "a body is JSON: `Content-Type: application/json`")
        return body

    async def _read(self, headers: dict[str, str], receive: Receive) -> bytes:
        most = self._limits.body
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 12 or int(length) > most:
            raise Refusal("body_too_large", f"a body has {most} bytes at most")

        async def read() -> bytes:
            body, more = b"", True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _GoneError
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > most:
                    raise Refusal("body_too_large", f"a body has {most} bytes at most")
            return body

        try:
            return await asyncio.wait_for(read(), self._limits.seconds)
        except asyncio.TimeoutError:
            raise Refusal("too_slow", "the body did not arrive in time") from None

    async def _refuse(self, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then let the client finish, else it might lose the answer with the connection."""
        response = self._refusals.answer(refusal)
        headers = _headers(scope)
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        if has_body:
            response.headers["connection"] = "close"
        start = {"type": "http.response.start", "status": refusal.status}
        await send({**start, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": refusal.body, "more_body": True})
        if has_body and refusal.kind != "too_slow":
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_drain(receive), self._limits.seconds)
        await send({"type": "http.response.body", "body": b""})

    def _tell(self, refusal: Refusal, scope: Scope) -> None:
        if refusal.kind == "wrong_token" and time.monotonic() - self._told >= TELL:
            self._told = time.monotonic()
            client = scope.get("client") or ("an unknown address", 0)
            _log.warning("a wrong token came from %s", client[0])


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def _drain(receive: Receive) -> None:
    read, more = 0, True
    while more and read < LINGER:
        message = await receive()
        read += len(message.get("body", b""))
        more = message.get("more_body", False)


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read once more, then what comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
