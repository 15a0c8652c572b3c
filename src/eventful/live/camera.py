"""A camera: reads its source in a thread of its own, for as long as it takes."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

from eventful.live.board import State
from eventful.live.feeds import Damaged, FeedError, Limits, feed
from eventful.live.sources import Source
from eventful.video.decode import Timed


@dataclass(frozen=True, eq=False)
class Shot:
    """A frame that a camera has taken in.

    Attributes:
        number: Since the camera was added; dropped and damaged frames count.
        timed: The frame, with its time since the source was opened.
        time: When it was shown, in seconds by the camera's clock; see `Result`.
        arrived: When it came, in seconds since the epoch.
        clock: The same by a clock that only goes forward.
        again: Whether the camera has come back, or shows another size, since the shot before.
    """

    number: int
    timed: Timed
    time: float
    arrived: float
    clock: float
    again: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, upright."""
        frame = self.timed.frame
        height, width = frame.height, frame.width
        return (height, width) if self.timed.turn[0] else (width, height)


@final
class Camera:
    """Keeps the newest frame of a source, and reads it again when it fails.

    Args:
        source: Where it is.
        news: Called after a frame has come, or the state has changed.
        lossless: Wait until a frame is taken, in place of dropping it for a newer one.
        fast: Read a file as fast as its frames are taken, and not at its own rate; none is dropped.
        limits: Time-outs and waits.
        before: Figures to go on from, by the names of `COUNTS`.

    Attributes:
        source: Where it is.
        received: Frames that came, whole or not.
        dropped: Of these, those that a newer one replaced.
        damaged: Of these, those that do not decode.
        reconnects: How often it came back.
    """

    # `received` last: it is raised first, so that whoever reads in this order misses no end of one
    COUNTS: ClassVar[tuple[str, ...]] = ("dropped", "damaged", "reconnects", "received")
    HELD: ClassVar[int] = 2  # frames that wait to be taken, where none may be dropped

    def __init__(
        self,
        source: Source,
        news: Callable[[], None],
        *,
        lossless: bool = False,
        fast: bool = False,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        before: Mapping[str, Any] | None = None,
    ) -> None:
        self.source = source
        self.received = self.dropped = self.damaged = self.reconnects = 0
        for name in self.COUNTS:
            setattr(self, name, int((before or {}).get(name, 0)))
        self._news, self._limits = news, limits
        self._fast = fast and source.kind == "file"
        self._lossless = lossless or self._fast
        self._shots: deque[Shot] = deque()
        self._changed = threading.Condition()
        self._state: State = "connecting"
        self._reason, self._retry, self._failures = "", 0.0, 0
        self._size: tuple[int, int] | None = None
        self._ending = False
        self._ahead = 0.0  # the camera's clock, of what its source says since it was opened
        self._last: tuple[float, float] | None = None  # the last frame's time and `clock`
        self._started = 0.0  # when the first frame of a file was shown, by a clock as in `Shot`
        self._thread = threading.Thread(target=self._run, name=source.name, daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading, and let nobody wait; `join` waits until that is done."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def take(self) -> Shot | None:
        """The newest frame, or the next one where none may be dropped; None if there is none."""
        with self._changed:
            if not self._shots:
                return None
            self._changed.notify_all()
            return self._shots.popleft()

    def drain(self) -> None:
        """Count what nobody will take as dropped."""
        with self._changed:
            self.dropped += len(self._shots)
            self._shots.clear()

    @property
    def waiting(self) -> int:
        """Frames that are not taken yet."""
        return len(self._shots)

    @property
    def state(self) -> State:
        """What it does: "connecting", "live", "waiting" or "ended"."""
        return self._state

    @property
    def reason(self) -> str:
        """What went wrong last, without secrets."""
        return self._reason

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of its frames; None before the first."""
        return self._size

    @property
    def retry_in(self) -> float | None:
        """Seconds until the next try, while it waits."""
        return max(0.0, self._retry - time.monotonic()) if self._state == "waiting" else None

    @property
    def patience(self) -> float:
        """Seconds within which it stops, unless it waits for standard input."""
        if self.source.kind == "input":
            return 0.5  # whoever writes may never write again
        return max(self._limits.opening, self._limits.reading) + 1

    def _run(self) -> None:
        reason = ""
        while not self._ending:
            self._become("connecting", self._reason)
            over, refused = self.source.kind in ("file", "input"), False  # no use in a new try
            try:
                self._read()
                over, reason = True, self._reason
            except FeedError as error:
                reason, refused = str(error), error.refused
            except Exception as error:  # whatever it is, the other cameras go on
                reason = self.source.hide(f"{type(error).__name__}: {error}")
            if over:
                break
            self._wait(reason, refused)
        self._become("ended", reason)

    def _become(self, state: State, reason: str) -> None:
        self._state, self._reason = state, reason
        self._news()

    def _wait(self, reason: str, refused: bool) -> None:
        limits = self._limits
        wait = min(limits.longest, limits.wait * 2**self._failures) * random.uniform(0.75, 1.25)
        wait = max(wait, limits.refused) if refused else wait
        self._failures = min(self._failures + 1, 30)
        self._retry = time.monotonic() + wait
        self._become("waiting", reason)
        with self._changed:
            self._changed.wait_for(lambda: self._ending, wait)

    def _read(self) -> None:
        """Read from opening to the end."""
        whole = 0
        with closing(feed(self.source, self._limits)) as frames:
            for found in frames:
                if self._ending:
                    return
                if isinstance(found, Damaged):
                    self.received += 1
                    self.damaged += 1
                    self._reason = found.reason
                    continue
                whole += 1
                if self.source.kind == "file" and not self._fast:
                    self._pace(float(found.time), whole == 1)
                self._put(found, whole == 1)
                if whole == 10:  # it is back for good
                    self._failures = 0

    def _pace(self, shown: float, first: bool) -> None:
        """Wait until a frame is due; a gap in a recording is not waited for to its end."""
        now = time.monotonic()
        if first:
            self._started = now - shown
        self._started = min(self._started, now + self._limits.frame - shown)
        with self._changed:
            self._changed.wait_for(lambda: self._ending, max(0.0, self._started + shown - now))

    def _time(self, found: Timed, first: bool, arrived: float, clock: float) -> float:
        """A frame's time by the camera's clock, which goes on while the source is away."""
        if found.time < 0:
            return arrived
        if first and self._last is not None:
            self._ahead = self._last[0] + clock - self._last[1] - float(found.time)
        return self._ahead + float(found.time)

    def _put(self, found: Timed, first: bool) -> None:
        """Take a frame in."""
        number = self.received
        arrived, clock = time.time(), time.monotonic()
        shown = self._time(found, first, arrived, clock)
        self._last = shown, clock
        shot = Shot(number, found, shown, arrived, clock, False)
        again = self._size is not None and (first or shot.size != self._size)
        if first and self._size is not None:
            self.reconnects += 1
        if not first and again:
            self._reason = f"its size changed from {_text(self._size)} to {_text(shot.size)}"
        elif first:
            self._reason = ""
        self.received += 1
        self._size, self._state = shot.size, "live"
        with self._changed:
            if self._lossless:
                room = lambda: self._ending or len(self._shots) < self.HELD  # noqa: E731
                self._changed.wait_for(room)
            elif self._shots:
                again |= self._shots.popleft().again
                self.dropped += 1
            if self._ending:  # nobody will take it
                self.dropped += 1
                return
            self._shots.append(replace(shot, again=again))
        self._news()


def _text(size: Any) -> str:
    """A size as people write it."""
    return "nothing" if size is None else f"{size[1]} x {size[0]}"
