"""Many cameras, one model, one budget."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, final

from eventful import runtimes
from eventful.live.asked import alike, asked
from eventful.live.board import Point, Result, Status
from eventful.live.camera import Camera, Shot
from eventful.live.drawing import drawn
from eventful.live.feeds import Limits
from eventful.live.lane import Lane
from eventful.live.models import Models
from eventful.live.outputs import Output
from eventful.live.results import Latencies, Queued
from eventful.live.saving import Saved
from eventful.live.sources import Source
from eventful.outputs import Network
from eventful.policies import Auto


@final
class Watcher:
    """Runs a model over cameras as their frames come.

    A tick takes the newest frame of each camera that has one. Cameras have a stream each, and share
    the weights and, under `auto:F`, `time:F` and `latency:MS`, one budget: dense frames go where
    pictures change. A camera that stalls, fails or shows another size does so alone.

    It is the `Board` that the page shows; all methods may be called from any thread.

    Args:
        build: Makes the network for frames of a height and a width, such as
            `eventful.outputs.demo_network`.
        policy: What frames are given, as text: a budget for all cameras (`auto:F`, `time:F`),
            a time that a tick over all of them takes in the mean (`latency:MS`), an error for each
            (`error:E`), or `carry:K`, `skip:K`.
        model: What the network is called.
        size: Long side of frames in pixels.
        patch: Side of the model's patch; sides of frames are multiples of it.
        square: Squeeze frames into squares.
        lossless: Never drop a frame: sources wait until theirs are taken.
        fast: Read files as fast as their frames are taken, and not at their own rate.
        scene_cuts: Start over at scene cuts.
        runtime: What runs frames after the first: "torch", "openvino" or "onnxruntime".
        limits: Time-outs of cameras and waits.
        on_result: Called with each result, in the thread that computes.
        outputs: Where results are written to.
        state: A folder from which cameras go on, and to which they are saved, for this watcher
            alone until it is closed.

    Raises:
        ValueError: The policy is no frame policy, a number is out of range, or the folder is no
            state, or that of a watch that goes on.
        OutputError: The folder cannot be written to.

    Example:
        >>> from eventful.outputs import demo_network
        >>> watcher = Watcher(demo_network, "auto:0.2", size=224)
        >>> watcher.add("door", "rtsp://me:secret@127.0.0.1:9/live")
        >>> watcher.status().cameras[0].source
        'rtsp://***@127.0.0.1:9/live'
    """

    SAVED: ClassVar[float] = 300.0  # seconds between two states
    CAMERAS: ClassVar[int] = 256

    def __init__(
        self,
        build: Callable[[int, int], Network],
        policy: str = "auto:0.2",
        *,
        model: str = "demo",
        size: int = 518,
        patch: int = 14,
        square: bool = False,
        lossless: bool = False,
        fast: bool = False,
        scene_cuts: bool = True,
        runtime: runtimes.Name = "torch",
        limits: Limits = Limits(),  # noqa: B008 - frozen
        on_result: Callable[[Result], None] | None = None,
        outputs: Sequence[Output] = (),
        state: Path | None = None,
    ) -> None:
        runtimes.runtime_named(runtime)  # raises if it is unknown or not installed
        if size < patch:
            raise ValueError(f"size must be at least the patch of {patch} pixels, got {size}")
        self._models = Models(build, runtime, scene_cuts)
        self._model, self._started = model, time.time()
        self._fit = size, patch, square
        self._reading = {"lossless": lossless, "fast": fast, "limits": limits}
        self._on_result, self._outputs = on_result, list(outputs)
        self._lanes: dict[str, Lane] = {}  # never changed, only replaced: anybody may read it
        self._latencies, self._queued = Latencies(), list[Queued]()
        self._lock = threading.RLock()  # of lanes and policy; held while a frame is computed
        self._turn = threading.Lock()  # lets others have it between two frames
        self._news = threading.Condition()
        self._writing = threading.Lock()  # of outputs
        self._runs = threading.Lock()  # held by `run`
        self._fresh = self._ending = self._closed = False
        self._beat = time.monotonic()  # when the thread that computes last went round
        self._policy, self._pace, self._budget = asked(policy)
        self._saved = None if state is None else Saved(state)

    def add(self, camera: str, source: str) -> None:
        """Add a camera, while it runs or before.

        Raises:
            ValueError: The name is taken or not allowed, the source is not understood, or the watch
                has ended.
            FileNotFoundError: It is a file that is not there.
        """
        found = Source(camera, source)
        found.check()
        with self._turn, self._lock:
            if self._ending:
                raise ValueError(f"the watch has ended; start it again to add {camera}")
            if camera in self._lanes:
                raise ValueError(f"there is a camera {camera} already; take another name")
            if len(self._lanes) >= self.CAMERAS:
                raise ValueError(f"there are {self.CAMERAS} cameras already, the most there can be")
            kinds = {lane.camera.source.kind for lane in self._lanes.values()}
            if found.kind == "input" and "input" in kinds:
                raise ValueError("standard input can be only one camera; it is one already")
            snapshot, before = (None, {}) if self._saved is None else self._saved.of(found)
            reader = Camera(found, self._notify, before=before, **self._reading)
            lane = Lane(reader, *self._fit, snapshot, before)
            reader.start()  # raises where there is no room for a thread
            self._lanes = {**self._lanes, camera: lane}

    def remove(self, camera: str) -> None:
        """Remove a camera; its part of the budget goes to the others.

        Raises:
            KeyError: There is no such camera.
        """
        with self._turn, self._lock:
            lane = self._lanes[camera]
            self._lanes = {name: one for name, one in self._lanes.items() if name != camera}
            self._keep_models()
            if self._saved is not None:
                self._saved.forget(camera)
        lane.camera.stop()
        lane.camera.drain()

    def _keep_models(self) -> None:
        self._models.keep({lane.shape for lane in self._lanes.values() if lane.shape})

    def set_policy(self, text: str) -> None:
        """Give all cameras another budget or error target, from their next frames on.

        Raises:
            ValueError: The text is no frame policy, or asks for less than what every frame costs.
        """
        policy, pace, budget = asked(text)
        with self._turn, self._lock:
            self._models.passes.run()  # frames that wait keep the policy that they came under
            if budget is not None and self._budget is not None and alike(policy, self._policy):
                budget = self._budget  # what is owed stays owed
            before = self._policy, self._pace, self._budget
            self._policy, self._pace, self._budget = policy, pace, budget
            try:
                self._give()
            except ValueError:
                self._policy, self._pace, self._budget = before
                self._give()
                raise

    def _give(self) -> None:
        """Give all cameras the policy; a pace asks for no less than what every frame costs."""
        try:
            for lane in self._lanes.values():
                lane.give(self._policy, self._budget)
        except ValueError:
            if self._pace is None or self._pace.share >= 1:
                raise
            self._pace.share = min(1.0, 1.25 * self._pace.share)
            self._policy = Auto(time=self._pace.share)
            self._give()

    def run(self, forever: bool = False) -> None:
        """Watch until `stop` is called, or until all sources have ended.

        Args:
            forever: Go on where none is left, since others may be added.

        Raises:
            OutputError: Results cannot be written; cameras are stopped then, too.
            RuntimeError: It runs already.
        """
        if not self._runs.acquire(blocking=False):
            raise RuntimeError("this watcher runs already; make another for other cameras")
        saved = time.monotonic()
        try:
            while not self._ending:
                self._wait()
                ended = self._ended()
                if not self.tick() and ended and not forever:
                    break
                if self._saved is not None and time.monotonic() - saved > self.SAVED:
                    self._save()
                    saved = time.monotonic()
        finally:
            try:
                self.close()
            finally:
                self._runs.release()

    def _ended(self) -> bool:
        cameras = [lane.camera for lane in self._lanes.values()]
        return all(camera.state == "ended" and not camera.waiting for camera in cameras)

    def _notify(self) -> None:
        with self._news:
            self._fresh = True
            self._news.notify_all()

    def _wait(self) -> None:
        with self._news:
            self._news.wait_for(lambda: self._fresh or self._ending, 0.5)
            self._fresh = False

    def tick(self) -> int:
        """Compute a frame of each camera that has one; how many there were.

        `run` does this in a loop; call it yourself to decide when.

        Raises:
            OutputError: Results cannot be written.
        """
        start, count, waiting = time.monotonic(), 0, list[tuple[Lane, Shot]]()
        for lane in self._lanes.values():
            if self._ending:
                break
            self._beat = time.monotonic()
            shot = self._ask(lane)
            if shot is not None:
                count += 1
                if lane.waits:
                    waiting.append((lane, shot))
                else:
                    self._answer(lane, shot)
        for lane, shot in waiting:
            self._answer(lane, shot)
        self._beat = time.monotonic()
        if count:
            self._notify()  # there may be more
            self._keep_pace(1e3 * (time.monotonic() - start))
        return count

    def _ask(self, lane: Lane) -> Shot | None:
        """Take a camera's frame, if it has one, and hand it in; one that is dense is computed."""
        with self._turn:
            pass  # who waits for the lock comes first
        with self._lock:
            shot = lane.camera.take() if self._watches(lane) else None
            if shot is not None:
                shape = lane.shape
                lane.ask(shot, self._models, self._policy, self._budget)
                if lane.shape != shape:
                    self._keep_models()
        return shot

    def _answer(self, lane: Lane, shot: Shot) -> None:
        """Tell what came of a camera's frame; if it waits, compute all that do."""
        with self._lock:
            if lane.waits:
                self._models.passes.run()
            if not self._watches(lane):
                return
            result = lane.answer(shot, self._models, self._policy)
            types = None if lane.shape is None else self._models.types(lane.shape)
            if result is None or types is None:
                return
            self._latencies.add(result.latency_ms)
        self._hand_out(result, types)

    def _watches(self, lane: Lane) -> bool:
        """Whether a camera has not been removed."""
        return self._lanes.get(lane.camera.source.name) is lane

    def _hand_out(self, result: Result, types: Mapping[str, Any]) -> None:
        """Tell of a result everyone who wants to know."""
        with self._writing:
            for output in self._outputs:
                output.write(result, types)
        for queued in list(self._queued):
            queued.put(result)
        if self._on_result is not None:
            self._on_result(result)

    def _keep_pace(self, milliseconds: float) -> None:
        with self._lock:
            if self._pace is None:
                return
            self._pace.took(milliseconds)
            if self._pace.changed():
                self._policy = Auto(time=self._pace.share)
                self._give()

    def stop(self) -> None:
        """Let `run` end after the frame at hand."""
        self._ending = True
        self._notify()

    def close(self) -> None:
        """Stop all cameras, save their state, and finish what is written; `run` calls it."""
        with self._lock:
            self._ending = self._closed = True  # none is added from here on
            cameras = [lane.camera for lane in self._lanes.values()]
        for camera in cameras:
            camera.stop()
        stopped = time.monotonic()
        for camera in cameras:
            camera.join(max(0.0, stopped + camera.patience - time.monotonic()))
            camera.drain()
        with ExitStack() as each:  # one that fails keeps none of the others from its end
            if self._saved is not None:
                each.callback(self._saved.close)
            with self._writing:
                for output in self._outputs:
                    each.callback(output.close)
                self._outputs = []
            self._save()

    def _save(self) -> None:
        if self._saved is not None and self._lanes:
            self._saved.save(self._still)

    @contextmanager
    def _still(self) -> Iterator[list[Lane]]:
        """All cameras, between two frames: none is computed, or waits to be."""
        with self._turn, self._lock:
            self._models.passes.run()
            yield list(self._lanes.values())

    def status(self) -> Status:
        """How all cameras are doing now."""
        policy, pace = self._policy, self._pace
        text = str(policy) if pace is None else f"latency:{pace.milliseconds:g}"
        silent = math.inf if self._closed else time.monotonic() - self._beat
        cameras = tuple(lane.status() for lane in self._lanes.values())
        return Status(self._model, text, self._started, cameras, silent)

    def picture(self, camera: str, width: int) -> bytes | None:
        """The last frame with its result drawn in, as JPEG; None before the first.

        Raises:
            KeyError: There is no such camera.
        """
        last = self._lanes[camera].last
        return None if last is None else drawn(*last, width)

    def history(self, camera: str) -> Sequence[Point]:
        """Its latest frames, oldest first, at most 1,000.

        Raises:
            KeyError: There is no such camera.
        """
        return self._lanes[camera].history()

    def latencies(self) -> tuple[Sequence[float], Sequence[int], float]:
        """Upper bounds in ms, frames up to each bound, and the sum in ms."""
        return self._latencies.read()

    def subscribe(self, camera: str | None = None) -> Queued:
        """Results of one camera, or of all."""
        queued = Queued(camera, self._unsubscribe)
        self._queued.append(queued)
        return queued

    def _unsubscribe(self, queued: Queued) -> None:
        with contextlib.suppress(ValueError):  # it has been closed before
            self._queued.remove(queued)
