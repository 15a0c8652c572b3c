"""Results on their way out: to subscribers, and into figures of latency."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from typing import ClassVar, final

from eventful.live.board import Result


@final
class Queued:
    """Results of one camera, or of all; the oldest are dropped where the reader is slow.

    Args:
        camera: Its name; None for all.
        end: Called when it is closed.
    """

    HELD: ClassVar[int] = 256

    def __init__(self, camera: str | None, end: Callable[[Queued], None]) -> None:
        self._camera, self._end = camera, end
        self._results: queue.Queue[Result] = queue.Queue(self.HELD)

    def put(self, result: Result) -> None:
        """Add a result; only one thread does."""
        if self._camera not in (None, result.camera):
            return
        while True:
            try:
                self._results.put_nowait(result)
            except queue.Full:
                try:
                    self._results.get_nowait()
                except queue.Empty:
                    continue
            else:
                return

    def get(self, timeout: float) -> Result | None:
        """The next result, or None after so many seconds."""
        try:
            return self._results.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self) -> None:
        """End it; a second time does nothing."""
        end, self._end = self._end, lambda _: None
        end(self)


@final
class Latencies:
    """How many results came within which time, in milliseconds."""

    BOUNDS: ClassVar[tuple[float, ...]] = (
        *(5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0),
        math.inf,
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts, self._sum = [0] * len(self.BOUNDS), 0.0

    def add(self, milliseconds: float) -> None:
        """Enter a result."""
        with self._lock:
            self._sum += milliseconds
            for number, bound in enumerate(self.BOUNDS):
                self._counts[number] += milliseconds <= bound

    def read(self) -> tuple[tuple[float, ...], list[int], float]:
        """Upper bounds, results up to each, and the sum."""
        with self._lock:
            return self.BOUNDS, list(self._counts), self._sum
