"""Puts the page together."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client.exposition import choose_encoder
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from eventful.live.board import Board
from eventful.live.page import files
from eventful.live.page.access import Access
from eventful.live.page.addresses import ALLOWED
from eventful.live.page.api import Api
from eventful.live.page.guard import Guard
from eventful.live.page.limits import Limits
from eventful.live.page.metrics import registry
from eventful.live.page.refusals import Refusal, Refusals

_OF_STATUS = {400: "bad_json", 404: "not_found", 405: "method_not_allowed"}
_TEXTS = {
    "bad_json": "the body is no JSON",
    "not_found": "there is nothing at this path; docs/live-page.md lists what there is",
    "method_not_allowed": "this path takes other methods",
}


@final
class Application:
    """An ASGI application.

    Args:
        guard: Stands before it.
        api: What it answers.
    """

    def __init__(self, guard: Guard, api: Api) -> None:
        self._guard = guard
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._guard(scope, receive, send)

    def close(self) -> None:
        """Let event streams end."""
        self._api.streams.close()


def app(
    board: Board,
    *,
    token: str | None = None,
    allow: Collection[str] = ALLOWED,
    hosts: Collection[str] = (),
    limits: Limits | None = None,
) -> Application:
    """The page as an ASGI application, for a server of your own.

    Your server has to bound the size of headers and the time that connections take; `serve` does.

    Args:
        board: The cameras.
        token: What clients have to know: 16 printable characters or more. None lets everyone in
            who reaches the server.
        allow: Schemes of sources that may be added through the API.
        hosts: Names of this machine under which clients ask for the page, besides `localhost` and
            addresses.
        limits: Bounds on requests.

    Raises:
        ValueError: The token is too short, or a scheme is no scheme.

    Example:
        >>> from eventful.live.page import app
        >>> board = ...  # of your cameras
        >>> application = app(board, token="a token of your own".replace(" ", "-"))
    """
    limits = limits or Limits()
    schemes = _schemes(allow)
    access = Access(token, hosts, limits)
    refusals = Refusals()
    api = Api(board, access, limits, schemes)
    measured = registry(board, api.views, api.streams, refusals)

    async def refuse(_: Request, error: Exception) -> Response:
        return refusals.answer(_refusal(error))

    def metrics(request: Request) -> Response:
        """All figures in the format of Prometheus."""
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(measured), headers={"content-type": kind})

    inner = FastAPI(
        title="eventful: live cameras",
        docs_url=None,  # it would load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        redirect_slashes=False,
    )
    for kind in (Refusal, HTTPException, RequestValidationError, Exception):
        inner.add_exception_handler(kind, refuse)
    inner.include_router(files.router())
    inner.include_router(api.router())
    inner.add_api_route("/metrics", metrics, response_model=None)
    return Application(Guard(inner, access, limits, refusals), api)


def _schemes(allow: Collection[str]) -> tuple[str, ...]:
    if isinstance(allow, str):
        raise ValueError(f"allow takes several schemes, as ('rtsp', 'http'); got {allow!r}")
    for scheme in allow:
        if not scheme.isascii() or not scheme.isalnum() or not scheme.islower():
            raise ValueError(f"a scheme is a word as rtsp or http, got {scheme!r}")
    return tuple(allow)


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, RequestValidationError):
        found = error.errors()
        if any(problem["type"] == "json_invalid" for problem in found):
            return Refusal("bad_json", _TEXTS["bad_json"])
        return Refusal("invalid", "; ".join(_problem(problem) for problem in found[:5]))
    if not isinstance(error, HTTPException):
        return Refusal("failed", "the page failed; its log says why")
    kind = _OF_STATUS.get(error.status_code, "bad_request")
    return Refusal(kind, _TEXTS.get(kind, "the request is not understood"), error.headers)


def _problem(problem: dict[str, Any]) -> str:
    """What was wrong with a field, without what was sent."""
    if problem["type"] == "extra_forbidden":
        return "a field is not known here"
    where = ".".join(str(part) for part in problem["loc"][1:]) or "the body"
    return f"{where}: {problem['msg']}"
