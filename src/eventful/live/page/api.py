"""The HTTP API: cameras, budget, pictures and streams of results."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Collection
from typing import Annotated, Any, final

import anyio
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from eventful.live.board import Board
from eventful.live.page.access import COOKIE, Access
from eventful.live.page.addresses import check_name, check_source, masked
from eventful.live.page.events import EventStream, Streams, results, states
from eventful.live.page.limits import Limits
from eventful.live.page.plain import to_json
from eventful.live.page.refusals import Refusal
from eventful.live.page.views import Views, missing
from eventful.policies import parse

# Frame policies alone, and numbers alone after the colon: a policy's text may also name a file.
_POLICY = re.compile(r"(auto|time|error|latency|carry|skip):[0-9][0-9.e+/-]{0,31}", re.ASCII)
STUCK = 5.0  # seconds that the board may take to answer
SILENT = 30.0  # seconds that the cameras' thread may take for a frame, the first included


class Camera(BaseModel):
    """A camera to add."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Field(max_length=64)
    source: str = Field(max_length=1024)


class Policy(BaseModel):
    """A budget or an error target, as `eventful.parse` reads it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    policy: str = Field(max_length=64)


class Token(BaseModel):
    """What a browser logs in with."""

    model_config = ConfigDict(extra="forbid", strict=True)
    token: str = Field(max_length=1024)


@final
class Api:
    """Answers of the API.

    Args:
        board: The cameras.
        access: Who may ask.
        limits: How much.
        allow: Schemes of sources that may be added.
    """

    def __init__(
        self, board: Board, access: Access, limits: Limits, allow: Collection[str]
    ) -> None:
        self.views = Views(board)
        self.streams = Streams(limits.streams)
        self._board = board
        self._access = access
        self._limits = limits
        self._allow = tuple(allow)
        self._changing = threading.Lock()
        self._asking = anyio.CapacityLimiter(2)

    def router(self) -> APIRouter:
        """Its routes."""
        router = APIRouter()
        for path, method, answer in (
            ("/healthz", "GET", self.health),
            ("/api/status", "GET", self.status),
            ("/api/cameras", "GET", self.cameras),
            ("/api/cameras", "POST", self.add),
            ("/api/cameras/{name:path}/history", "GET", self.history),
            ("/api/cameras/{name:path}/picture", "GET", self.picture),
            ("/api/cameras/{name:path}", "DELETE", self.remove),
            ("/api/policy", "GET", self.policy),
            ("/api/policy", "PUT", self.set_policy),
            ("/api/events", "GET", self.events),
            ("/api/results", "GET", self.results),
            ("/api/session", "POST", self.log_in),
            ("/api/session", "DELETE", self.log_out),
        ):
            router.add_api_route(path, answer, methods=[method], response_model=None)
        return router

    async def health(self) -> Response:
        """Whether the cameras are watched; needs no token and tells no more."""
        silent = None
        with anyio.move_on_after(STUCK):
            status = await anyio.to_thread.run_sync(
                self.views.board_status, abandon_on_cancel=True, limiter=self._asking
            )
            silent = status.silent
        if silent is None:
            raise Refusal("stuck", f"the cameras did not answer within {STUCK:g} seconds")
        if math.isinf(silent):
            raise Refusal("stuck", "the watch has ended")
        if silent > SILENT:
            raise Refusal("stuck", f"nothing has been computed for {silent:.0f} seconds")
        return _json({"status": "ok"})

    def status(self) -> Response:
        """Model, policy and all cameras."""
        about = {"allowed": self._allow, "token": self._access.needs_token}
        return _json(self.views.status() | about)

    def cameras(self) -> Response:
        """All cameras."""
        return _json({"cameras": self.views.status()["cameras"]})

    def add(self, camera: Camera) -> Response:
        """Add a camera."""
        check_name(camera.name)
        check_source(camera.source, self._allow)
        with self._changing:
            known = self._board.status().cameras
            if len(known) >= self._limits.cameras:
                raise Refusal(
                    "too_many_cameras", f"there are {self._limits.cameras} cameras at most"
                )
            try:
                self._board.add(camera.name, camera.source)
            except ValueError as error:
                raise Refusal("camera_refused", masked(str(error))) from None
        self.views.forget()
        return _json({"name": camera.name}, 201)

    def remove(self, name: str) -> Response:
        """Remove a camera."""
        try:
            self._board.remove(name)
        except KeyError:
            raise missing() from None
        self.views.forget()
        return Response(status_code=204)

    def history(self, name: str, since: float = 0.0) -> Response:
        """A camera's latest frames, a list for each figure."""
        return _json({"camera": name} | self.views.history(name, since))

    def picture(self, name: str, width: Annotated[int, Query(ge=16, le=4096)] = 640) -> Response:
        """A camera's last frame with its result drawn in, as JPEG."""
        return Response(self.views.picture(name, width), media_type="image/jpeg")

    def policy(self) -> Response:
        """What the budget or the error target is."""
        return _json({"policy": self.views.board_status().policy})

    def set_policy(self, policy: Policy) -> Response:
        """Give all cameras another budget or error target."""
        try:
            if not _POLICY.fullmatch(policy.policy):
                raise ValueError(
                    "a policy here is one of auto:0.2, time:0.2, error:0.15, latency:40"
                )
            text = str(parse(policy.policy))
            self._board.set_policy(text)
        except ValueError as error:
            raise Refusal("invalid", str(error)) from None
        self.views.forget()
        return _json({"policy": text})

    async def events(self) -> Response:
        """The state of all cameras every second, as Server-Sent Events."""
        return EventStream(self.streams, states(self.views, self.streams))

    async def results(self, camera: str | None = None) -> Response:
        """Results of one camera or of all as they come, as Server-Sent Events."""
        if camera is not None:
            await anyio.to_thread.run_sync(self.views.check, camera)
        return EventStream(self.streams, results(self._board, camera, self.streams))

    def log_in(self, token: Token, request: Request) -> Response:
        """Give a browser a session's cookie for the token."""
        session = self._access.log_in(token.token)
        response = Response(status_code=204)
        response.set_cookie(
            COOKIE,
            session,
            max_age=int(3600 * self._limits.session_hours),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    def log_out(self, request: Request) -> Response:
        """End a browser's session."""
        self._access.log_out(dict(request.headers))
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response


def _json(value: Any, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")
