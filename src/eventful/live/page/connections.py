"""Connections that do not wait for ever, and whose errors are JSON like all others."""

from __future__ import annotations

import asyncio
import logging
from typing import final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from eventful.live.page.guard import HEADERS
from eventful.live.page.limits import Limits
from eventful.live.page.refusals import Refusal


def connections(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol of uvicorn with bounds on what a connection may take.

    Args:
        limits: `connections` are held at one time; one that brings no whole header within
            `seconds`, or takes nothing in for so long, is closed.
    """

    @final
    class Bounded(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.logger = _QUIET
            if len(self.connections) > limits.connections:
                transport.abort()
            else:
                self._timer = self.loop.call_later(limits.seconds, transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            _cancel(self._timer, self._stalled)
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            # Between requests uvicorn's own timer runs; within a header, this one.
            waits = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None
            if not waits:
                _cancel(self._timer)
                self._timer = None
            elif self._timer is None:
                self._timer = self.loop.call_later(limits.seconds, self.transport.abort)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stalled = self.loop.call_later(limits.seconds, self.transport.abort)

        def resume_writing(self) -> None:
            _cancel(self._stalled)
            super().resume_writing()

        def send_400_response(self, msg: str) -> None:
            refusal = Refusal(
                "bad_request", "this is no request of HTTP, or its header is too long"
            )
            headers = {
                "content-type": "application/json",
                "content-length": str(len(refusal.body)),
                "connection": "close",
                **HEADERS,
            }
            try:
                start = h11.Response(
                    status_code=400, headers=[*headers.items()], reason=b"Bad Request"
                )
                pieces = start, h11.Data(data=refusal.body), h11.EndOfMessage()
                self.transport.write(b"".join(self.conn.send(piece) or b"" for piece in pieces))
            except h11.LocalProtocolError:  # an answer is under way
                pass
            self.transport.close()

    return Bounded


_QUIET = logging.getLogger("eventful.live.page.connections")
_QUIET.setLevel(logging.CRITICAL)


def _cancel(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()
