"""What sources send: files that break off, sound without pictures, MJPEG, playlists."""

import io
import os
import socket
import threading
import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from eventful.live import Limits
from eventful.live.camera import Camera
from eventful.live.drawing import drawn
from eventful.live.sources import Source
from eventful.video.decode import Timed
from eventful.video.geometry import UPRIGHT
from tests.live.conftest import LIMITS, Quiet, until
from tests.live.senders import picture, stream


def video(path, times):
    """A Matroska file with a frame at each time, in 25ths of a second."""
    with av.open(str(path), "w") as container:
        out = container.add_stream("libx264", rate=25)
        out.width, out.height, out.pix_fmt = 96, 64, "yuv420p"
        out.options = {"preset": "ultrafast", "tune": "zerolatency"}
        for number, moment in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 25)
            container.mux(out.encode(frame))
        container.mux(out.encode(None))


def damaged(path):
    data = bytearray(stream(60))
    half = len(data) // 2
    data[half : half + 9000] = np.random.default_rng(0).bytes(9000)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (damaged, "breaks off within a frame"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "is none"),
        (lambda path: path.write_text("hello"), "is none"),
    ],
    ids=["damaged", "empty", "noise", "text"],
)
def test_a_file_that_cannot_be_read_ends_and_says_why(running, tmp_path, make, why):
    path = tmp_path / "a.ts"
    make(path)
    run = running(forever=False, fast=True)
    run.watcher.add("a", str(path))
    run.start().wait(5)  # it is not read again and again
    status = run.camera("a")
    assert status.state == "ended"
    assert why in status.reason
    assert status.processed < 60
    assert status.reconnects == 0


def test_a_gap_in_a_recording_is_not_waited_for_to_its_end(running, tmp_path):
    path = tmp_path / "a.mkv"
    video(path, [0, 1, 2, 90_000, 90_001, 90_002])  # an hour
    run = running(forever=False)  # waits a second at most, by `LIMITS`
    run.watcher.add("a", str(path))
    start = time.monotonic()
    run.start().wait(10)
    assert 1.0 <= time.monotonic() - start < 3
    assert len(run.results) == 6
    assert run.results[-1].time == pytest.approx(3600.08)


def with_sound(pictures, seconds):
    """MPEG-TS of so many pictures, and sound for so many seconds."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        out = container.add_stream("libx264", rate=25)
        out.width, out.height, out.pix_fmt = 96, 64, "yuv420p"
        out.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "5"}
        sound = container.add_stream("mp2", rate=48000, layout="mono")
        packets = []
        for number in range(pictures):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = number
            packets += out.encode(frame)
        packets += out.encode(None)
        for number in range(int(seconds * 48000 / 1152)):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1152), np.int16), format="s16", layout="mono"
            )
            frame.rate, frame.pts = 48000, 1152 * number
            packets += sound.encode(frame)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return buffer.getvalue()


def test_sound_that_goes_on_hides_no_stall_of_the_pictures(running):
    data, begun = with_sound(50, 60), len(with_sound(50, 2))
    ending = threading.Event()

    def send(server):
        while not ending.is_set():
            try:
                line, _ = server.accept()
            except TimeoutError:
                continue
            with line:
                line.recv(4096)
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + data[:begun])
                for start in range(begun, len(data), 376):
                    try:
                        line.sendall(data[start : start + 376])
                    except OSError:
                        break
                    if ending.wait(0.02):
                        break

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        thread = threading.Thread(target=send, args=(server,))
        thread.start()
        try:
            run = running().start()
            run.watcher.add("a", f"http://127.0.0.1:{server.getsockname()[1]}/a.ts")
            until(lambda: run.camera("a").processed)
            until(lambda: "whole frame" in run.camera("a").reason, 5, what="a time-out")
        finally:
            ending.set()
            thread.join()


class Mjpeg(Quiet):
    """Ten pictures a second, for two seconds."""

    def do_GET(self):  # noqa: N802 - the library's name
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(20):
            coded = cv2.imencode(".jpg", picture(number))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(coded)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + coded + b"\r\n")
            except OSError:
                return
            time.sleep(0.1)


def test_times_of_mjpeg_are_those_of_arrival_and_not_made_up(running, served):
    run = running().start()
    run.watcher.add("a", f"{served(Mjpeg)}/video")
    run.more("a", 8)
    run.end()
    for result in run.results:
        assert result.time == result.arrived


def test_a_playlist_cannot_name_files_of_this_machine(running, served, tmp_path):
    (tmp_path / "a.ts").write_bytes(stream(50))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.ts").write_bytes(stream(50))
    path = f"{tmp_path}/a.ts"
    places = [f"file://{path}", path, f"concat:{path}", f"subfile,,start,0,end,0,,:{path}", "a.ts"]
    for number, place in enumerate(places):
        text = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{place}\n#EXT-X-ENDLIST\n"
        (tmp_path / "out" / f"{number}.m3u8").write_text(text)
    (tmp_path / "out" / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile '{path}'\n")
    address = served() + "/out"
    run = running().start()
    names = [*(f"{number}.m3u8" for number in range(len(places))), "list.ffconcat"]
    for name in names:
        run.watcher.add(name, f"{address}/{name}")
    run.more("4.m3u8", 5)  # beside the playlist
    for name in names:
        if name != "4.m3u8":
            until(lambda name=name: run.camera(name).state == "waiting")
            assert run.camera(name).processed == run.camera(name).reconnects == 0


def test_pictures_have_the_shape_in_which_frames_are_shown(running, tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        out = container.add_stream("libx264", rate=25)
        out.width, out.height, out.pix_fmt = 96, 64, "yuv420p"
        out.codec_context.sample_aspect_ratio = Fraction(1, 2)
        container.mux(out.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        container.mux(out.encode(None))
    run = running(forever=False, fast=True)
    run.watcher.add("a", str(path))
    run.start().wait()
    assert run.watcher._lanes["a"].shape == (84, 70)  # 48 x 64
    encoded = np.frombuffer(run.watcher.picture("a", 48), np.uint8)
    assert cv2.imdecode(encoded, 1).shape == (64, 48, 3)
    shot, _ = run.watcher._lanes["a"].last
    box = {"boxes": np.array([[48.0, 32.0, 94.0, 62.0]])}  # the lower right quarter
    plain, boxed = (
        cv2.imdecode(np.frombuffer(drawn(shot, values, 48), np.uint8), 1).astype(int)
        for values in ({}, box)
    )
    changed = np.abs(plain - boxed).sum(2) > 60
    assert changed[34:60, 24].mean() > 0.8
    assert not changed[:, :20].any()


def test_a_webcam_that_is_not_there_is_told_without_noise(running, capfd):
    run = running().start()
    run.watcher.add("a", "/dev/video97")
    until(lambda: run.camera("a").state == "waiting")
    assert "plugged in" in run.camera("a").reason
    time.sleep(0.3)
    assert capfd.readouterr().err == ""


def test_a_frame_that_comes_while_all_stops_is_counted():
    """A thread that hung when `close` gave up waiting for it."""
    camera = Camera(Source("a", "rtsp://127.0.0.1:9/a"), lambda: None, limits=LIMITS)
    frame = av.VideoFrame(96, 64, "yuv420p")
    camera._put(Timed(frame, UPRIGHT, Fraction(0)), True)
    camera.stop()
    camera.drain()
    camera._put(Timed(frame, UPRIGHT, Fraction(1)), False)
    assert [camera.received, camera.dropped, camera.waiting] == [2, 2, 0]


@pytest.fixture
def standard_input():
    """The writing end of a pipe that is this process's standard input."""
    before, (reading, writing) = os.dup(0), os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    with open(writing, "wb") as file:
        yield file
    os.dup2(before, 0)
    os.close(before)


def test_standard_input_that_never_ends_keeps_nobody_waiting(running, standard_input):
    run = running(limits=Limits()).start()  # waits for cameras for eleven seconds
    run.watcher.add("a", "-")
    time.sleep(0.2)
    start = time.monotonic()
    run.end()
    assert time.monotonic() - start < 2
    standard_input.close()


@pytest.mark.parametrize("sent", [b"", b"no video", stream(20)], ids=["nothing", "text", "video"])
def test_standard_input_that_ends_is_not_tried_again(running, standard_input, sent):
    run = running(forever=False, lossless=True)
    run.watcher.add("a", "-")
    standard_input.write(sent)
    standard_input.close()
    run.start().wait(5)
    status = run.camera("a")
    assert status.state == "ended"
    assert (status.processed, bool(status.reason)) == ((20, False) if len(sent) > 8 else (0, True))
