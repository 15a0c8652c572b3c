"""What Prometheus reads of the cameras and of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import final, get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from eventful.live.board import Board, CameraStatus, State
from eventful.live.page.events import Streams
from eventful.live.page.refusals import Refusals
from eventful.live.page.views import Views

FRAME_KINDS = ("dense", "partial", "carried", "held")
TARGETS = {"auto": "share", "time": "time", "error": "error", "latency": "latency_ms"}
GAUGES = {
    "results_per_second": ("rate", "Results a second over the last ten seconds."),
    "estimated_error": ("estimate", "Estimated relative error of what is shown."),
    "frames_since_dense": ("age", "Frames since the last dense one."),
    "retry_seconds": ("retry_in", "Seconds until the next try to connect."),
}
COUNTERS = {
    "reconnects": ("reconnects", "How often the camera came back."),
    "operations": ("operations", "Multiply-accumulates used."),
    "dense_operations": ("dense_operations", "Multiply-accumulates of the dense model."),
}


def registry(board: Board, views: Views, streams: Streams, refusals: Refusals) -> CollectorRegistry:
    """All that is measured, in a registry of its own."""
    made = CollectorRegistry()
    made.register(Cameras(board, views))
    made.register(PageFigures(streams, refusals))
    ProcessCollector(registry=made)
    return made


@final
class Cameras(Collector):
    """Figures of the cameras, read from the board when they are asked for.

    Args:
        board: For the histogram of latencies.
        views: For the rest.
    """

    def __init__(self, board: Board, views: Views) -> None:
        self._board = board
        self._views = views

    def describe(self) -> Iterable[Metric]:
        """Nothing: the board need not answer yet when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read them."""
        status = self._views.board_status()
        info = InfoMetricFamily("eventful", "The model and the policy in force.")
        info.add_metric([], {"model": status.model, "policy": status.policy})
        yield info
        started = "When the cameras were started, in seconds since the epoch."
        yield GaugeMetricFamily("eventful_start_time_seconds", started, status.started)
        text = "Since the thread that computes last went round; infinite once it has ended."
        yield GaugeMetricFamily("eventful_silent_seconds", text, status.silent)
        yield _target(status.policy)
        yield self._latency()
        yield from _of_cameras(status.cameras)

    def _latency(self) -> Metric:
        bounds, counts, total = self._board.latencies()
        buckets = [
            (_bound(bound), float(count)) for bound, count in zip(bounds, counts, strict=False)
        ]
        if not buckets or buckets[-1][0] != "+Inf":
            buckets.append(("+Inf", float(counts[-1]) if counts else 0.0))
        text = "From a frame's arrival to its result, of all cameras."
        return HistogramMetricFamily("eventful_latency_seconds", text, buckets, total / 1000)


@final
class PageFigures(Collector):
    """Figures of the page itself.

    Args:
        streams: Event streams.
        refusals: Requests that were not answered.
    """

    def __init__(self, streams: Streams, refusals: Refusals) -> None:
        self._streams = streams
        self._refusals = refusals

    def collect(self) -> Iterator[Metric]:
        """Read them."""
        text = "Event streams that are open."
        yield GaugeMetricFamily("eventful_page_streams", text, self._streams.open)
        text = "Requests that were refused, by type."
        refused = CounterMetricFamily("eventful_page_refused", text, labels=["type"])
        for kind, count in self._refusals.counts.items():
            refused.add_metric([kind], count)
        yield refused


def _of_cameras(cameras: Iterable[CameraStatus]) -> Iterator[Metric]:
    cameras = list(cameras)
    for name, (field, text) in GAUGES.items():
        gauge = GaugeMetricFamily(f"eventful_camera_{name}", text, labels=["camera"])
        for camera in cameras:
            if (value := getattr(camera, field)) is not None:
                gauge.add_metric([camera.name], value)
        yield gauge
    for name, (field, text) in COUNTERS.items():
        counter = CounterMetricFamily(f"eventful_camera_{name}", text, labels=["camera"])
        for camera in cameras:
            counter.add_metric([camera.name], getattr(camera, field))
        yield counter
    latency = GaugeMetricFamily(
        "eventful_camera_latency_seconds", "The last frame's latency.", labels=["camera"]
    )
    frames = CounterMetricFamily(
        "eventful_camera_frames",
        "Frames by what became of them: processed, dropped for a newer one, or failed.",
        labels=["camera", "outcome"],
    )
    states = GaugeMetricFamily(
        "eventful_camera_state", "1 for the camera's state, else 0.", labels=["camera", "state"]
    )
    kinds = GaugeMetricFamily(
        "eventful_camera_kind", "1 for what its last frame was, else 0.", labels=["camera", "kind"]
    )
    for camera in cameras:
        if camera.latency_ms is not None:
            latency.add_metric([camera.name], camera.latency_ms / 1000)
        for outcome in ("processed", "dropped", "failed"):
            frames.add_metric([camera.name, outcome], getattr(camera, outcome))
        for state in get_args(State):
            states.add_metric([camera.name, state], float(state == camera.state))
        for kind in FRAME_KINDS:
            kinds.add_metric([camera.name, kind], float(kind == camera.kind))
    yield from (latency, frames, states, kinds)


def _target(policy: str) -> Metric:
    text = "What the policy holds: a share of operations or time, an error, or milliseconds."
    gauge = GaugeMetricFamily("eventful_target", text, labels=["holds"])
    name, _, number = policy.partition(":")
    if name in TARGETS:
        gauge.add_metric([TARGETS[name]], float(number.partition("/")[0]))
    return gauge


def _bound(milliseconds: float) -> str:
    return "+Inf" if math.isinf(milliseconds) else repr(milliseconds / 1000)
