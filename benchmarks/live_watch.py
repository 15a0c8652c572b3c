"""A watcher over cameras of an RTSP server: what it gives, what it costs, what it shows.

Ticks are called here, one after the other, as `Watcher.run` does. Results come by `on_result`. Two
things are looked up inside: each camera's newest frame, from where its thread takes it in, and its
lane, to give cameras that skip or carry a phase each.
"""

from __future__ import annotations

import random
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from live_clips import Clip, identity

from eventful import parse, runtimes
from eventful.live import Limits, Result, Watcher
from eventful.outputs import Network, demo_network
from eventful.video.decode import Timed

GSTREAMER = Path("/usr/bin/python3")  # Debian's, which python3-gi and gir1.2-gst-rtsp-server serve
PATIENCE = 120.0  # seconds for first results


class Server:
    """GStreamer's RTSP server in a process of its own.

    Args:
        files: What is served, by name.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self._port = found.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.start(files)

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def url(self, name: str) -> str:
        """Where a file is served."""
        return f"rtsp://127.0.0.1:{self._port}/{name}"

    def start(self, files: Mapping[str, Path]) -> None:
        """Serve files, at the same port as before; returns once it listens."""
        script = Path(__file__).with_name("live_server.py")
        named = [f"{name}={file}" for name, file in files.items()]
        command = [str(GSTREAMER), str(script), str(self._port), *named]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdout=pipe, stderr=subprocess.DEVNULL)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"listening\n":
            self.kill()
            raise OSError(
                f"GStreamer's RTSP server does not start; it needs {GSTREAMER} with Debian's "
                "python3-gi, gir1.2-gst-rtsp-server-1.0 and gstreamer1.0-plugins-good and -bad"
            )

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


class Row(NamedTuple):
    """A result.

    Attributes:
        camera: Its camera.
        time: The frame's, by the stream's clock.
        kind: Dense, partial, carried or held.
        latency: From arrival to result, in milliseconds.
        moment: When it was there, by the clock that only goes forward.
        busy: Seconds that it took to compute.
        mean: Of its tokens, (dim,); None where none was asked for.
    """

    camera: str
    time: float
    kind: str
    latency: float
    moment: float
    busy: float
    mean: np.ndarray | None


class Sample(NamedTuple):
    """What one camera shows at a moment.

    Attributes:
        camera: The camera.
        number: Of the newest frame that it has taken in.
        newest: That frame's identity.
        frame: Number of the frame whose result is shown.
        tokens: What is shown (patches, dim).
    """

    camera: str
    number: int
    newest: int
    frame: int
    tokens: np.ndarray


class Session:
    """A watcher over cameras, until it is closed.

    Args:
        urls: Of the cameras, by name.
        policy: Of all of them, as text.
        size: Side of the squares that the model sees.
        runtime: What runs frames after the first.
        limits: Time-outs and waits.
        exact: Drop no frame and keep the means of results, so that they can be compared.
    """

    def __init__(
        self,
        urls: Mapping[str, str],
        policy: str,
        *,
        size: int,
        runtime: runtimes.Name = "torch",
        limits: Limits = Limits(),  # noqa: B008 - frozen
        exact: bool = False,
    ) -> None:
        self.rows: list[Row] = []
        self.ticks: list[tuple[float, int, float]] = []  # moment, results, seconds
        self._names, self._exact = list(urls), exact
        self._shown: dict[str, Result] = {}
        self._newest: dict[str, tuple[int, Timed]] = {}
        self._last = 0.0
        self._policy = policy
        settings = {"size": size, "square": True, "runtime": runtime, "limits": limits}
        self.watcher = Watcher(_network, policy, on_result=self._take, lossless=exact, **settings)
        for name, url in urls.items():
            self.watcher.add(name, url)
            self._observe(self.watcher._lanes[name].camera)

    def _observe(self, camera: Any) -> None:
        """Note the newest frame of a camera as it takes it in."""
        put, name = camera._put, camera.source.name

        def noted(found: Timed, first: bool) -> None:
            self._newest[name] = camera.received, found
            put(found, first)

        camera._put = noted

    def _take(self, result: Result) -> None:
        now = time.monotonic()
        mean = result.values["patches"].mean(axis=0, dtype=np.float32) if self._exact else None
        self._shown[result.camera] = result
        self.rows.append(
            Row(
                *(result.camera, result.time, result.kind, result.latency_ms),
                *(now, now - self._last, mean),
            )
        )
        self._last = time.monotonic()

    def tick_until(self, done: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Compute frames as they come.

        Raises:
            TimeoutError: It was not done after so many seconds.
        """
        end = time.monotonic() + seconds
        while not done():
            start = self._last = time.monotonic()
            if start > end:
                states = [(s.name, s.state, s.reason) for s in self.watcher.status().cameras]
                raise TimeoutError(f"it did not come within {seconds} s; the cameras: {states}")
            count = self.watcher.tick()
            if count:
                self.ticks.append((start, count, time.monotonic() - start))
            else:
                time.sleep(0.001)

    def tick_for(self, seconds: float) -> None:
        """Compute frames for so many seconds."""
        end = time.monotonic() + seconds
        self.tick_until(lambda: time.monotonic() >= end, seconds + PATIENCE)

    def start(self, settle: float) -> None:
        """Wait for three results of each camera, and some seconds more."""
        self.tick_until(lambda: len(self._shown) == len(self._names))
        kind, _, every = self._policy.partition(":")
        if kind in ("skip", "carry"):  # evenly: not all of them dense in the same tick
            for number, name in enumerate(self._names):
                phase = number % int(every)
                self.watcher._lanes[name].give(parse(f"{kind}:{every}+{phase}"), None)  # type: ignore[arg-type]
        for name in self._names:
            self.tick_until(lambda name=name: sum(r.camera == name for r in self.rows) >= 3)
        self.tick_for(settle)

    def samples(self, ending: threading.Event, seed: int, apart: float) -> list[Sample]:
        """What is shown at random moments, one in each stretch of so many seconds."""
        chance, begin = random.Random(seed), time.monotonic()
        found: list[Sample] = []
        for number in range(1_000_000):
            moment = begin + (number + chance.random()) * apart
            if ending.wait(max(0.0, moment - time.monotonic())):
                break
            now = [(name, *self._newest[name], self._shown[name]) for name in self._names]
            for name, newest, timed, result in now:
                tokens = result.values["patches"]
                found.append(Sample(name, newest, identity(timed), result.frame, tokens))
        return found

    def cpu(self) -> tuple[float, float]:
        """Processor seconds so far: of the threads that read cameras, and of the others."""
        readers = {t.native_id for t in threading.enumerate() if t.name in self._names}
        spent = {t.id: t.user_time + t.system_time for t in psutil.Process().threads()}
        reading = sum(seconds for thread, seconds in spent.items() if thread in readers)
        return reading, sum(spent.values()) - reading

    def counts(self) -> tuple[int, int, int]:
        """Frames processed, dropped and failed so far, of all cameras."""
        cameras = self.watcher.status().cameras
        names = "processed", "dropped", "failed"
        processed, dropped, failed = (sum(getattr(c, name) for c in cameras) for name in names)
        return processed, dropped, failed


def _network(height: int, width: int) -> Network:
    return demo_network(height, width, ("patches",))


def measure(
    clips: Sequence[Clip],
    policy: str,
    *,
    size: int,
    seconds: float,
    settle: float,
    runtime: runtimes.Name = "torch",
    apart: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Watch the clips for so many seconds, after they have settled.

    Args:
        clips: Of the cameras.
        policy: As text.
        size: Side of the squares.
        seconds: That are measured.
        settle: Seconds after the first results that are not.
        runtime: What runs frames after the first.
        apart: Mean seconds between two looks at what is shown; 0 for none.
        seed: Of the moments of these looks.
    """
    server = Server({clip.name: clip.file for clip in clips})
    urls = {clip.name: server.url(clip.name) for clip in clips}
    try:
        session = Session(urls, policy, size=size, runtime=runtime)
        try:
            session.start(settle)
            return _measured(session, clips, psutil.Process(server.pid), seconds, apart, seed)
        finally:
            session.watcher.close()
    finally:
        server.kill()


def _measured(
    session: Session,
    clips: Sequence[Clip],
    server: psutil.Process,
    seconds: float,
    apart: float,
    seed: int,
) -> dict[str, Any]:
    samples: list[Sample] = []
    ending = threading.Event()
    looks = threading.Thread(target=lambda: samples.extend(session.samples(ending, seed, apart)))
    rows, ticks = len(session.rows), len(session.ticks)
    before = (*session.cpu(), sum(server.cpu_times()[:2]), *session.counts(), time.monotonic())
    if apart:
        looks.start()
    session.tick_for(seconds)
    after = (*session.cpu(), sum(server.cpu_times()[:2]), *session.counts(), time.monotonic())
    ending.set()
    if apart:
        looks.join()
    reading, model, serving, processed, dropped, failed, took = (
        b - a for a, b in zip(before, after, strict=True)
    )
    found, cameras = session.rows[rows:], len(clips)
    return {
        "seconds": took,
        "results_per_second": len(found) / took,
        "frames_per_second": (processed + dropped + failed) / took,
        "dropped_per_second": dropped / took,
        "failed": failed,
        "latency_ms": spread([row.latency for row in found]),
        "busy": sum(row.busy for row in found) / took,
        "busy_ms": 1e3 * fmean(row.busy for row in found),
        "tick_flat": flat([s for _, n, s in session.ticks[ticks:] if n == cameras]),
        "full_ticks": fmean(n == cameras for _, n, _ in session.ticks[ticks:]),
        "round_flat": flat(rounds([row.busy for row in found], cameras)),
        "kinds": dict(Counter(row.kind for row in found)),
        "cores": {"reading": reading / took, "model": model / took, "server": serving / took},
        "reading_ms": 1e3 * reading / (processed + dropped + failed),
        **(_shown(samples, clips) if samples else {}),
    }


def _shown(samples: Iterable[Sample], clips: Sequence[Clip]) -> dict[str, Any]:
    """Errors of what was shown against the dense output of the frame that was present."""
    by_name = {clip.name: clip for clip in clips}
    rows: dict[str, list[tuple[float, float, int]]] = {clip.name: [] for clip in clips}
    unknown = 0
    for sample in samples:
        clip = by_name[sample.camera]
        number = clip.places.get(sample.newest)
        if number is None:
            unknown += 1
            continue
        tokens = torch.from_numpy(sample.tokens.astype(np.float32))
        behind = sample.number - sample.frame
        rows[sample.camera].append((*clip.errors(number, tokens), behind))
    cameras = []
    for name, each in rows.items():
        if each:
            error, moving, behind = map(fmean, zip(*each, strict=True))
            found = {"error": error, "moving": moving, "behind": behind}
            cameras.append({"camera": name, "moves": by_name[name].moves, **found})
    halves = {"moving_cameras": True, "still_cameras": False}
    return {
        "samples": sum(map(len, rows.values())),
        "unknown": unknown,
        **{key: fmean(c[key] for c in cameras) for key in ("error", "moving", "behind")},
        **{
            half: {
                key: fmean([c[key] for c in cameras if c["moves"] == moves] or [0.0])
                for key in ("error", "moving", "behind")
            }
            for half, moves in halves.items()
        },
        "cameras": cameras,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    return {"median": float(np.median(values)), "p95": float(np.percentile(values, 95))}


def flat(costs: Sequence[float]) -> float | None:
    """95th percentile over median; None of fewer than ten."""
    return float(np.percentile(costs, 95) / np.median(costs)) if len(costs) >= 10 else None


def rounds(busy: Sequence[float], cameras: int) -> list[float]:
    """Seconds for as many results in a row as there are cameras."""
    return [sum(busy[n : n + cameras]) for n in range(0, len(busy) - cameras + 1, cameras)]
