"""What happens when a video is damaged, cut short, or none at all."""

import contextlib
import struct
import sys
from importlib import import_module

import av
import numpy as np
import pytest

from eventful.video import DamagedVideoWarning, Reader, read

from .conftest import patched, read_whole

FASTSTART = {"movflags": "+faststart"}


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

    @pytest.mark.parametrize(
        ("name", "codec"), [("a.mkv", "mpeg2video"), ("a.webm", "libvpx"), ("a.wmv", "wmv2")]
    )
    def test_a_file_cut_anywhere_ends_in_no_other_error(
        self, tmp_path, write_video, cut, name, codec
    ):
        path = write_video(tmp_path / name, 4, codec=codec)
        for length in range(0, path.stat().st_size, 29):
            try:
                assert len(read_whole(cut(path, length))[0]) <= 4
            except ValueError as error:
                assert "expected a video" in str(error)  # noqa: PT017

    def test_a_frame_that_fails_half_way_is_none(self, tmp_path, write_video, cut):
        kind = {"codec": "mpeg2video", "options": {"b": "4M"}}
        path = write_video(tmp_path / "a.m2v", 5, container_format="mpeg2video", **kind)
        whole = {frame.time: frame.pixels for frame in read_whole(path)[0]}
        length = path.stat().st_size
        damaged = 0
        for short in range(length // 3, length, 3):
            with contextlib.suppress(ValueError):  # not one frame
                frames, reader = read_whole(cut(path, short))
                if reader.damage:
                    damaged += 1
                    for frame in frames:
                        np.testing.assert_array_equal(frame.pixels, whole[frame.time])
        assert damaged

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
