"""Videos and images made with PyAV itself, small and asymmetric, beside what they show."""

from fractions import Fraction
from typing import cast

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext

from eventful.video import Reader

WIDTH, HEIGHT = 34, 22


def picture(k, width=WIDTH, height=HEIGHT):
    """Frame k, (H, W, 3): red grows to the right, green downwards, blue with time."""
    y, x = np.mgrid[:height, :width]
    red, green = 20 + 200 * x / width, 30 + 180 * y / height
    return np.stack([red, green, np.full_like(red, 40 + 5 * k)], axis=-1).astype(np.uint8)


def write_video(path, count=12, *, codec="libx264", rate=25, size=(WIDTH, HEIGHT), **kind):
    """Writes `picture(0)` ... at `rate`, or at `pts` of 1/90000 s."""
    width, height = size
    name, given = kind.get("container_format"), kind.get("container", {})
    with av.open(str(path), "w", format=name, container_options=given) as container:
        options = kind.get("options", {"crf": "4"} if codec == "libx264" else {})
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.codec_context.thread_count = 1  # swscale's threads spoil some 10-bit frames
        stream.width, stream.height = width, height
        stream.pix_fmt = kind.get("pix_fmt", "yuv420p")
        pts = kind.get("pts")
        if pts:
            stream.codec_context.time_base = Fraction(1, 90000)
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(picture(k, width, height), format="rgb24")
            if pts:
                frame.pts, frame.time_base = pts[k], Fraction(1, 90000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_image(path, pixels, codec="png"):
    context = cast(VideoCodecContext, av.CodecContext.create(codec, "w"))
    context.height, context.width = pixels.shape[:2]
    context.pix_fmt = {"png": "rgb24", "mjpeg": "yuvj444p"}[codec]
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=context.pix_fmt)
    packets = [*context.encode(frame), *context.encode(None)]
    path.write_bytes(b"".join(bytes(packet) for packet in packets))
    return path


@pytest.fixture(name="picture")
def picture_fixture():
    return picture


@pytest.fixture(name="write_video")
def write_video_fixture():
    return write_video


@pytest.fixture(name="write_image")
def write_image_fixture():
    return write_image


@pytest.fixture
def cut():
    """Writes the first bytes of a file beside it: a recording or a download broken off."""

    def cut(path, length):
        data = path.read_bytes()
        length = int(length * len(data)) if isinstance(length, float) else length
        short = path.with_name(f"cut_{path.name}")
        short.write_bytes(data[:length])
        return short

    return cut


@pytest.fixture
def opened(monkeypatch):
    """Every container that is opened to read, so that a test can ask which are still open."""
    containers = []
    av_open = av.open

    def record(*args, **kwargs):
        containers.append(av_open(*args, **kwargs))
        return containers[-1]

    monkeypatch.setattr(av, "open", record)
    return containers


def read_whole(path, **kwargs):
    with Reader(path, **kwargs) as reader:
        return list(reader), reader


def patched(path, box, offset, data):
    """Overwrites bytes of an MP4 box, `offset` counted from after its name."""
    content = bytearray(path.read_bytes())
    begin = content.index(box) + 4 + offset
    content[begin : begin + len(data)] = data
    path.write_bytes(content)
    return path
