"""Senders of our own: MPEG-TS over HTTP that stalls, dies, changes its size or sends garbage."""

import io
import socket
import threading
import time

import av
import numpy as np


def picture(number, size=(96, 64)):
    """A bright square that moves over smooth noise."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 120, (height // 8, width // 8, 3), dtype=np.uint8)
    pixels = noise.repeat(8, axis=0).repeat(8, axis=1)
    x = 2 * number % (width - 16)
    pixels[16:32, x : x + 16] = 250
    return pixels


def stream(frames, size=(96, 64), rate=25, first=0):
    """MPEG-TS of so many frames, whole pieces that begin at a key frame."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        out = container.add_stream("libx264", rate=rate)
        out.width, out.height, out.pix_fmt = *size, "yuv420p"
        out.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "5"}
        out.codec_context.thread_count = 1
        for number in range(first, first + frames):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame.pts = number
            container.mux(out.encode(frame))
        container.mux(out.encode(None))
    return buffer.getvalue()


class Sender:
    """Serves one camera over HTTP; what it does next can be changed at any time.

    Attributes:
        size: Of pictures, width and height.
        mode: "send"; "stall" (keep the line open and say nothing), "dribble" (a byte now and then),
            "garbage", "end" (close at once), or "password" (want one).
        connections: How many there were.
    """

    def __init__(self, size=(96, 64), rate=25):
        self.size, self.rate, self.mode = size, rate, "send"
        self.connections = 0
        self.port = 0
        self._socket, self._threads = None, []
        self._made = {}
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/live.ts"

    def start(self):
        """Listen, at the same port as before."""
        self._ending = False
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", self.port))
        self._socket.listen(8)
        self._socket.settimeout(0.1)
        self.port = self._socket.getsockname()[1]
        thread = threading.Thread(target=self._accept)
        self._threads = [thread]
        thread.start()

    def kill(self):
        """Stop listening and cut all lines."""
        self._ending = True
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _accept(self):
        while not self._ending:
            try:
                line, _ = self._socket.accept()
            except TimeoutError:
                continue
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(line,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, line):
        with line:
            line.settimeout(5)
            try:
                line.recv(4096)
                if self.mode == "password":
                    line.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
                    return
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
                self._send(line)
            except OSError:
                return

    def _send(self, line):
        number = 0
        while not self._ending:
            mode = self.mode
            if mode == "end":
                return
            if mode == "stall":
                time.sleep(0.02)
                continue
            if mode == "dribble":
                line.sendall(b"\x47")
                time.sleep(0.05)
                continue
            if mode == "garbage":
                line.sendall(np.random.default_rng(number).bytes(4096))
                time.sleep(5 / self.rate)
            else:
                piece = self._piece(number % 30, self.size)
                part = -(-len(piece) // 5)
                for start in range(0, len(piece), part):
                    line.sendall(piece[start : start + part])
                    time.sleep(1 / self.rate)
            number += 5

    def _piece(self, first, size):
        key = first, size
        if key not in self._made:
            self._made[key] = stream(5, size, self.rate, first)
        return self._made[key]
