"""Cameras that fail in every way, and a watcher over them with a tiny network."""

import functools
import http.server
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")
pytest.importorskip("timm")

from eventful.live import Limits, Watcher
from tests.archive.tiny import network
from tests.live.senders import Sender

LIMITS = Limits(opening=2.0, reading=0.6, frame=1.0, wait=0.05, longest=0.4, refused=5.0)
GSTREAMER = Path("/usr/bin/python3")  # Debian's, which python3-gi and gir1.2-gst-rtsp-server serve


def until(true, seconds=15.0, what="it"):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come within {seconds} s")


class Running:
    """A watcher in a thread of its own, and the results that it has given."""

    def __init__(self, *, forever=True, **options):
        self.results = []
        self._options = {"limits": LIMITS, "size": 84, "scene_cuts": False} | options
        policy = self._options.pop("policy", "skip:5")
        self.watcher = Watcher(network, policy, on_result=self.results.append, **self._options)
        self._error = None
        self._forever = forever
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            self.watcher.run(forever=self._forever)
        except BaseException as error:
            self._error = error

    def start(self):
        self._thread.start()
        return self

    def end(self):
        self.watcher.stop()
        self.wait()

    def wait(self, seconds=30):
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def camera(self, name):
        return next(one for one in self.watcher.status().cameras if one.name == name)

    def of(self, name):
        return [result for result in self.results if result.camera == name]

    def more(self, name, count=5):
        """Wait for more results of a camera."""
        before = len(self.of(name))
        until(lambda: len(self.of(name)) >= before + count, what=f"more of {name}")


def accounted(status):
    """Frames of a camera that nobody can tell the end of; 0 once it is closed."""
    return status.processed + status.dropped + status.failed


@pytest.fixture
def running():
    """Makes watchers that end with the test."""
    made = []

    def running(**options):
        made.append(Running(**options))
        return made[-1]

    yield running
    for one in made:
        one.watcher.stop()
        if one._thread.ident is not None:
            one._thread.join(30)


@pytest.fixture
def sender():
    """Makes senders that end with the test."""
    made = []

    def sender(**options):
        made.append(Sender(**options))
        return made[-1]

    yield sender
    for one in made:
        one.kill()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Rtsp:
    """GStreamer's RTSP server in a process of its own."""

    def __init__(self, port):
        self.port, self._process = port, None

    @property
    def url(self):
        return f"rtsp://127.0.0.1:{self.port}/live"

    def start(self, width=96, height=64, *login, rate=25):
        script = Path(__file__).with_name("rtsp_server.py")
        arguments = [GSTREAMER, script, self.port, width, height, rate, *login]
        self._process = subprocess.Popen(
            [str(a) for a in arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout.readline() == b"listening\n"

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process = None


@pytest.fixture(scope="session")
def _gstreamer():
    check = "import gi; gi.require_version('GstRtspServer', '1.0')"
    found = GSTREAMER.exists() and subprocess.run(
        [str(GSTREAMER), "-c", check], check=False, capture_output=True
    )
    if not found or found.returncode:
        pytest.skip("needs Debian's python3-gi and gir1.2-gst-rtsp-server-1.0")


@pytest.fixture
def rtsp(_gstreamer):
    """Makes RTSP servers, not started yet, that end with the test."""
    made = []

    def rtsp():
        made.append(Rtsp(free_port()))
        return made[-1]

    yield rtsp
    for one in made:
        one.kill()


@pytest.fixture
def served(tmp_path):
    """An HTTP server of a folder; or of what a handler does."""
    made = []

    def served(handler=None):
        kind = handler or functools.partial(Quiet, directory=str(tmp_path))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        made.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield served
    for server, thread in made:
        server.shutdown()
        server.server_close()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
