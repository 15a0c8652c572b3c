"""Pictures from the network that claim to be huge are refused before they take memory."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.live import huge
from tests.live.conftest import LIMITS, Quiet, until

SIDE = 16_000  # FFmpeg itself refuses 30,000

READS = """
import resource, sys
from eventful.live.feeds import Damaged, FeedError, Limits, feed
from eventful.live.sources import Source
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    for found in feed(Source("a", sys.argv[1]), Limits()):
        print(found.reason if isinstance(found, Damaged) else found)
except FeedError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_a_picture_that_claims_to_be_huge_takes_no_memory(served, codec):
    kind, content = {
        "h264": ("video/h264", huge.h264(SIDE)),
        "mjpeg": ("multipart/x-mixed-replace; boundary=frame", huge.mjpeg(SIDE)),
    }[codec]

    class Claims(Quiet):
        def do_GET(self):  # noqa: N802 - the library's name
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            try:
                self.wfile.write(content)
            except OSError:
                return

    command = [sys.executable, "-c", READS, f"{served(Claims)}/a.{codec}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    root = Path(__file__).parents[2]
    found = subprocess.run(
        command, env=environment, cwd=root, check=True, timeout=100, capture_output=True, text=True
    )
    *said, megabytes = found.stdout.splitlines()
    assert "35.7 million are the most" in said[0]
    assert not any("VideoFrame" in line for line in said)
    assert int(megabytes) < 150  # a picture has 366, and FFmpeg keeps several


@pytest.mark.parametrize(("pixels", "refused"), [(128 * 64, False), (96 * 64 - 1, True)])
def test_the_limit_is_the_number_of_pixels(running, sender, pixels, refused):
    run = running(limits=replace(LIMITS, pixels=pixels)).start()
    run.watcher.add("a", sender().url)
    if not refused:
        run.more("a", 3)
        return
    until(lambda: run.camera("a").state == "waiting")
    assert "96 x 64 pixels, and 0.0 million" in run.camera("a").reason
    assert run.camera("a").processed == 0


def test_pictures_that_grow_beyond_the_limit_are_damage(running, sender):
    one = sender()
    run = running(limits=replace(LIMITS, pixels=128 * 64)).start()
    run.watcher.add("a", one.url)
    run.more("a", 3)
    one.size = (192, 128)
    until(lambda: "pixels" in run.camera("a").reason, what="a refusal")
    assert run.camera("a").size == (64, 96)
    one.size = (96, 64)
    run.more("a", 3)
