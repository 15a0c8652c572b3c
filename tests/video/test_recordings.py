"""Files as recorders, broadcasts and editors leave them: several in one, odd clocks, odd pixels."""

from fractions import Fraction
from typing import cast

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from eventful.video.clock import Clock

from .conftest import read_whole

MPEG2 = {"codec": "mpeg2video", "options": {"b": "2M"}}
H264 = {"codec": "libx264"}
HEVC = {"codec": "libx265", "options": {"x265-params": "log-level=none:crf=6"}}
INTRA = {"codec": "mpeg2video", "options": {"b": "2M", "g": "1"}}
FORMATS = {"libx264": "h264", "mpeg2video": "mpeg2video"}
SIZE = (136, 88)  # the least that the encoder of HEVC takes is between this and the usual
KINDS = {"mpeg2": MPEG2, "h264": H264, "hevc": HEVC, "intra": INTRA}


def joined(path, parts):
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def assert_shows(frames, rate, *counts):
    """The frames are those of recordings of so many frames each, one after another."""
    assert len(frames) == sum(counts)
    assert [frame.time for frame in frames] == [Fraction(k) / rate for k in range(len(frames))]
    numbers = [round((frame.pixels[..., 2].mean() - 40) / 5) for frame in frames]
    assert numbers == [k for count in counts for k in range(count)]


class TestSeveralRecordings:
    @pytest.mark.parametrize(
        ("suffix", "kind"),
        [*(("ts", kind) for kind in KINDS), ("vob", "mpeg2"), ("vob", "intra"), ("mpg", "mpeg2")],
    )
    @pytest.mark.parametrize("counts", [(5, 5), (12, 3, 7), (2, 4)])
    def test_follow_one_another(self, tmp_path, write_video, suffix, kind, counts):
        parts = [
            write_video(tmp_path / f"{k}.{suffix}", count, size=SIZE, **KINDS[kind])
            for k, count in enumerate(counts)
        ]
        frames, reader = read_whole(joined(tmp_path / f"all.{suffix}", parts))
        assert reader.damage is None
        assert_shows(frames, 25, *counts)

    def test_go_on_where_the_first_ended(self, tmp_path, write_video):
        """As the segments of a stream in the network do."""
        parts = [
            write_video(tmp_path / f"{k}.ts", 6, pts=[3600 * (6 * k + i) for i in range(6)])
            for k in range(3)
        ]
        frames, reader = read_whole(joined(tmp_path / "all.ts", parts))
        assert (len(frames), reader.damage) == (18, None)
        assert [frame.time for frame in frames] == [Fraction(k, 25) for k in range(18)]

    @pytest.mark.parametrize("kind", KINDS)
    def test_data_missing_within_one_are_still_damage(self, tmp_path, write_video, kind):
        options = {"g": "100", **KINDS[kind].get("options", {})}
        written = {**KINDS[kind], "options": options, "size": (340, 220)}
        path = write_video(tmp_path / "a.ts", 12, **written)
        data = path.read_bytes()
        whole = {frame.time: frame.pixels for frame in read_whole(path)[0]}
        with av.open(str(path)) as container:
            seventh = [packet.pos for packet in container.demux(video=0) if packet.size][6]
        lost = seventh // 188 + 1
        path.write_bytes(data[: 188 * lost] + data[188 * (lost + 1) :])
        frames, reader = read_whole(path)
        assert reader.damage is not None
        assert len(frames) < 12
        for frame in frames:
            np.testing.assert_array_equal(frame.pixels, whole[frame.time])


class Stamped:
    """A frame as far as the clock looks at it."""

    def __init__(self, pts):
        self.pts = pts


@pytest.mark.parametrize(
    ("stamps", "steps"),
    [
        ([0, 1, 2], [0, 1, 2]),
        ([7, 9, 10], [0, 2, 3]),
        ([0, 1, 1, 0, 4, 0], [0, 1, 2, 3, 7, 8]),
        ([5, 6, 7, 5, 6], [0, 1, 2, 3, 4]),
        ([None, None, 30, 31], [0, 1, 2, 3]),
        ([0, None, 1, None], [0, 1, 2, 3]),
    ],
)
def test_times_increase_whatever_the_file_says(tmp_path, write_video, stamps, steps):
    path = write_video(tmp_path / "a.avi", 1, codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as container:
        clock = Clock(container, container.streams.video[0], Fraction(25))
        times = [clock.time(cast(av.VideoFrame, Stamped(pts))) for pts in stamps]
    assert times == [Fraction(step, 25) for step in steps]


def copied_to_avi(source, path, ticks):
    """The packets of an H.264 file in an AVI whose clock has so many ticks a frame."""
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        video = given.streams.video[0]
        stream = container.add_stream_from_template(video)
        stream.time_base = Fraction(1, 25 * ticks)
        annex_b = BitStreamFilterContext("h264_mp4toannexb", video)
        for packet in given.demux(video):
            for part in annex_b.filter(packet if packet.size else None):
                part.stream = stream
                container.mux(part)
    return path


class TestClocks:
    @pytest.mark.parametrize("ticks", [1, 2, 24])
    def test_of_avi_are_not_the_pictures(self, tmp_path, write_video, ticks):
        source = write_video(tmp_path / "a.mp4", 12)
        path = copied_to_avi(source, tmp_path / "a.avi", ticks)
        frames, reader = read_whole(path)
        assert (reader.rate, reader.frames, reader.damage) == (25, 12, None)
        assert_shows(frames, 25, 12)

    def test_an_avi_that_ends_early_is_still_damaged(self, tmp_path, write_video, cut):
        source = write_video(tmp_path / "a.mp4", 30)
        path = copied_to_avi(source, tmp_path / "a.avi", 2)
        with av.open(str(path)) as container:
            last = [packet for packet in container.demux(video=0) if packet.size][-2]
        frames, reader = read_whole(cut(path, last.pos))
        assert len(frames) < 30
        assert "the file declares 1.20 s but ends after" in (reader.damage or "")

    @pytest.mark.parametrize(
        ("size", "rate", "pix_fmt"),
        [((720, 576), Fraction(25), "yuv420p"), ((720, 480), Fraction(30000, 1001), "yuv411p")],
    )
    @pytest.mark.parametrize("name", ["a.dv", "a.avi", "a.mov"])
    def test_of_dv(self, tmp_path, write_video, name, size, rate, pix_fmt):
        kind = {"codec": "dvvideo", "options": {}, "pix_fmt": pix_fmt}
        path = write_video(tmp_path / name, 4, size=size, rate=rate, **kind)
        frames, reader = read_whole(path)
        assert (reader.rate, reader.damage) == (rate, None)
        assert [frame.time for frame in frames] == [k / rate for k in range(4)]

    @pytest.mark.parametrize("rate", [Fraction(12), Fraction(30000, 1001), Fraction(24)])
    @pytest.mark.parametrize(("name", "codec"), [("a.h264", "libx264"), ("a.m2v", "mpeg2video")])
    def test_of_raw_streams_are_those_of_their_pictures(
        self, tmp_path, write_video, name, codec, rate
    ):
        if codec == "mpeg2video" and rate == 12:
            rate = Fraction(25)  # MPEG-2 knows a few rates only
        path = tmp_path / name
        write_video(path, 5, codec=codec, rate=rate, container_format=FORMATS[codec])
        frames, reader = read_whole(path)
        assert (reader.rate, reader.damage) == (rate, None)
        assert [frame.time for frame in frames] == [k / rate for k in range(5)]

    def test_of_a_few_frames_that_ffmpeg_knows_no_rate_of(self, tmp_path, write_video):
        rate = Fraction(15, 2)
        frames, reader = read_whole(write_video(tmp_path / "a.ts", 2, rate=rate))
        assert reader.rate == rate
        assert [frame.time for frame in frames] == [0, 1 / rate]


class TestPixelsThatAreNotSquare:
    def wide(self, path, ratio, size=(160, 96), codec="libx264"):
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.sample_aspect_ratio = ratio
            frame = av.VideoFrame.from_ndarray(np.zeros((*size[::-1], 3), np.uint8), "rgb24")
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    @pytest.mark.parametrize(
        ("ratio", "expected"),
        [
            (Fraction(2), (64, 16)),  # 64 x 19.2
            (Fraction(1), (64, 32)),  # 64 x 38.4
            (Fraction(1, 2), (48, 64)),  # 53.3 x 64
            (Fraction(16, 15), (64, 32)),
        ],
    )
    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
    def test_are_shown_as_wide_as_they_are(self, tmp_path, ratio, expected, name):
        path = self.wide(tmp_path / name, ratio)
        frames, reader = read_whole(path, size=64, keep_aspect=True, patch=16)
        assert (reader.width, reader.height) == expected
        assert frames[0].pixels.shape == (*expected[::-1], 3)
        assert reader.aspect == ratio * Fraction(160, 96)

    def test_do_not_change_the_native_size_or_squares(self, tmp_path):
        path = self.wide(tmp_path / "a.mp4", Fraction(2))
        assert read_whole(path)[0][0].pixels.shape == (96, 160, 3)
        assert read_whole(path, size=32)[0][0].pixels.shape == (32, 32, 3)
