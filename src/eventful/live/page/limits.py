"""How much of everything a client may ask for."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Bounds on requests, connections and cameras.

    Attributes:
        body: Bytes of a request's body.
        target: Bytes of a request's path and query.
        headers: Bytes of a request's headers.
        seconds: Time for a request to arrive whole, and for a client to take in what is sent.
        connections: Connections at one time; more are closed at once.
        streams: Event streams at one time, of all clients.
        cameras: Cameras that the API may bring the board to.
        sessions: Browsers that are logged in at one time; the oldest is logged out.
        session_hours: Until a browser has to log in again.

    Raises:
        ValueError: A bound is not above 0.

    Example:
        >>> Limits(streams=4).streams
        4
    """

    body: int = 16_384
    target: int = 2_048
    headers: int = 16_384
    seconds: float = 10.0
    connections: int = 256
    streams: int = 16
    cameras: int = 64
    sessions: int = 64
    session_hours: float = 24 * 7

    def __post_init__(self) -> None:
        for bound in fields(self):
            if not getattr(self, bound.name) > 0:
                value = getattr(self, bound.name)
                raise ValueError(f"Limits({bound.name}=...) must be above 0, got {value!r}")
