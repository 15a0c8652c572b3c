"""Runs the page in a thread beside the cameras."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import threading
import time
from collections.abc import Collection
from typing import Any, final

import uvicorn

from eventful.live.board import Board
from eventful.live.page.addresses import ALLOWED
from eventful.live.page.application import app
from eventful.live.page.connections import connections
from eventful.live.page.limits import Limits

_log = logging.getLogger("eventful")
GRACE = 2  # seconds that open answers have to end


@final
class Page:
    """A page that runs; a context manager that ends it.

    Attributes:
        host: Where it listens.
        port: The same.
        url: What to open in a browser of this machine.
    """

    def __init__(self, listening: socket.socket, config: uvicorn.Config, application: Any) -> None:
        self.host: str = listening.getsockname()[0]
        self.port: int = listening.getsockname()[1]
        reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        shown = f"[{reached}]" if ":" in reached else reached
        self.url = f"{'https' if config.is_ssl else 'http'}://{shown}:{self.port}/"
        self._application = application
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="eventful-page", daemon=True
        )
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)
        if not self._server.started:
            raise RuntimeError("the page did not start; the log says why")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, with all event streams. May be called more than once."""
        self._application.close()
        self._server.should_exit = True
        self._thread.join(GRACE + 5)  # no longer, should the board hold a thread


def serve(
    board: Board,
    host: str = "127.0.0.1",
    port: int = 8008,
    *,
    token: str | None = None,
    allow: Collection[str] = ALLOWED,
    hosts: Collection[str] = (),
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
) -> Page:
    """Serve the page of a board from a thread, until the result is closed.

    Args:
        board: The cameras.
        host: The address or name to listen at. One that other machines reach needs a token.
        port: The port; 0 takes a free one.
        token: As for `app`.
        allow: As for `app`.
        hosts: As for `app`; a `host` given by name is among them.
        certificate: A file in PEM format, for HTTPS.
        key: The certificate's key, unless the same file has it.
        limits: Bounds on requests and connections.

    Raises:
        ValueError: The address needs a token, or the token is too short.
        OSError: The address or port cannot be used, or the certificate cannot be read.

    Example:
        >>> from eventful.live.page import serve
        >>> board = ...  # of your cameras
        >>> with serve(board, port=0) as page:
        ...     page.host
        '127.0.0.1'
    """
    limits = limits or Limits()
    family, address = _resolve(host, port)
    if token is None and not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        raise ValueError(
            f"other machines reach {host}, so the page needs a token there: give token=... "
            "(eventful watch --token-file FILE), or listen at 127.0.0.1 and bring the port over "
            "with ssh -L"
        )
    application = app(board, token=token, allow=allow, hosts=(*hosts, *_names(host)), limits=limits)
    config = uvicorn.Config(
        application,
        http=connections(limits),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        log_level="error",
        access_log=False,  # nothing of a request is logged
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=limits.headers,
        timeout_keep_alive=max(1, int(min(5, limits.seconds))),
        timeout_graceful_shutdown=GRACE,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        config.load()
    except OSError as error:
        raise OSError(f"the certificate {certificate} or its key cannot be read: {error}") from None
    if token is not None and not config.is_ssl and not address[0].startswith(("127.", "::1")):
        _log.warning(
            "the page at %s has no certificate: whoever listens on the network reads its token; "
            "give a certificate, or put a proxy with TLS before it",
            host,
        )
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
        return Page(listening, config, application)
    except OSError as error:
        listening.close()
        raise OSError(
            error.errno, f"cannot listen at {host}, port {port}: {error.strerror}"
        ) from None


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise OSError(f"there is no address {host!r} to listen at: {error}") from None
    return found[0][0], found[0][4]


def _names(host: str) -> tuple[str, ...]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return (host,)
    return ()
