"""What is told of cameras while they run, and what may be asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

State = Literal["connecting", "live", "waiting", "ended", "paused"]


class Point(NamedTuple):
    """A frame of a camera's history.

    Attributes:
        time: When the frame was taken in, in seconds since the epoch.
        kind: "dense", "partial", "carried" or "held".
        estimate: Relative error of what was shown, as estimated; None where nothing is.
        share: Operations used over the dense model's.
        latency_ms: From the frame's arrival to its result.
    """

    time: float
    kind: str
    estimate: float | None
    share: float
    latency_ms: float


@dataclass(frozen=True)
class CameraStatus:
    """How a camera is doing.

    Attributes:
        name: Its name.
        source: Where it is, credentials masked.
        state: "connecting", "live", "waiting" (for the next try), "ended" or "paused".
        reason: What went wrong last, credentials masked; empty if nothing did.
        retry_in: Seconds until the next try, while it waits.
        size: Height and width of its frames in pixels; None before the first.
        processed: Frames with a result.
        dropped: Frames that a newer one replaced before their turn.
        failed: Frames that could not be computed.
        reconnects: How often it came back.
        rate: Results a second over the last ten seconds.
        kind: What its last frame was.
        estimate: Estimated relative error of what is shown; None where nothing is estimated.
        age: Frames since its last dense frame.
        operations: Used so far, in multiply-accumulates.
        dense_operations: What the dense model would have used.
        latency_ms: From the arrival of the last frame to its result.
    """

    name: str
    source: str
    state: State
    reason: str = ""
    retry_in: float | None = None
    size: tuple[int, int] | None = None
    processed: int = 0
    dropped: int = 0
    failed: int = 0
    reconnects: int = 0
    rate: float = 0.0
    kind: str = ""
    estimate: float | None = None
    age: int = 0
    operations: int = 0
    dense_operations: int = 0
    latency_ms: float | None = None


@dataclass(frozen=True)
class Status:
    """How all cameras are doing.

    Attributes:
        model: The model's name.
        policy: What the budget or the error target is, as `eventful.parse` reads it.
        started: When, in seconds since the epoch.
        cameras: In the order in which they were added.
        silent: Seconds since the thread that computes last went round its cameras, whether they had
            frames or not; infinite once it has ended.
    """

    model: str
    policy: str
    started: float
    cameras: tuple[CameraStatus, ...] = ()
    silent: float = 0.0


@dataclass(frozen=True)
class Result:
    """A frame's result, as outputs and subscribers get it.

    Attributes:
        camera: The camera's name.
        frame: The frame's number since the camera was added; dropped frames count.
        time: When it was shown, in seconds since the camera's first frame, by the stream's clock;
            over a break that goes on by this machine's. Streams without a clock (MJPEG, webcams)
            have the time of arrival, in seconds since the epoch.
        arrived: When it was taken in, in seconds since the epoch.
        kind: What it was.
        estimate: Estimated relative error of what is shown.
        latency_ms: From its arrival to its result.
        values: What the heads give, by column.
    """

    camera: str
    frame: int
    time: float
    arrived: float
    kind: str
    estimate: float | None
    latency_ms: float
    values: dict[str, Any] = field(default_factory=dict)


class Subscription(Protocol):
    """Results as they come; the oldest are dropped where the reader is slow."""

    def get(self, timeout: float) -> Result | None:
        """The next result, or None after so many seconds."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Board(Protocol):
    """What the page needs of the cameras. Every method may be called from any thread."""

    def status(self) -> Status:
        """How all cameras are doing now."""
        ...

    def picture(self, camera: str, width: int) -> bytes | None:
        """The last frame with its result drawn in, as JPEG; None before the first.

        Raises:
            KeyError: There is no such camera.
        """
        ...

    def history(self, camera: str) -> Sequence[Point]:
        """Its latest frames, oldest first, at most 1,000.

        Raises:
            KeyError: There is no such camera.
        """
        ...

    def latencies(self) -> tuple[Sequence[float], Sequence[int], float]:
        """Upper bounds in ms, frames up to each bound (the last is all), and the sum in ms."""
        ...

    def set_policy(self, text: str) -> None:
        """Give all cameras another budget or error target, from their next frames on.

        Raises:
            ValueError: The text is no frame policy.
        """
        ...

    def add(self, camera: str, source: str) -> None:
        """Add a camera.

        Raises:
            ValueError: The name is taken or not allowed, or the source is not understood.
        """
        ...

    def remove(self, camera: str) -> None:
        """Remove a camera.

        Raises:
            KeyError: There is no such camera.
        """
        ...

    def subscribe(self, camera: str | None = None) -> Subscription:
        """Results of one camera, or of all."""
        ...
