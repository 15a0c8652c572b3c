"""Server-Sent Events: the state of all cameras, and results as they come."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import final

import anyio
import anyio.to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from eventful.live.board import Board
from eventful.live.page.plain import to_json
from eventful.live.page.refusals import Refusal
from eventful.live.page.views import Views

EVERY = 1.0  # seconds between two states
WAIT = 0.5  # seconds that a stream waits for a result before it looks whether it is to end
QUIET = 15.0  # seconds after which an empty line shows that a stream is alive
MOST = 64  # results sent in one piece


@final
class Streams:
    """The event streams that are open.

    Args:
        most: How many may be at one time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.limiter = anyio.CapacityLimiter(most)
        self.open = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A stream's place.

        Raises:
            Refusal: All are taken.
        """
        with self._lock:
            if self.open >= self._most:
                raise Refusal(
                    "too_many_streams",
                    f"there are {self._most} event streams at most",
                    {"retry-after": "5"},
                )
            self.open += 1
        try:
            yield
        finally:
            with self._lock:
                self.open -= 1

    @property
    def closing(self) -> bool:
        """Whether streams are to end."""
        return self._closing.is_set()

    def close(self) -> None:
        """Let all streams end within a second."""
        self._closing.set()


@final
class EventStream(Response):
    """An answer that goes on until the client leaves or the page ends.

    Args:
        streams: Of which it is one.
        events: Pieces of text to send.
    """

    media_type = "text/event-stream"

    def __init__(self, streams: Streams, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._streams = streams
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        with self._streams.place():
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            async with aclosing(self._events) as events, anyio.create_task_group() as group:

                async def leave() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    group.cancel_scope.cancel()

                group.start_soon(leave)
                async for piece in events:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                group.cancel_scope.cancel()
            await send({"type": "http.response.body", "body": b""})


async def states(views: Views, streams: Streams) -> AsyncGenerator[bytes, None]:
    """The state of all cameras, every second, as the event "status"."""
    while not streams.closing:
        status = await anyio.to_thread.run_sync(views.status, limiter=streams.limiter)
        yield _event("status", to_json(status))
        due = time.monotonic() + EVERY
        while time.monotonic() < due and not streams.closing:
            await anyio.sleep(WAIT / 2)


async def results(
    board: Board, camera: str | None, streams: Streams
) -> AsyncGenerator[bytes, None]:
    """Results of a camera or of all, as the event "result"."""
    subscription = board.subscribe(camera)
    sent = time.monotonic()

    def wait() -> list[bytes]:
        found = [subscription.get(WAIT)]
        while found[-1] is not None and len(found) < MOST:
            found.append(subscription.get(0))
        return [_event("result", to_json(vars(result))) for result in found if result is not None]

    try:
        yield b": results follow\n\n"
        while not streams.closing:
            pieces = await anyio.to_thread.run_sync(wait, limiter=streams.limiter)
            if pieces or time.monotonic() - sent > QUIET:
                sent = time.monotonic()
                yield b"".join(pieces) or b": quiet\n\n"
    finally:
        subscription.close()


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
