import os
import struct
import sys
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import av
import numpy as np
import pytest
import torch

from eventful.video import DamagedVideoWarning, Frame, Reader, read
from eventful.video.geometry import display_turn

FASTSTART = {"movflags": "+faststart"}
NTSC = Fraction(30000, 1001)

# Levels of 255: H.264 at crf 4 and its chroma at half resolution; JPEG at default quality.
CODEC_LEVELS = 8
JPEG_LEVELS = 12


def levels(image):
    """(1, 3, H, W) in [0, 1] -> (H, W, 3) in levels of 255."""
    return (image[0].permute(1, 2, 0) * 255).numpy()


def read_whole(path, **kwargs):
    with Reader(path, **kwargs) as reader:
        return list(reader), reader


def packets_of(path):
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def assert_begins_like(path, whole, least):
    """The frames of the damaged file at `path` are those of `whole`, at their own times.

    Returns the damage.
    """
    truth = {frame.time: frame.pixels for frame in whole}
    frames, reader = read_whole(path)
    assert least <= len(frames) < len(whole)
    for frame in frames:
        np.testing.assert_array_equal(frame.pixels, truth[frame.time])
    assert reader.damage is not None
    assert reader.damage.startswith(f"decoding stopped after {len(frames)} frames")
    return reader.damage


class TestFrames:
    def test_are_rgb_in_the_unit_range(self, tmp_path, write_video, picture):
        images = list(read(write_video(tmp_path / "a.mp4")))
        assert len(images) == 12
        for k, image in enumerate(images):
            assert image.shape == (1, 3, 22, 34)
            assert image.dtype == torch.float32
            assert image.is_contiguous()
            np.testing.assert_allclose(levels(image), picture(k), atol=CODEC_LEVELS)

    def test_image_and_pixels_agree(self, tmp_path, write_video):
        frames, reader = read_whole(write_video(tmp_path / "a.mp4", 3))
        assert [frame.index for frame in frames] == [0, 1, 2]
        for frame in frames:
            assert frame.pixels.shape == (reader.height, reader.width, 3) == (22, 34, 3)
            assert frame.pixels.dtype == np.uint8
            torch.testing.assert_close(levels(frame.image).round(), frame.pixels.astype("f4"))

    def test_image_spans_zero_to_one_exactly(self):
        ramp = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, axis=2)
        image = Frame(ramp, 0, Fraction(0)).image
        torch.testing.assert_close(image[0, 1, 0], torch.arange(256) / 255, rtol=0, atol=0)

    def test_do_not_share_memory(self, tmp_path, write_video):
        first, second = read_whole(write_video(tmp_path / "a.mp4", 2))[0]
        second.pixels[:] = 0
        assert first.pixels.min() > 0

    @pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv444p", "yuv420p10le"])
    @pytest.mark.parametrize("width", [32, 34, 38])
    def test_every_column_is_written(self, tmp_path, write_video, picture, pix_fmt, width):
        path = tmp_path / "a.mkv"
        write_video(path, 1, codec="libx264", pix_fmt=pix_fmt, size=(width, 22))
        (image,) = read(path)
        np.testing.assert_allclose(levels(image), picture(0, width), atol=CODEC_LEVELS)

    @pytest.mark.parametrize("matrix", [1, 6])
    def test_heeds_the_colour_matrix(self, tmp_path, matrix):
        with av.open(str(tmp_path / "a.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
            stream.width, stream.height, stream.pix_fmt = 34, 22, "yuv420p"
            stream.codec_context.colorspace = matrix
            # Y, Cb and Cr of pure red: H.273, limited range.
            red = {1: (63, 102, 240), 6: (81, 90, 240)}[matrix]
            planes = np.concatenate([np.full(34 * 22, red[0]), np.full(17 * 11, red[1])])
            planes = np.concatenate([planes, np.full(17 * 11, red[2])]).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(planes.reshape(33, 34), format="yuv420p")
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        (image,) = read(tmp_path / "a.mp4")
        assert image.mean(dim=(0, 2, 3)).tolist() == pytest.approx([1, 0, 0], abs=0.02)


class TestSize:
    def test_square(self, tmp_path, write_video, picture):
        (image,) = read(write_video(tmp_path / "a.mp4", 1), size=16)
        assert image.shape == (1, 3, 16, 16)
        expected = picture(0, 16, 16).astype(float)
        np.testing.assert_allclose(levels(image)[2:-2, 2:-2], expected[2:-2, 2:-2], atol=9)

    @pytest.mark.parametrize(
        ("native", "size", "patch", "expected"),
        [
            ((34, 22), 28, 14, (28, 14)),  # 28 x 18.1
            ((34, 22), 42, 14, (42, 28)),  # 42 x 27.2
            ((22, 34), 42, 14, (28, 42)),
            ((34, 22), 40, 16, (48, 32)),  # 2.5 patches round up; 1.6
            ((34, 4), 28, 14, (28, 14)),  # 28 x 3.3: one patch at least
            ((34, 22), 5, 14, (14, 14)),
        ],
    )
    def test_keep_aspect(self, tmp_path, write_video, native, size, patch, expected):
        path = write_video(tmp_path / "a.mp4", 1, size=native)
        frames, reader = read_whole(path, size=size, keep_aspect=True, patch=patch)
        assert (reader.width, reader.height) == expected
        assert frames[0].pixels.shape == (*expected[::-1], 3)

    @pytest.mark.parametrize("name", ["size", "patch"])
    @pytest.mark.parametrize(
        ("value", "error"), [(0, ValueError), (-7, ValueError), (2.5, TypeError), (True, TypeError)]
    )
    def test_must_be_a_positive_int(self, tmp_path, write_video, name, value, error):
        path = write_video(tmp_path / "a.mp4", 1)
        with pytest.raises(error, match=f"^{name} must be"):
            read(path, **{name: value})


class TestTime:
    @pytest.mark.parametrize("rate", [NTSC, Fraction(24000, 1001), Fraction(25), Fraction(15, 2)])
    @pytest.mark.parametrize(
        ("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("b.avi", "libx264")]
    )
    def test_constant_rate_is_exact(self, tmp_path, write_video, rate, name, codec):
        frames, reader = read_whole(write_video(tmp_path / name, rate=rate, codec=codec))
        assert reader.rate == rate
        assert reader.frames == 12
        assert [frame.time for frame in frames] == [k / rate for k in range(12)]

    def test_matroska_declares_the_rate_but_no_number(self, tmp_path, write_video):
        frames, reader = read_whole(write_video(tmp_path / "a.mkv", rate=NTSC))
        assert (reader.rate, reader.frames, reader.damage) == (NTSC, None, None)
        milliseconds = [round(1000 * k / NTSC) for k in range(12)]
        assert [frame.time for frame in frames] == [Fraction(m, 1000) for m in milliseconds]

    @pytest.mark.parametrize("start", [0, 90000])
    def test_variable_rate_is_exact(self, tmp_path, write_video, start):
        pts = [0, 3003, 3004, 10007, 90000, 450001]
        path = write_video(tmp_path / "a.mp4", 6, pts=[start + p for p in pts])
        frames, reader = read_whole(path)
        assert [frame.time for frame in frames] == [Fraction(p, 90000) for p in pts]
        assert reader.damage is None

    def test_without_timestamps_counts_frames(self, tmp_path, write_video):
        frames, reader = read_whole(write_video(tmp_path / "a.h264", 4))
        assert [frame.time for frame in frames] == [k / reader.rate for k in range(4)]

    def test_dropped_frames_of_avi_leave_gaps_in_time(self, tmp_path, picture):
        with av.open(str(tmp_path / "a.avi"), "w") as container:
            stream = container.add_stream("mjpeg", rate=25)
            stream.width, stream.height, stream.pix_fmt = 34, 22, "yuvj420p"
            for k in (0, 1, 4, 5, 9):  # the muxer fills the gaps with empty chunks
                frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        frames, reader = read_whole(tmp_path / "a.avi")
        assert [frame.time * 25 for frame in frames] == [0, 1, 4, 5, 9]
        assert (reader.frames, reader.damage) == (10, None)


def patched(path, box, offset, data):
    """Overwrites bytes of an MP4 box, `offset` counted from after its name."""
    content = bytearray(path.read_bytes())
    begin = content.index(box) + 4 + offset
    content[begin : begin + len(data)] = data
    path.write_bytes(content)
    return path


# (a, b, c, d) of the display matrix -> the same done by numpy.
TURNS = {
    (1, 0, 0, 1): lambda p: p,
    (0, -1, 1, 0): lambda p: np.rot90(p, 1),
    (-1, 0, 0, -1): lambda p: np.rot90(p, 2),
    (0, 1, -1, 0): lambda p: np.rot90(p, 3),
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda p: p.swapaxes(0, 1),
    (0, -1, -1, 0): lambda p: np.rot90(p, 2).swapaxes(0, 1),
}


class TestRotation:
    @pytest.mark.parametrize("turn", TURNS)
    def test_display_matrix_is_applied(self, tmp_path, write_video, picture, turn):
        a, b, c, d = (entry << 16 for entry in turn)
        matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path = patched(write_video(tmp_path / "a.mp4", 2), b"tkhd", 40, matrix)
        frames, reader = read_whole(path)
        for k, frame in enumerate(frames):
            expected = TURNS[turn](picture(k))
            assert (reader.height, reader.width) == expected.shape[:2]
            np.testing.assert_allclose(levels(frame.image), expected, atol=CODEC_LEVELS)

    def test_size_is_that_of_the_upright_frame(self, tmp_path, write_video):
        matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
        path = patched(write_video(tmp_path / "a.mp4", 1), b"tkhd", 40, matrix)
        frames, reader = read_whole(path, size=42, keep_aspect=True)
        assert (reader.width, reader.height) == (28, 42)
        assert frames[0].pixels.shape == (42, 28, 3)
        red = frames[0].pixels[..., 0].astype(int)
        assert red[-1].min() > red[0].max()  # right has become bottom

    def test_side_data_that_pyav_has_no_name_for(self):
        class Unnamed(SimpleNamespace):
            @property
            def side_data(self):
                raise ValueError("31 is not a valid Type")

        for rotation, turn in [(90, (0, -1, 1, 0)), (-90, (0, 1, -1, 0)), (-180, (-1, 0, 0, -1))]:
            frame = cast(av.VideoFrame, Unnamed(rotation=rotation))
            assert display_turn(frame) == turn

    def exif(self, path, orientation, order):
        mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
        entries = struct.pack(f"{order}HHHIHH", 1, 0x0112, 3, 1, orientation, 0)
        body = b"Exif\0\0" + mark + struct.pack(f"{order}I", 8) + entries + bytes(4)
        data = path.read_bytes()
        app1 = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
        path.write_bytes(data[:2] + app1 + data[2:])

    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize(
        ("orientation", "turn"),
        [
            (1, (1, 0, 0, 1)),
            (2, (-1, 0, 0, 1)),
            (3, (-1, 0, 0, -1)),
            (4, (1, 0, 0, -1)),
            (5, (0, 1, 1, 0)),
            (6, (0, 1, -1, 0)),
            (7, (0, -1, -1, 0)),
            (8, (0, -1, 1, 0)),
            (99, (1, 0, 0, 1)),
        ],
    )
    def test_exif_of_jpeg(self, tmp_path, write_image, picture, orientation, turn, order):
        path = write_image(tmp_path / "a.jpg", picture(0), "mjpeg")
        self.exif(path, orientation, order)
        (image,) = read(path)
        np.testing.assert_allclose(levels(image), TURNS[turn](picture(0)), atol=JPEG_LEVELS)


class TestDamage:
    def test_none_in_a_whole_file(self, tmp_path, write_video):
        for name, codec in [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")]:
            frames, reader = read_whole(write_video(tmp_path / name, codec=codec))
            assert (len(frames), reader.damage) == (12, None)

    @pytest.mark.parametrize("share", [0.6, 0.75, 0.9])
    @pytest.mark.parametrize(
        ("name", "codec"),
        [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("b.avi", "mjpeg")],
    )
    def test_cut_file(self, tmp_path, write_video, cut, name, codec, share):
        pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        path = tmp_path / name
        options = {"crf": "4"} if codec == "libx264" else {"b": "4M", "g": "5"}
        kind = {"codec": codec, "pix_fmt": pix_fmt, "options": options, "container": FASTSTART}
        write_video(path, 60, size=(68, 44), **kind)
        whole, reader = read_whole(path)
        assert (len(whole), reader.damage) == (60, None)
        least = {0.6: 5, 0.75: 20, 0.9: 40}[share]
        damage = assert_begins_like(cut(path, share), whole, least)
        assert (" of 60 declared: " if reader.frames else " frames: ") in damage

    @pytest.mark.parametrize("missing", [1, 2, 20])
    @pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mjpeg")])
    def test_file_that_just_ends_early(self, tmp_path, write_video, cut, name, codec, missing):
        pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        path = tmp_path / name
        write_video(path, 60, codec=codec, pix_fmt=pix_fmt, container=FASTSTART)
        packets = packets_of(path)
        if codec == "libx264":  # so that the time of the last frame shown gives nothing away
            assert packets[-1].pts < max(packet.pts for packet in packets)
        damage = assert_begins_like(cut(path, packets[-missing].pos), read_whole(path)[0], 30)
        assert " of 60 declared: the file declares 2.40 s but ends after " in damage

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.97])
    def test_file_that_ends_within_a_frame(self, tmp_path, write_video, cut, share):
        path = write_video(tmp_path / "a.avi", 9, codec="mjpeg", pix_fmt="yuvj420p")
        sixth = packets_of(path)[5]
        damage = assert_begins_like(
            cut(path, sixth.pos + 8 + int(share * sixth.size)), read_whole(path)[0], 5
        )
        assert damage == (
            "decoding stopped after 5 frames of 9 declared: the file breaks off within a frame"
        )

    def test_frames_held_back_by_the_decoder_are_kept(self, tmp_path, write_video, cut):
        path = write_video(tmp_path / "a.mp4", 12, container=FASTSTART)
        third = packets_of(path)[2]
        short = cut(path, third.pos + third.size // 2)
        assert_begins_like(short, read_whole(path)[0], 2)

    def test_data_that_do_not_decode(self, tmp_path, write_video):
        path = write_video(tmp_path / "a.mov", 10, codec="png", pix_fmt="rgb24")
        whole, _ = read_whole(path)
        sixth = packets_of(path)[5].pos
        data = bytearray(path.read_bytes())
        data[sixth : sixth + 8] = bytes(8)
        path.write_bytes(data)
        damage = assert_begins_like(path, whole, 5)
        assert damage == (
            "decoding stopped after 5 frames of 10 declared: "
            "Invalid data found when processing input"
        )

    def test_frames_that_decode_corrupt(self, tmp_path, write_video):
        path = write_video(tmp_path / "a.avi", 9, codec="mpeg4", options={"b": "4M"})
        whole, _ = read_whole(path)
        sixth = packets_of(path)[5]
        data = bytearray(path.read_bytes())
        middle = sixth.pos + 8 + sixth.size // 2
        data[middle : middle + sixth.size // 4] = b"\xaa" * (sixth.size // 4)
        path.write_bytes(data)
        damage = assert_begins_like(path, whole, 5)
        assert damage.endswith("5 frames of 9 declared: the next frame is corrupt")

    def test_a_trimmed_clip_is_whole(self, tmp_path, write_video):
        path = tmp_path / "a.mp4"
        write_video(path, 60, options={"g": "5"}, container=FASTSTART)
        begin = 512 * (2 + 20)  # 12800 ticks a second; two frames of reordering come first
        patched(path, b"elst", 8, struct.pack(">ii", 1000, begin))  # one second of 2.4
        frames, reader = read_whole(path)
        assert (len(frames), reader.frames, reader.damage) == (25, 25, None)

    def test_read_warns_at_the_end(self, tmp_path, write_video, cut):
        path = cut(write_video(tmp_path / "a.mp4", 60, container=FASTSTART), 0.7)
        images = read(path)
        seen = []
        with pytest.warns(DamagedVideoWarning, match=r"cut_a.mp4: decoding stopped after \d+"):
            seen.extend(images)
        assert len(seen) > 10

    def test_is_forgotten_by_a_new_iteration(self, tmp_path, write_video, cut):
        path = write_video(tmp_path / "a.mkv", 60)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
        reader = Reader(path)
        assert len(list(reader)) < 60
        assert reader.damage
        path.write_bytes(data)
        assert len(list(reader)) == 60
        assert reader.damage is None


class TestUnreadable:
    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is nothing at .*nope\.mp4\. Check"):
            read(tmp_path / "nope.mp4")

    @pytest.mark.parametrize(
        ("name", "data", "found"),
        [
            ("a.mp4", b"", "it is empty"),
            ("a.mp4", b"hello, world\n" * 99, "Invalid data"),
            ("a.txt", b"hello, world\n" * 99, "it is text"),
            ("a.avi", bytes(range(256)) * 99, "Invalid data"),
        ],
    )
    def test_no_video(self, tmp_path, name, data, found):
        (tmp_path / name).write_bytes(data)
        expected = rf"^expected a video, .*{name} is none: {found}.*\. Check that"
        with pytest.raises(ValueError, match=expected):
            read(tmp_path / name)

    def test_no_video_stream(self, tmp_path):
        with av.open(str(tmp_path / "a.wav"), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 999), np.int16), "s16", "mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with pytest.raises(ValueError, match="it has no video stream, but audio"):
            read(tmp_path / "a.wav")

    def test_cover_of_a_song(self, tmp_path, write_image, picture):
        cover = write_image(tmp_path / "cover.png", picture(0)).read_bytes()
        body = b"\0image/png\0\3\0" + cover
        frame = b"APIC" + struct.pack(">IH", len(body), 0) + body
        size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
        with av.open(str(tmp_path / "a.mp3"), "w") as container:
            stream = container.add_stream("mp3", rate=44100, layout="mono")
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 9999), np.float32), "fltp", "mono")
            sound.sample_rate = 44100
            container.mux(stream.encode(sound))
            container.mux(stream.encode(None))
        song = (tmp_path / "a.mp3").read_bytes()
        (tmp_path / "a.mp3").write_bytes(b"ID3\3\0\0" + size + frame + song)
        with pytest.raises(ValueError, match=r"it has no video stream, but audio\. Check"):
            read(tmp_path / "a.mp3")

    def test_folder_without_images(self, tmp_path):
        (tmp_path / "notes.txt").write_text("none")
        with pytest.raises(ValueError, match=r"folder of images \(.bmp, .* holds none. Give"):
            read(tmp_path)

    def test_not_one_frame(self, tmp_path, write_video, cut):
        path = write_video(tmp_path / "a.mp4", container=FASTSTART)
        short = cut(path, path.read_bytes().index(b"mdat") + 20)
        with pytest.raises(ValueError, match=r"not one frame of .*cut_a\.mp4 decodes: .*Check"):
            read(short)

    @pytest.mark.parametrize("name", ["100% %03d: it's.mp4", "http:x.mp4", "-ö.mp4"])
    def test_names_are_only_names(self, tmp_path, write_video, monkeypatch, name):
        write_video(tmp_path / "a.mp4", 3).rename(tmp_path / name)
        monkeypatch.chdir(tmp_path)
        assert len(list(read(name))) == 3

    def test_tags_in_latin_1(self, tmp_path, write_video):
        path = write_video(tmp_path / "a.mkv", 3)
        data = path.read_bytes()
        path.write_bytes(data.replace(b"Lavf", b"L\xe9vf"))
        assert len(list(read(path))) == 3

    def test_without_pyav(self, monkeypatch):
        for name in [name for name in sys.modules if name.startswith("eventful.video")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "av", None)
        wanted = r"^eventful.video needs PyAV; pip install 'eventful-transformers\[video\]'$"
        with pytest.raises(ImportError, match=wanted):
            import_module("eventful.video")


class TestImages:
    def test_folder_in_natural_order(self, tmp_path, write_image, picture):
        names = ["img10.png", "IMG2.PNG", "img001.png", "img02b.png", "img%03d.png"]
        for k, name in enumerate(names):
            write_image(tmp_path / name, picture(k))
        (tmp_path / "._img3.png").write_bytes(b"left by a file manager")
        (tmp_path / "notes.txt").write_text("not a frame")
        frames, reader = read_whole(tmp_path)
        assert (reader.frames, reader.rate, reader.damage) == (5, 25, None)
        assert [frame.time for frame in frames] == [Fraction(k, 25) for k in range(5)]
        for frame, k in zip(frames, (2, 1, 3, 0, 4), strict=True):
            np.testing.assert_array_equal(frame.pixels, picture(k))

    def test_of_different_sizes(self, tmp_path, write_image, picture):
        write_image(tmp_path / "1.png", picture(0, 34, 22))
        write_image(tmp_path / "2.png", picture(1, 11, 13))
        assert [image.shape[2:] for image in read(tmp_path)] == [(22, 34), (13, 11)]
        assert [image.shape[2:] for image in read(tmp_path, size=7)] == [(7, 7), (7, 7)]

    @pytest.mark.parametrize(("name", "codec"), [("a.png", "png"), ("a.JPEG", "mjpeg")])
    def test_single(self, tmp_path, write_image, picture, name, codec):
        frames, reader = read_whole(write_image(tmp_path / name, picture(3), codec))
        assert (reader.width, reader.height, reader.frames, len(frames)) == (34, 22, 1, 1)
        np.testing.assert_allclose(levels(frames[0].image), picture(3), atol=JPEG_LEVELS)

    @pytest.mark.parametrize(
        ("name", "codec", "share"),
        [
            ("2.png", "png", 0.7),
            ("2.jpg", "mjpeg", 0.9),
            ("2.jpg", "mjpeg", 0),
            ("2.png", "png", 0),
        ],
    )
    def test_bad_one_stops(self, tmp_path, write_image, picture, name, codec, share):
        write_image(tmp_path / "1.png", picture(0))
        bad = write_image(tmp_path / name, picture(1), codec)
        data = bad.read_bytes()
        bad.write_bytes(data[: int(share * len(data))])
        write_image(tmp_path / "3.png", picture(2))
        frames, reader = read_whole(tmp_path)
        assert len(frames) == 1
        assert (reader.damage or "").startswith(
            f"decoding stopped after 1 frames of 3 declared: {name}: "
        )
        with pytest.warns(DamagedVideoWarning, match=name):
            assert len(list(read(tmp_path))) == 1

    def test_bad_alone_raises(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(b"hello, world\n" * 99)
        with pytest.raises(ValueError, match=r"not one frame of .*a.jpg decodes: a.jpg: Invalid"):
            read(tmp_path / "a.jpg")


def is_open(container):
    """Whether PyAV still holds the file; a closed container has lost its streams."""
    return len(container.streams) > 0


class TestClosing:
    def test_opens_only_while_iterating(self, tmp_path, write_video, opened):
        reader = Reader(write_video(tmp_path / "a.mp4"))
        assert not any(map(is_open, opened))
        frames = iter(reader)
        next(frames)
        assert is_open(opened[-1])
        assert len(list(frames)) == 11
        assert not any(map(is_open, opened))

    def test_reader_closes_when_the_consumer_raises(self, tmp_path, write_video, opened):
        def consume():
            with Reader(path) as reader:
                frames = iter(reader)
                for frame in frames:
                    assert is_open(opened[-1])
                    if frame.index == 3:
                        raise RuntimeError("mine")

        path = write_video(tmp_path / "a.mp4")
        with pytest.raises(RuntimeError, match="mine") as caught:
            consume()
        assert not any(map(is_open, opened))
        assert caught.tb is not None  # which keeps `frames` alive

    def test_read_closes_when_the_consumer_raises(self, tmp_path, write_video, opened):
        def consume():
            for _ in read(path):
                assert is_open(opened[-1])
                raise KeyboardInterrupt

        path = write_video(tmp_path / "a.mp4")
        with pytest.raises(KeyboardInterrupt):
            consume()
        assert not any(map(is_open, opened))

    def test_read_closes_at_break_and_close(self, tmp_path, write_video, opened):
        path = write_video(tmp_path / "a.mp4")
        for _ in read(path):
            break
        assert not any(map(is_open, opened))
        images = read(path)
        next(images)
        assert is_open(opened[-1])
        images.close()
        assert not any(map(is_open, opened))

    def test_iterations_are_independent(self, tmp_path, write_video):
        reader = Reader(write_video(tmp_path / "a.mp4", 5))
        for first, second in zip(reader, reader, strict=True):
            assert first.index == second.index
            np.testing.assert_array_equal(first.pixels, second.pixels)


@pytest.mark.parametrize(
    ("name", "width", "height", "rate", "count"),
    [
        ("vtest/vtest.avi", 768, 576, 10, 795),
        ("davis2016/JPEGImages/480p/blackswan", 854, 480, 25, 50),
    ],
)
def test_real_files(name, width, height, rate, count):
    if "EVENTFUL_DATA" not in os.environ:
        pytest.skip("EVENTFUL_DATA is not set: the root of vtest/ and davis2016/")
    path = Path(os.environ["EVENTFUL_DATA"]) / name
    with Reader(path) as reader:
        assert (reader.width, reader.height) == (width, height)
        assert (reader.rate, reader.frames) == (rate, count)
        frames = [frame for frame, _ in zip(reader, range(20), strict=False)]
    assert [frame.time for frame in frames] == [Fraction(k, rate) for k in range(20)]
    images = torch.cat([frame.image for frame in frames])
    assert images.shape == (20, 3, height, width)
    assert images.std(dim=(2, 3)).min() > 0.05
    assert 0 < (images[1:] - images[:-1]).abs().mean() < 0.1
