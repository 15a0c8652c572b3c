"""Sources that are no regular files: refused at once, with what to use instead."""

import os
import re
import threading
from contextlib import suppress

import pytest

from eventful.video import Reader, read

INSTEAD = r"Save a film to a file first; the frames of a camera"


def assert_refused(source, found):
    for opens in (Reader, read):
        with pytest.raises(ValueError, match=rf"^expected a video, .*{found}.*{INSTEAD}"):
            opens(source)


@pytest.mark.parametrize(
    "source", ["https://example.org/a.mp4", "rtsp://cam/1", "HTTP://x/y.png", "-", "udp://@:5"]
)
def test_a_url_or_standard_input(source):
    assert_refused(source, f"; got {re.escape(source)}\\. ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_with_a_writer(tmp_path):
    path = tmp_path / "a.mp4"
    os.mkfifo(path)
    written = threading.Thread(target=write_to, args=(path,), daemon=True)
    written.start()
    assert_refused(path, "is a pipe or a device")
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # let the writer go
    written.join(10)


def write_to(path):
    with suppress(BrokenPipeError), path.open("wb") as pipe:
        pipe.write(b"0" * 100)


def test_a_device():
    assert_refused(os.devnull, "is a pipe or a device")


def test_a_file_of_such_a_name_is_a_file(tmp_path, write_video, monkeypatch):
    write_video(tmp_path / "a.ts", 3).rename(tmp_path / "-")
    monkeypatch.chdir(tmp_path)
    assert len(list(read("-"))) == 3


def test_a_link_to_a_file_is_one(tmp_path, write_video):
    (tmp_path / "b.mp4").symlink_to(write_video(tmp_path / "a.mp4", 3))
    assert len(list(read(tmp_path / "b.mp4"))) == 3
