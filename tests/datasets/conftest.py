"""Tiny data sets in the real formats."""

import csv
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from eventful.video import Writer

# A plain row of the table of EPIC-Kitchens, with all of its columns.
EPIC_ROW = {
    "narration_id": "P01_11_0",
    "participant_id": "P01",
    "video_id": "P01_11",
    "narration_timestamp": "00:00:00.10",
    "start_timestamp": "00:00:00.00",
    "stop_timestamp": "00:00:02.00",
    "start_frame": "1",
    "stop_frame": "60",
    "narration": "close door",
    "verb": "close",
    "verb_class": "4",
    "noun": "door",
    "noun_class": "3",
    "all_nouns": "['door']",
    "all_noun_classes": "[3]",
}


def picture(number, width, height):
    """RGB that grows to the right in red, downwards in green and with the number in blue."""
    y, x = np.mgrid[:height, :width]
    red, green = 250 * x / width, 250 * y / height
    return np.stack([red, green, np.full_like(red, (10 * number) % 250)], axis=-1).astype(np.uint8)


@pytest.fixture
def frames():
    """Writes JPEGs of (width, height) by number, and returns their folder."""

    def write(folder, numbers, size=(40, 20), pattern="{:06d}.JPEG"):
        folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            image = Image.fromarray(picture(number, *size))
            image.save(folder / pattern.format(number), "JPEG", quality=95)
        return folder

    return write


def xml(objects, size=(40, 20)):
    """An annotation as ILSVRC writes them; objects are (WordNet id, box)."""
    things = "".join(
        f"<object><trackid>{track}</trackid><name>{name}</name><bndbox>"
        f"<xmax>{box[2]}</xmax><xmin>{box[0]}</xmin><ymax>{box[3]}</ymax><ymin>{box[1]}</ymin>"
        f"</bndbox><occluded>0</occluded><generated>1</generated></object>"
        for track, (name, box) in enumerate(objects)
    )
    return (
        f"<annotation><folder>ILSVRC2015_val_00000000</folder><filename>000000</filename>"
        f"<source><database>ILSVRC_2015</database></source>"
        f"<size><width>{size[0]}</width><height>{size[1]}</height></size>{things}</annotation>"
    )


@pytest.fixture
def vid(tmp_path, frames):
    """Writes a VID video: objects by frame number."""

    def write(video, objects, size=(40, 20), split="val"):
        frames(tmp_path / f"Data/VID/{split}/{video}", objects, size)
        folder = tmp_path / f"Annotations/VID/{split}/{video}"
        folder.mkdir(parents=True)
        for number, things in objects.items():
            (folder / f"{number:06d}.xml").write_text(xml(things, size))
        return tmp_path

    return write


@pytest.fixture
def truncate():
    """Cuts a file to a part of its length."""

    def cut(path, part=0.5):
        data = path.read_bytes()
        path.write_bytes(data[: int(part * len(data))])

    return cut


@pytest.fixture
def clip():
    """Writes a video whose frame k, up to 99, is of a colour of its own."""

    def write(path, count, rate=30, size=(48, 24), every=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        if every is None:
            with Writer(path, rate=rate, crf=4) as writer:
                for k in range(count):
                    writer.write(flat(k, size))
        else:
            with_key_frames(path, count, rate, size, every)
        return path

    return write


def flat(k, size):
    """Tens in green, ones in red, 20 levels apart, so that no codec can mistake them."""
    return np.full((size[1], size[0], 3), (20 + 20 * (k % 10), 20 + 20 * (k // 10), 60), np.uint8)


def with_key_frames(path, count, rate, size, every):
    options = {"crf": "4", "g": str(every), "bf": "2", "sc_threshold": "0"}
    with av.open(str(path), "w", container_options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(rate), options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(flat(k, size), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture
def shown():
    """Which frames of `clip` images (3, H, W) show."""

    def numbers(images):
        digits = [
            [round((255 * image[c].mean().item() - 20) / 20) for c in (1, 0)] for image in images
        ]
        return [10 * tens + ones for tens, ones in digits]

    return numbers


@pytest.fixture
def epic(tmp_path):
    """Writes an EPIC table: dicts of what differs from a plain row."""

    def write(*changes, split="validation"):
        path = tmp_path / f"EPIC_100_{split}.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(EPIC_ROW))
            writer.writeheader()
            for number, change in enumerate(changes):
                writer.writerow(EPIC_ROW | {"narration_id": f"P01_11_{number}"} | change)
        return tmp_path

    return write
