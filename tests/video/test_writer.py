from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from eventful.video import Reader, Writer
from eventful.video.inputs import to_array

# Levels of 255 lost to chroma at half resolution and to H.264 at the quality written.
LEVELS = 9

NTSC = Fraction(30000, 1001)


def read_all(path):
    with Reader(path) as reader:
        frames = list(reader)
    assert reader.damage is None
    return frames


def pixels(path):
    return np.stack([frame.pixels for frame in read_all(path)]).astype(float)


def to_tensor(array):
    return torch.from_numpy(array).permute(2, 0, 1) / 255


class TestPixels:
    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
    def test_round_trip(self, tmp_path, picture, name):
        with Writer(tmp_path / name, 25, crf=1) as writer:
            for k in range(5):
                writer.write(picture(k))
        assert writer.frames == 5
        expected = np.stack([picture(k) for k in range(5)])
        np.testing.assert_allclose(pixels(tmp_path / name), expected, atol=LEVELS)

    def test_flat_colours_come_back_closely(self, tmp_path):
        colours = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (20, 230, 40), (100, 150, 200)]
        with Writer(tmp_path / "a.mp4", 25, crf=1) as writer:
            for colour in colours:
                writer.write(np.full((22, 34, 3), colour, np.uint8))
        means = pixels(tmp_path / "a.mp4").mean(axis=(1, 2))
        np.testing.assert_allclose(means, colours, atol=2)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    @pytest.mark.parametrize("batch", [False, True])
    def test_tensor_is_written_as_the_array_is(self, tmp_path, picture, dtype, batch):
        # Without loss, since x264 compresses pictures this small differently from run to run.
        paths = tmp_path / "array.mp4", tmp_path / "t.mp4"
        with Writer(paths[0], 25, crf=0) as array, Writer(paths[1], 25, crf=0) as tensor:
            for k in range(3):
                grey = picture(k) // 128 * 255  # 0 and 1, which every dtype holds exactly
                array.write(grey)
                image = to_tensor(grey).to(dtype).requires_grad_()
                tensor.write(image[None] if batch else image)
        np.testing.assert_array_equal(*map(pixels, paths))

    def test_every_level_of_a_tensor_is_exact(self):
        ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        np.testing.assert_array_equal(to_array(to_tensor(ramp)), ramp)

    def test_tensor_is_rounded_not_cut(self, tmp_path):
        with Writer(tmp_path / "a.mp4", 25, crf=0) as writer:
            writer.write(torch.full((3, 22, 34), 127.9 / 255))
        assert pixels(tmp_path / "a.mp4").min() >= 128

    def test_strided_array(self, tmp_path, picture):
        with Writer(tmp_path / "a.mp4", 25, crf=1) as writer:
            writer.write(picture(0)[:, ::-1])
        expected = picture(0)[:, ::-1]
        np.testing.assert_allclose(pixels(tmp_path / "a.mp4")[0], expected, atol=LEVELS)

    @pytest.mark.parametrize("size", [(21, 35), (22, 35), (21, 34), (1, 1)])
    def test_odd_sides_repeat_the_edge(self, tmp_path, picture, size):
        image = picture(0, width=size[1], height=size[0])
        with Writer(tmp_path / "a.mp4", 25, crf=1) as writer:
            writer.write(image)
        (written,) = pixels(tmp_path / "a.mp4")
        even = (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
        assert written.shape == even
        rows, columns = np.minimum(np.indices(even[:2]), np.array(size)[:, None, None] - 1)
        np.testing.assert_allclose(written, image[rows, columns], atol=LEVELS)


class TestFile:
    def test_is_h264_that_plays_everywhere(self, tmp_path, picture):
        with Writer(tmp_path / "a.mp4", 25) as writer:
            writer.write(picture(0))
        with av.open(str(tmp_path / "a.mp4")) as container:
            context = container.streams.video[0].codec_context
            assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
            assert (context.colorspace, context.color_range) == (1, 1)
        data = (tmp_path / "a.mp4").read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")

    def test_crf_trades_size_for_quality(self, tmp_path, picture):
        for crf in (5, 45):
            with Writer(tmp_path / f"{crf}.mp4", 25, crf=crf) as writer:
                for k in range(5):
                    writer.write(picture(k, 136, 88))
        coarse, fine = (len((tmp_path / f"{crf}.mp4").read_bytes()) for crf in (45, 5))
        assert coarse < fine

    def test_replaces_another(self, tmp_path, picture):
        (tmp_path / "a.mp4").write_bytes(b"old")
        with Writer(str(tmp_path / "a.mp4"), 25) as writer:
            writer.write(picture(0))
        assert len(read_all(tmp_path / "a.mp4")) == 1

    @pytest.mark.parametrize("old", [None, b"old"])
    def test_without_frames_is_left_alone(self, tmp_path, old):
        path = tmp_path / "a.mp4"
        if old:
            path.write_bytes(old)
        with Writer(path, 25):
            pass
        assert (path.read_bytes() if path.exists() else None) == old

    @pytest.mark.parametrize("count", [1, 3, 90])  # fewer and more than the encoder holds back
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_plays_after_an_exception(self, tmp_path, picture, count, error):
        def produce():
            with Writer(tmp_path / "a.mp4", NTSC) as writer:
                for k in range(count):
                    writer.write(picture(k % 30))
                raise error("mine")

        with pytest.raises(error, match="mine"):
            produce()
        assert [frame.time for frame in read_all(tmp_path / "a.mp4")] == [
            k / NTSC for k in range(count)
        ]

    def test_is_closed_once_and_for_all(self, tmp_path, picture):
        writer = Writer(tmp_path / "a.mp4", 25)
        writer.write(picture(0))
        writer.close()
        writer.close()
        with pytest.raises(ValueError, match=r"expected an open writer; .*a\.mp4 is closed"):
            writer.write(picture(1))
        assert len(read_all(tmp_path / "a.mp4")) == 1


class TestTime:
    @pytest.mark.parametrize(
        ("rate", "exact"),
        [
            (25, Fraction(25)),
            (NTSC, NTSC),
            (29.97, NTSC),
            (30000 / 1001, NTSC),
            (23.976, Fraction(24000, 1001)),
            (59.94, Fraction(60000, 1001)),
            (30.0, Fraction(30)),
            (12.5, Fraction(25, 2)),
            (1 / 3, Fraction(1, 3)),
            (np.float64(10), Fraction(10)),
        ],
    )
    def test_rate_is_exact(self, tmp_path, picture, rate, exact):
        with Writer(tmp_path / "a.mp4", rate) as writer:
            assert writer.rate == exact
            for k in range(4):
                writer.write(picture(k))
        with Reader(tmp_path / "a.mp4") as reader:
            assert (reader.rate, reader.frames) == (exact, 4)
            assert [frame.time for frame in reader] == [k / exact for k in range(4)]

    def test_given_times_come_back(self, tmp_path, picture):
        times = [Fraction(t, 90000) for t in (0, 1, 3003, 45000, 45001, 400000)]
        with Writer(tmp_path / "a.mp4", 25) as writer:
            for k, time in enumerate(times):
                writer.write(picture(k), time=time)
        assert [frame.time for frame in read_all(tmp_path / "a.mp4")] == times

    def test_given_times_are_rounded_to_the_tick(self, tmp_path, picture):
        times = [0.0, 1 / 7, 2]
        with Writer(tmp_path / "a.mp4", 25) as writer:
            for k, time in enumerate(times):
                writer.write(picture(k), time=time)
        read = [frame.time for frame in read_all(tmp_path / "a.mp4")]
        assert read == [0, Fraction(round(90000 / 7), 90000), 2]

    @pytest.mark.parametrize(
        ("first", "second", "message"),
        [
            (Fraction(1, 3), Fraction(1, 3), "expected a time after 0.333333 s"),
            (Fraction(1, 3), Fraction(333335, 1000000), "expected a time after 0.333333 s"),
            (Fraction(1), Fraction(1, 2), "expected a time after 1.000000 s.*got 0.500000 s"),
            (Fraction(1), None, "a time for every frame or for none"),
            (None, Fraction(1), "a time for every frame or for none"),
        ],
    )
    def test_times_must_increase(self, tmp_path, picture, first, second, message):
        with Writer(tmp_path / "a.mp4", 25) as writer:
            writer.write(picture(0), first)
            with pytest.raises(ValueError, match=message):
                writer.write(picture(1), second)
        assert len(read_all(tmp_path / "a.mp4")) == 1

    def test_times_start_at_zero(self, tmp_path, picture):
        with (
            Writer(tmp_path / "a.mp4", 25) as writer,
            pytest.raises(ValueError, match="times from 0 on"),
        ):
            writer.write(picture(0), Fraction(-1, 25))

    def test_avi_has_no_times(self, tmp_path, picture):
        with (
            Writer(tmp_path / "a.avi", 25) as writer,
            pytest.raises(ValueError, match=r"the format avi has no times.*Name the file \.mp4"),
        ):
            writer.write(picture(0), Fraction(0))
        assert not list(tmp_path.iterdir())


class TestMistakes:
    def test_another_size(self, tmp_path, picture):
        with Writer(tmp_path / "a.mp4", 25) as writer:
            writer.write(picture(0))
            with pytest.raises(ValueError, match=r"\(22, 34\) like those before; got \(22, 33\)"):
                writer.write(picture(1, 33, 22))
            writer.write(picture(2))
        assert len(read_all(tmp_path / "a.mp4")) == 2

    @pytest.mark.parametrize(
        ("image", "error", "message"),
        [
            (np.zeros((22, 34, 3), np.float32), TypeError, "got float32. Convert"),
            (np.zeros((22, 34), np.uint8), ValueError, r"got \(22, 34\). Put the channels last"),
            (np.zeros((22, 34, 4), np.uint8), ValueError, "drop an alpha channel"),
            (np.zeros((0, 34, 3), np.uint8), ValueError, r"got \(0, 34, 3\)"),
            ([[0, 0, 0]], TypeError, "got list"),
            (torch.zeros(3, 22, 34, dtype=torch.uint8), TypeError, "got torch.uint8. Convert"),
            (torch.zeros(2, 3, 22, 34), ValueError, r"got \(2, 3, 22, 34\). Write the frames"),
            (torch.zeros(22, 34, 3), ValueError, r"got \(22, 34, 3\)"),
            (torch.full((3, 22, 34), 255.0), ValueError, "got 255 to 255. Divide by 255"),
            (torch.full((3, 22, 34), -0.1), ValueError, "got -0.1 to -0.1"),
            (torch.full((3, 22, 34), torch.nan), ValueError, "got nan to nan"),
        ],
    )
    def test_image(self, tmp_path, image, error, message):
        with Writer(tmp_path / "a.mp4", 25) as writer, pytest.raises(error, match=message):
            writer.write(image)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("rate", "error"),
        [
            (0, ValueError),
            (-25, ValueError),
            (float("nan"), ValueError),
            (float("inf"), ValueError),
            (1e-9, ValueError),
            (Fraction(1, 1 << 40), ValueError),
            ("25", TypeError),
            (True, TypeError),
            (None, TypeError),
        ],
    )
    def test_rate(self, tmp_path, rate, error):
        with pytest.raises(error, match=r"^rate must be"):
            Writer(tmp_path / "a.mp4", rate)

    @pytest.mark.parametrize(
        ("crf", "error"), [(-1, ValueError), (52, ValueError), ("20", TypeError)]
    )
    def test_crf(self, tmp_path, crf, error):
        with pytest.raises(error, match=r"^crf must"):
            Writer(tmp_path / "a.mp4", 25, crf=crf)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is no .*nope\. Make it"):
            Writer(tmp_path / "nope" / "a.mp4", 25)

    @pytest.mark.parametrize(
        ("name", "width", "reason"),
        [
            ("a.webm", 34, "'webm' format does not support"),
            ("a.xyz", 34, "Could not determine output format"),
            ("a.mp4", 16400, "avcodec_open2"),
        ],
    )
    def test_codec_that_cannot_says_so(self, tmp_path, name, width, reason):
        expected = rf"the codec libx264 \(H.264\) could not write .*{name}: .*{reason}.*Name the"
        with Writer(tmp_path / name, 25) as writer, pytest.raises(ValueError, match=expected):
            writer.write(np.zeros((2, width, 3), np.uint8))
        assert not list(tmp_path.iterdir())

    def test_codec_that_is_missing_says_so(self, tmp_path, picture, monkeypatch):
        monkeypatch.setattr("eventful.video.writer.CODEC", "libnone")
        with (
            Writer(tmp_path / "a.mp4", 25) as writer,
            pytest.raises(ValueError, match=r"codec libnone .* pip install --upgrade av"),
        ):
            writer.write(picture(0))
