"""Images as cameras, scanners and editors write them, beside what Pillow reads."""

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from eventful.video import Reader
from eventful.video.exif import exif_turn
from eventful.video.geometry import UPRIGHT

from .conftest import picture, read_whole

ORIENTATION = 0x0112


def image(mode="RGB"):
    return Image.fromarray(picture(3)).convert(mode)


def saved(path, mode="RGB", **options):
    image(mode).save(path, **options)
    return path


def turned(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def assert_as_pillow_reads(path, levels=0):
    with Image.open(path) as opened:
        expected = ImageOps.exif_transpose(opened).convert("RGB")
    frames, reader = read_whole(path)
    assert (len(frames), reader.damage) == (1, None)
    assert (reader.width, reader.height) == expected.size
    np.testing.assert_allclose(frames[0].pixels, np.asarray(expected).astype(int), atol=levels)


LOSSLESS: dict[str, dict[str, Any]] = {
    "a.png": {},
    "a.webp": {"lossless": True},
    "a.tif": {"compression": "tiff_lzw"},
    "a.TIFF": {},
}


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("name", LOSSLESS)
    def test_is_heeded_in_every_format(self, tmp_path, name, orientation):
        path = saved(tmp_path / name, exif=turned(orientation), **LOSSLESS[name])
        assert_as_pillow_reads(path)

    def test_of_a_jpeg_stands_behind_other_data(self, tmp_path):
        path = saved(
            tmp_path / "a.jpg", exif=turned(6), icc_profile=bytes(70000), quality=95, subsampling=0
        )
        data = path.read_bytes()
        start = data.index(b"\xff\xe1")
        (length,) = struct.unpack_from(">H", data, start + 2)
        exif = data[start : start + 2 + length]
        rest = data[:start] + data[start + 2 + length :]
        scan = rest.index(b"\xff\xdb")  # the first table: all application data stand before it
        path.write_bytes(rest[:scan] + exif + rest[scan:])
        assert_as_pillow_reads(path, levels=12)

    @pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.tif"])
    def test_that_is_damaged_is_none(self, tmp_path, name):
        path = saved(tmp_path / name, exif=turned(6))
        data = bytearray(path.read_bytes())
        entry = data.rindex(struct.pack("<HHI", ORIENTATION, 3, 1)) if b"II*\0" in data else 0
        entry = entry or data.rindex(struct.pack(">HHI", ORIENTATION, 3, 1))
        data[entry + 2 : entry + 4] = b"\0\0"
        path.write_bytes(data)
        (frame,), _ = read_whole(path)
        assert frame.pixels.shape[:2] == picture(3).shape[:2]


class TestTiff:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
    @pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits", "tiff_adobe_deflate"])
    def test_with_tags_that_say_nothing_of_its_pixels(self, tmp_path, mode, compression):
        options = {"dpi": (300, 300), "software": "scanner", "description": "pège"}
        path = saved(tmp_path / "a.tif", mode, compression=compression, **options)
        assert_as_pillow_reads(path, levels=1)

    @pytest.mark.parametrize("compression", ["group3", "group4"])
    def test_of_a_fax(self, tmp_path, compression):
        assert_as_pillow_reads(saved(tmp_path / "a.tif", "1", compression=compression))

    def test_in_16_bits(self, tmp_path):
        path, grey = tmp_path / "a.tif", picture(3)[..., 0]
        Image.fromarray(grey.astype(np.uint16) * 257).save(path, dpi=(72, 72))
        (frame,), _ = read_whole(path)
        np.testing.assert_allclose(frame.pixels[..., 1], grey.astype(int), atol=1)

    def test_of_one_picture_and_its_thumbnail(self, tmp_path):
        path, reduced = tmp_path / "a.tif", image().resize((5, 3))
        reduced.encoderinfo = {"tiffinfo": {254: 1}}
        image().save(path, save_all=True, append_images=[reduced])
        assert_as_pillow_reads(path)

    @pytest.mark.parametrize(
        ("mode", "options", "reason"),
        [
            ("RGB", {"compression": "jpeg"}, "a TIFF in JPEG or YCbCr"),
            ("L", {"compression": "jpeg"}, "a TIFF in JPEG or YCbCr"),
            ("YCbCr", {}, "a TIFF in JPEG or YCbCr"),
            ("F", {}, "its pixels are signed or floating-point"),
            ("I", {}, "its pixels are signed or floating-point"),
            ("RGB", {"save_all": True, "append_images": [image()] * 4}, "it holds 5 pictures"),
        ],
    )
    def test_that_would_be_read_wrongly_is_refused(self, tmp_path, mode, options, reason):
        path = saved(tmp_path / "a.tif", mode, **options)
        with pytest.raises(ValueError, match=rf"not one frame of .*a\.tif decodes: .*{reason}"):
            Reader(path)

    def test_whose_directories_run_in_a_circle(self, tmp_path):
        path = saved(tmp_path / "a.tif")
        data = bytearray(path.read_bytes())
        (first,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, first)
        struct.pack_into("<I", data, first + 2 + 12 * count, first)
        path.write_bytes(data)
        assert len(read_whole(path)[0]) == 1

    @pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
    def test_cut_anywhere_is_refused(self, tmp_path, compression):
        data = saved(tmp_path / "a.tif", compression=compression).read_bytes()
        for length in range(0, len(data), 97):
            (tmp_path / "b.tif").write_bytes(data[:length])
            with pytest.raises(ValueError, match="not one frame of"):
                Reader(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        *(("a.bmp", mode, {}) for mode in ("1", "L", "P", "RGB")),
        *(("a.jpg", mode, {"progressive": True}) for mode in ("L", "RGB", "CMYK")),
        ("a.jpg", "L", {}),
        ("a.png", "RGB", {}),
        ("a.webp", "RGB", {}),
    ],
)
def test_an_image_cut_anywhere_is_refused(tmp_path, name, mode, options):
    path = saved(tmp_path / name, mode, **options)
    assert len(read_whole(path)[0]) == 1
    data = path.read_bytes()
    for length in (*range(0, len(data), 31), len(data) - 9):
        (tmp_path / f"b{name}").write_bytes(data[:length])
        with pytest.raises(ValueError, match="not one frame of"):
            Reader(tmp_path / f"b{name}")


class TestSeveralPictures:
    def test_an_animation_named_as_an_image_is_refused(self, tmp_path):
        options = {"save_all": True, "append_images": [image().rotate(90)] * 4}
        saved(tmp_path / "a.png", **options)
        with pytest.raises(ValueError, match=r"a\.png: it is animated; name it \.apng"):
            Reader(tmp_path / "a.png")
        path = (tmp_path / "a.png").rename(tmp_path / "a.apng")
        assert len(read_whole(path)[0]) == 5

    def test_a_folder_ends_at_one(self, tmp_path):
        saved(tmp_path / "1.png")
        saved(tmp_path / "2.tif", save_all=True, append_images=[image()])
        frames, reader = read_whole(tmp_path)
        assert len(frames) == 1
        assert "2.tif: it holds 2 pictures; save each to a file of its own" in (reader.damage or "")

    def test_the_first_of_a_multi_picture_jpeg_is_shown(self, tmp_path):
        """As phones write them: the picture, then a smaller one or a map of its brightness."""
        path, second = tmp_path / "a.jpg", Image.new("RGB", (10, 6))
        image().save(path, format="MPO", save_all=True, append_images=[second], quality=95)
        (frame,), _ = read_whole(path)
        np.testing.assert_allclose(frame.pixels, picture(3).astype(int), atol=12)


def test_images_have_square_pixels(tmp_path):
    path = saved(tmp_path / "a.png", dpi=(100, 200))
    with Reader(path, 28, keep_aspect=True) as reader:
        assert (reader.width, reader.height) == (28, 14)
        assert float(reader.aspect) == 34 / 22


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe1\x00\x03",
        b"\xff\xd8\xff\xe1\x00\x0eExif\0\0II*\0",
        b"\x89PNG\r\n\x1a\n\0\0",
        b"RIFF\0\0\0\0WEBPEXIF\x10\0\0\0",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
    ],
)
def test_exif_data_that_end_early_turn_nothing(data):
    assert exif_turn(data) == UPRIGHT
