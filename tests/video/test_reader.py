import gc
import os
import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import av
import numpy as np
import pytest
import torch

from eventful.video import DamagedVideoWarning, Frame, Reader, read
from eventful.video.geometry import Turns, display_turn

from .conftest import patched, read_whole

NTSC = Fraction(30000, 1001)

# Levels of 255: H.264 at crf 4 and its chroma at half resolution; JPEG at default quality.
CODEC_LEVELS = 8
JPEG_LEVELS = 12


def levels(image):
    """(1, 3, H, W) in [0, 1] -> (H, W, 3) in levels of 255."""
    return (image[0].permute(1, 2, 0) * 255).numpy()


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

    def test_a_turn_begins_at_a_key_frame_or_with_another_angle(self):
        down = struct.pack("=9i", 1 << 16, 0, 0, 0, -1 << 16, 0, 0, 0, 1 << 30)  # upside down

        def frame(rotation, key, matrix=None):
            data = {} if matrix is None else {"DISPLAYMATRIX": matrix}
            made = SimpleNamespace(rotation=rotation, key_frame=key, side_data=data)
            return cast(av.VideoFrame, made)

        turns = Turns()
        quarter = struct.pack("=9i", 0, -1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30)
        seen = [frame(0, True), frame(0, False), frame(0, True, down), frame(0, False, down)]
        seen += [frame(90, False, quarter), frame(0, True)]
        expected = [(1, 0, 0, 1)] * 2 + [(1, 0, 0, -1)] * 2 + [(0, -1, 1, 0), (1, 0, 0, 1)]
        assert [turns.of(each) for each in seen] == expected

    def test_frames_that_have_gone_by_leave_memory_at_once(self, tmp_path, write_video):
        path = write_video(tmp_path / "a.mp4", 60)
        read_whole(path)
        gc.collect()
        gc.disable()
        held = lambda: sum(type(thing) is av.VideoFrame for thing in gc.get_objects())  # noqa: E731
        before = held()  # by other tests
        try:
            read_whole(path)
            assert held() - before < 10, "frames wait for Python to look for cycles"
        finally:
            gc.enable()

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
