"""Each camera has one clock, from its first frame on and over a break."""

import time
from fractions import Fraction

import av
import numpy as np
import pytest

from eventful.live.camera import Camera
from eventful.live.feeds import UNTIMED
from eventful.live.sources import Source
from eventful.video.decode import Timed
from eventful.video.geometry import UPRIGHT
from tests.live.conftest import LIMITS, until


def test_times_of_a_real_server_are_its_own_from_the_first_frame_on(running, rtsp):
    """FFmpeg tells no time of the first frame of an H.264 stream over RTSP."""
    server = rtsp()
    server.start(rate=5)
    run = running(lossless=True).start()
    run.watcher.add("door", server.url)
    run.more("door", 6)
    times = [result.time for result in run.of("door")]
    assert times[0] == 0.0
    assert np.allclose(np.diff(times[1:]), 0.2, atol=0.03)  # the server's, by a clock of 90 kHz
    assert 0 < times[1] <= 0.3


def test_the_clock_goes_on_over_a_break(running, sender):
    one = sender()
    run = running(lossless=True).start()
    run.watcher.add("door", one.url)
    run.more("door", 10)
    one.mode = "end"
    until(lambda: run.camera("door").state == "waiting")
    time.sleep(0.5)
    one.mode = "send"
    before = len(run.of("door"))
    run.more("door", 10)
    results = run.of("door")
    times, arrived = ([getattr(r, name) for r in results] for name in ("time", "arrived"))
    assert times[0] == 0.0
    assert np.all(np.diff(times) > 0)
    first = next(n for n in range(before - 1, len(results)) if arrived[n] - arrived[n - 1] > 0.4)
    assert times[first] - times[first - 1] == pytest.approx(
        arrived[first] - arrived[first - 1], abs=0.02
    )
    steps = np.diff(times[first:])
    assert np.allclose(steps[steps < 0.1], 0.04, atol=1e-4)


def test_without_a_clock_times_are_those_of_arrival_after_a_break_too():
    camera = Camera(Source("a", "rtsp://127.0.0.1:9/a"), lambda: None, limits=LIMITS)
    for first in (True, False, True, False):
        camera._put(Timed(av.VideoFrame(96, 64, "yuv420p"), UPRIGHT, UNTIMED), first)
        shot = camera.take()
        assert shot.time == shot.arrived


def test_files_keep_their_times(running, tmp_path):
    camera = Camera(Source("a", str(tmp_path / "a.mp4")), lambda: None, limits=LIMITS)
    for number in range(3):
        frame = av.VideoFrame(96, 64, "yuv420p")
        camera._put(Timed(frame, UPRIGHT, Fraction(number, 30)), number == 0)
        assert camera.take().time == number / 30
