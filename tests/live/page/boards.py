"""A board of cameras that never were, for the page's tests; run alone, it shows itself."""

import math
import queue
import threading
import time
from dataclasses import replace

import cv2
import numpy as np

import eventful
from eventful.live.board import CameraStatus, Point, Result, Status

BOUNDS = (5.0, 10.0, 20.0, 40.0, 80.0, math.inf)
KINDS = ("dense", "partial", "carried", "partial", "carried", "held", "partial", "carried")
SECRET = "rtsp://admin:very-secret@10.0.0.7/live"


class FakeBoard:
    """Cameras that do as they are told; `tick` gives each of them a frame."""

    def __init__(self, *names):
        self.lock = threading.RLock()
        self.policy = "auto:0.2"
        self.silent = 0.0
        self.policies = []
        self.cameras = {}
        self.points = {}
        self.pictures = 0
        self.subscriptions = []
        self.latency = [0] * len(BOUNDS), 0.0
        for name in names:
            self.add(name, f"rtsp://10.0.0.{len(self.cameras) + 1}/stream1")

    def status(self):
        with self.lock:
            cameras = tuple(self.cameras.values())
            return Status("demo ViT-S/14", self.policy, STARTED, cameras, self.silent)

    def picture(self, camera, width):
        known = self.cameras[camera]
        if known.size is None:
            return None
        self.pictures += 1
        height = width * known.size[0] // known.size[1]
        y, x = np.mgrid[:height, :width]
        shift = 3 * known.processed
        pixels = np.stack(
            (60 + 40 * (y > height / 2), 90 + x * 60 // width, 120 - y * 60 // height), -1
        )
        pixels = pixels.astype(np.uint8)
        left, top = (shift * 4) % width, height // 2
        cv2.rectangle(
            pixels, (left, top), (left + width // 8, top + height // 6), (40, 200, 250), -1
        )
        cv2.rectangle(
            pixels,
            (left - 4, top - 4),
            (left + width // 8 + 4, top + height // 6 + 4),
            (80, 255, 80),
            2,
        )
        return cv2.imencode(".jpg", pixels)[1].tobytes()

    def history(self, camera):
        with self.lock:
            return list(self.points[camera])

    def latencies(self):
        return BOUNDS, *self.latency

    def set_policy(self, text):
        self.policy = str(eventful.parse(text))
        self.policies.append(self.policy)

    def add(self, camera, source):
        with self.lock:
            if camera in self.cameras:
                raise ValueError("this name is taken")
            self.cameras[camera] = CameraStatus(camera, source, "connecting")
            self.points[camera] = []

    def remove(self, camera):
        with self.lock:
            del self.cameras[camera], self.points[camera]

    def subscribe(self, camera=None):
        made = FakeSubscription(self, camera)
        self.subscriptions.append(made)
        return made

    def change(self, camera, **fields):
        with self.lock:
            self.cameras[camera] = replace(self.cameras[camera], **fields)

    def tick(self, now=None):
        """A frame of each camera that is not waiting."""
        now = time.time() if now is None else now
        with self.lock:
            for number, (name, old) in enumerate(self.cameras.items()):
                if old.state in ("waiting", "ended"):
                    continue
                frame = old.processed
                kind = KINDS[(frame + number) % len(KINDS)]
                share = {"dense": 1.0, "partial": 0.2, "carried": 0.03, "held": 0.0}[kind]
                estimate = 0.0 if kind == "dense" else 0.1 + 0.05 * math.sin(frame / 7 + number)
                latency = 8 + 25 * share + number
                self.cameras[name] = replace(
                    old, state="live", reason="", size=(360, 640), processed=frame + 1, rate=9.7,
                    kind=kind, estimate=estimate, age=0 if kind == "dense" else old.age + 1,
                    operations=old.operations + int(4e9 * share), latency_ms=latency,
                    dense_operations=old.dense_operations + 4 * 10**9,
                )  # fmt: skip
                point = Point(now, kind, estimate, share, latency)
                self.points[name] = [*self.points[name], point][-1000:]
                counts, total = self.latency
                counted = [
                    count + (latency <= bound) for count, bound in zip(counts, BOUNDS, strict=True)
                ]
                self.latency = counted, total + latency
                values = {"boxes": np.arange(4) + frame, "score": float("nan")}
                result = Result(name, frame, frame / 10, now, kind, estimate, latency, values)
                for each in self.subscriptions:
                    each.put(result)


class FakeSubscription:
    def __init__(self, board, camera):
        self.board, self.camera = board, camera
        self.results = queue.Queue(100)

    def put(self, result):
        if self.camera in (None, result.camera) and not self.results.full():
            self.results.put(result)

    def get(self, timeout):
        try:
            return self.results.get(timeout=timeout) if timeout else self.results.get_nowait()
        except queue.Empty:
            return None

    def close(self):
        self.board.subscriptions.remove(self)


STARTED = time.time() - 3700


def busy():
    """Sixteen cameras with a past, two of them away."""
    board = FakeBoard(*(f"camera {number}" for number in range(1, 17)))
    for back in range(600, 0, -1):
        board.tick(time.time() - back / 10)
    board.change(
        "camera 3",
        state="waiting",
        reason="the server closed the connection",
        retry_in=7.4,
        reconnects=3,
    )
    board.change("camera 6", state="ended", reason="the file ended", dropped=12)
    board.change("camera 7", dropped=1234, reconnects=1)
    return board
