"""Sources, frames of segments, and what is fetched."""

import zipfile
from fractions import Fraction

import av
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from eventful import archive
from eventful.archive.footage import look
from eventful.archive.reading import Reading
from eventful.video import Reader
from tests.archive import tiny
from tests.archive.conftest import OPTIONS, picture, rows, write

SETTINGS = archive.Settings(tiny.network, "tiny", size=56, segment=7)


def film(path, codec="libx264", frames=33, uneven=False, **options):
    """A video with B-frames and a key frame in ten, or what else the options say."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 112, 80, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = 40 * number + (number % 3 * 7 if uneven else 0)
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def images(path):
    path.mkdir()
    for number in range(16):
        Image.fromarray(picture(number)).save(path / f"{number}.png")
    return path


OPEN = {"g": "10", "bf": "3", "x264-params": "open-gop=1:keyint=10:min-keyint=10:scenecut=0"}
FILMS = {
    "a.mp4": ("seek", lambda path: film(path, g="10", bf="3")),
    "open.mp4": ("seek", lambda path: film(path, **OPEN)),
    "uneven.mkv": ("seek", lambda path: film(path, uneven=True, g="10", bf="2")),
    "old.avi": ("start", lambda path: film(path, "mpeg4", g="10")),
    "broadcast.ts": ("start", lambda path: film(path, g="10", bf="2")),
    "images": ("images", images),
}


@pytest.mark.parametrize("name", FILMS)
def test_frames_of_segments_are_those_of_the_whole_video(tmp_path, name):
    access, make = FILMS[name]
    path = make(tmp_path / name)
    looked = look(archive.Source("v", str(path)), path, SETTINGS)
    assert (looked.footage.access, looked.problem) == (access, None)
    spans = looked.footage.spans(SETTINGS.segment)
    whole = [*Reader(path, 56, keep_aspect=True)]
    assert len(spans) > 2
    assert [number for span in spans for number in span] == list(range(len(whole)))
    for segment in reversed(range(len(spans))):  # in any order
        reading = Reading(looked.footage, path, segment, spans[segment])
        for frame, known in zip(reading, whole[spans[segment].start :], strict=False):
            assert (frame.index, frame.time) == (known.index, known.time)
            assert np.array_equal(frame.pixels, known.pixels)
        assert frame.index == spans[segment].stop - 1
        assert reading.problem is None


def test_damage_in_the_middle_ends_a_segment_and_not_the_next(tmp_path):
    path = film(tmp_path / "a.mkv", frames=60, g="7", bf="0")
    looked = look(archive.Source("v", str(path)), path, SETTINGS)
    assert looked.footage.access == "seek"
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    begin, length = packets[24]
    data[begin + 10 : begin + 10 + length] = bytes(length)
    path.write_bytes(data)
    found, reasons = [], []
    for segment, span in enumerate(looked.footage.spans(7)):
        reading = Reading(looked.footage, path, segment, span)
        found.append(len([*reading]))
        reasons.append(reading.problem and reading.problem.kind)
    assert reasons[3] == "damaged"
    assert found[3] < 7
    assert (found[:3], found[5:]) == ([7, 7, 7], [7, 7, 7, 4])
    assert reasons[:3] == [None, None, None]
    assert reasons[5:] == [None, None, None, None]


def test_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos" / "deep").mkdir(parents=True)
    for name in ("b.mp4", "a.MKV", "notes.txt", "deep/c.mp4", ".hidden.mp4"):
        (tmp_path / "videos" / name).touch()
    images(tmp_path / "videos" / "shots")

    def places(*given):
        return [source.place for source in archive.find(given)]

    below = ["videos/a.MKV", "videos/b.mp4", "videos/deep/c.mp4", "videos/shots"]
    assert places("videos") == below
    assert places("videos/*.mp4", "videos") == ["videos/b.mp4", below[0], *below[2:]]
    table = pa.table({"url": ["s3://x/a.mp4", "videos/b.mp4"], "id": [7, 8]})
    parquet.write_table(table, "list.parquet")
    assert archive.find(["list.parquet"]) == [
        archive.Source("7", "s3://x/a.mp4"),
        archive.Source("8", "videos/b.mp4"),
    ]
    root = (tmp_path / "videos").as_uri()
    assert places(f"{root}/*.mp4") == [f"{root}/b.mp4"]
    assert places(root) == [f"{root}/{name}" for name in ("a.MKV", "b.mp4", "deep/c.mp4")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gone.mp4", "there is nothing at gone.mp4"),
        ("*.mov", r"\*.mov holds no video"),
        ("empty", "empty holds no video"),
        ("list.csv", "needs a column path, url or file; it has name"),
    ],
)
def test_sources_that_are_none(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("name\na.mp4\n")
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        archive.find([given])


def test_two_videos_of_one_name(tmp_path):
    (tmp_path / "list.csv").write_text("id,path\nx,a.mp4\nx,b.mp4\n")
    with pytest.raises(ValueError, match="the name 'x' stands for two videos"):
        archive.find([tmp_path / "list.csv"])


def test_videos_inside_another_file_system(archived, videos, tmp_path):
    packed = tmp_path / "videos.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.write(write(tmp_path / "c.mp4", 9), "deep/c.mp4")
    url = f"zip://deep/c.mp4::{packed.as_uri()}"
    report = archive.run([url], tmp_path / "zip", tiny.network, workers=1, **OPTIONS)
    assert (report.rows, report.problems) == (9, [])
    plain = archive.run([tmp_path / "c.mp4"], tmp_path / "out", tiny.network, **OPTIONS)
    assert plain.rows == 9
    left, right = ([row["time"] for row in rows(tmp_path / out)] for out in ("zip", "out"))
    assert left == right
    gone = archive.run([f"zip://x.mp4::{packed.as_uri()}"], tmp_path / "g", tiny.network, **OPTIONS)
    assert [one.kind for one in gone.problems] == ["unreachable"]
