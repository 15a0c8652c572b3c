"""What is known of one camera: its stream, its results, its figures."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, ClassVar, final

import torch
from av.video.reformatter import VideoReformatter

import eventful
from eventful.live.board import CameraStatus, Point, Result
from eventful.live.camera import Camera, Shot
from eventful.live.models import Models, Shape
from eventful.outputs import Shown
from eventful.policies import FramePolicy
from eventful.stream.budget import Budget
from eventful.stream.together import Ticket
from eventful.video.decode import shown
from eventful.video.geometry import fitted, to_pixels

RATE_SECONDS = 10.0
MOST_RESULTS = 10_000  # of which the times are remembered


@final
class Lane:
    """Computes a camera's frames, one after another.

    Args:
        camera: Where they come from.
        size: Long side of frames in pixels, as for `Watcher`.
        patch: Side of the model's patch.
        square: Squeeze frames into squares.
        saved: A snapshot to go on from, or None.
        before: Figures to go on from.
    """

    HISTORY: ClassVar[int] = 1000
    TRUSTED: ClassVar[float] = 60.0  # seconds after which the picture may be another
    COUNTS: ClassVar[tuple[str, ...]] = ("processed", "broken", "operations", "dense_operations")

    def __init__(
        self,
        camera: Camera,
        size: int,
        patch: int,
        square: bool,
        saved: Any = None,
        before: dict[str, Any] | None = None,
    ) -> None:
        self.camera = camera
        self.stream: eventful.Stream | None = None
        self.shape: Shape | None = None
        self.last: tuple[Shot, dict[str, Any]] | None = None
        self._held: dict[str, Any] | None = None  # values of the output that a held frame repeats
        self.processed = self.broken = 0
        self.operations = self.dense_operations = 0
        for name in self.COUNTS:
            setattr(self, name, int((before or {}).get(name, 0)))
        self._size, self._patch, self._square, self._saved = size, patch, square, saved
        self.seen = float((before or {}).get("seen", 0.0))  # when the last frame was taken in
        self._reformatter = VideoReformatter()
        self._reason, self._before = "", (0, 0)
        self._ticket: Ticket | None = None
        self._told = threading.Lock()  # of the next two, which others read while frames come
        self._points: deque[Point] = deque(maxlen=self.HISTORY)
        self._times: deque[float] = deque(maxlen=MOST_RESULTS)

    def ask(self, shot: Shot, models: Models, policy: FramePolicy, budget: Budget | None) -> None:
        """Hand a frame in, to be computed with those of other cameras; `answer` is to follow.

        Args:
            shot: The frame.
            models: The model of all cameras.
            policy: What frames are given.
            budget: What all cameras share, or None.
        """
        self._ticket = None
        try:
            self._ticket = self._handed_in(shot, models, policy, budget)
        except Exception as error:  # the other cameras go on, and this one with its next frame
            self._fail(error)

    @property
    def waits(self) -> bool:
        """Whether the frame that was handed in is still to be computed."""
        return self._ticket is not None and self._ticket.waits

    def answer(self, shot: Shot, models: Models, policy: FramePolicy) -> Result | None:
        """The result of the frame that was handed in; None if it failed, as `status` then tells."""
        if self._ticket is None:
            return None
        try:
            result = self._result(shot, models, policy)
        except Exception as error:
            self._fail(error)
            return None
        self._reason = ""
        self.processed += 1
        with self._told:
            self._times.append(time.monotonic())
        return result

    def _fail(self, error: Exception) -> None:
        self.broken += 1
        self._reason = f"{type(error).__name__}: {error}"
        self._held = None

    def _handed_in(
        self, shot: Shot, models: Models, policy: FramePolicy, budget: Budget | None
    ) -> Ticket:
        width, height = fitted(*shown(shot.timed), self._size, not self._square, self._patch)
        shape = height, width
        if self.stream is None or shape != self.shape:
            self.stream = self._started(models, shape, policy, budget, shot)
            self.shape = shape
        if shot.again:
            self.stream.reset([0])  # `reset()` would hold the blocks to their originals again
        timed, stats = shot.timed, self.stream.stats
        pixels = to_pixels(timed.frame, self._reformatter, timed.turn, width, height)
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
        self._before = stats.total_operations, stats.total_dense_operations
        return self.stream.ask(models.passes, image.to(torch.float32).div_(255))

    def _result(self, shot: Shot, models: Models, policy: FramePolicy) -> Result:
        assert self.stream is not None
        assert self.shape is not None
        assert self._ticket is not None
        output, stats = self._ticket.output, self.stream.stats
        (row,) = stats.rows
        used = stats.total_operations - self._before[0]
        dense = stats.total_dense_operations - self._before[1]
        self.operations += used
        self.dense_operations += dense
        if row.kind == "held" and self._held is not None:
            values = self._held
        else:
            seen, heads = Shown(self.shape, shot.size), models.network(self.shape, policy).heads
            with torch.inference_mode():
                each = [head.values(output, seen) for head in heads]
            values = {name: value for part in each for name, value in part.items()}
            self._held = values
        self.last, self.seen = (shot, values), shot.arrived
        latency = 1e3 * (time.monotonic() - shot.clock)
        point = Point(shot.arrived, row.kind, row.estimate, used / max(1, dense), latency)
        with self._told:
            self._points.append(point)
        return Result(
            self.camera.source.name,
            shot.number,
            shot.time,
            shot.arrived,
            row.kind,
            row.estimate,
            latency,
            values,
        )

    def _started(
        self, models: Models, shape: Shape, policy: FramePolicy, budget: Budget | None, shot: Shot
    ) -> eventful.Stream:
        """A stream for a shape of frames, which goes on from what was saved if that fits.

        Where that is older than `TRUSTED`, or of a time to come, the next frame is dense.
        """
        stream = models.stream(shape, policy)
        saved, self._saved = self._saved, None
        if saved is not None:
            try:
                stream.load_snapshot(saved)
            except (ValueError, OSError):  # of another model or size: begin with a dense frame
                stream = models.stream(shape, policy)
            if not 0 <= shot.arrived - self.seen <= self.TRUSTED:
                stream.reset()
        give(stream, policy, budget)
        return stream

    def give(self, policy: FramePolicy, budget: Budget | None) -> None:
        """Decide by another policy from the next frame on.

        Raises:
            ValueError: It asks for less than what every frame costs.
        """
        if self.stream is not None:
            give(self.stream, policy, budget)

    def history(self) -> list[Point]:
        """Its latest frames, oldest first."""
        with self._told:
            return list(self._points)

    def status(self) -> CameraStatus:
        """How it is doing."""
        camera, since = self.camera, time.monotonic() - RATE_SECONDS
        with self._told:
            results = sum(moment > since for moment in self._times)
            latency = self._points[-1].latency_ms if self._points else None
        rows = () if self.stream is None else self.stream.stats.rows
        reasons = self._reason, camera.reason
        first, second = reasons if camera.state == "live" else reversed(reasons)
        return CameraStatus(
            name=camera.source.name,
            source=camera.source.masked,
            state=camera.state,
            reason=camera.source.hide(first or second),
            retry_in=camera.retry_in,
            size=camera.size,
            processed=self.processed,
            dropped=camera.dropped,
            failed=camera.damaged + self.broken,
            reconnects=camera.reconnects,
            rate=results / RATE_SECONDS,
            kind=rows[0].kind if rows else "",
            estimate=rows[0].estimate if rows else None,
            age=rows[0].age if rows else 0,
            operations=self.operations,
            dense_operations=self.dense_operations,
            latency_ms=latency,
        )


def give(stream: eventful.Stream, policy: FramePolicy, budget: Budget | None) -> None:
    """Set a stream's policy and budget together, in the order in which they go."""
    if budget is None or budget is not stream.budget:
        stream.budget = None
    stream.policy = policy
    if budget is not None and stream.budget is None:
        stream.budget = budget
