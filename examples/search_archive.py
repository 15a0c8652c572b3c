"""Frames of an archive that look like a given one, found by their embeddings, on a contact sheet.

    eventful archive videos --out archive
    python examples/search_archive.py archive --video videos/street.mp4 --frame 120

Embeddings are compared by cosine, over all Parquet files, a batch at a time. Of frames that lie
within --apart seconds of one another in a video, the nearest alone is shown.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pyarrow import dataset, parquet

from eventful.video import Reader

COLUMNS = ["video", "frame", "time", "embedding"]
KEPT = 2000  # of the nearest frames, before those close in time are left out
WIDTH, LINE = 240, 16  # of a picture on the sheet, and of its text


def batches(archive: Path) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Rows with unit embeddings (rows, dim), batch by batch."""
    files = sorted(map(str, archive.glob("frames/*/*.parquet")))
    for batch in dataset.dataset(files).to_batches(columns=COLUMNS):
        if batch.num_rows:
            flat = batch["embedding"].flatten().to_numpy().astype(np.float32)
            x = flat.reshape(batch.num_rows, -1)
            yield (
                batch.select(COLUMNS[:3]).to_pydict(),
                x / np.linalg.norm(x, axis=1, keepdims=True),
            )


def nearest(archive: Path, query: np.ndarray, count: int, apart: float) -> list[dict[str, Any]]:
    """The rows whose embeddings are nearest to a unit vector (dim,), the nearest first."""
    best: list[tuple[float, str, int, float]] = []
    for rows, x in batches(archive):
        names = zip(rows["video"], rows["frame"], rows["time"], strict=True)
        scored = [(s, *r) for s, r in zip((x @ query).tolist(), names, strict=True)]
        best = heapq.nlargest(KEPT, [*best, *scored])
    shown: list[dict[str, Any]] = []
    for likeness, video, frame, time in best:
        near = (one for one in shown if one["video"] == video)
        if len(shown) < count and all(abs(one["time"] - time) >= apart for one in near):
            shown.append({"likeness": likeness, "video": video, "frame": frame, "time": time})
    return shown


def embedding(archive: Path, video: str, frame: int) -> np.ndarray:
    """The unit embedding of one frame."""
    for rows, x in batches(archive):
        for number, found in enumerate(zip(rows["video"], rows["frame"], strict=True)):
            if found == (video, frame):
                return x[number]
    raise ValueError(f"the archive has no frame {frame} of {video}")


def picture(place: str, frame: int) -> Image.Image:
    """A frame of a video."""
    with Reader(place) as reader:
        pixels = next(one.pixels for one in reader if one.index == frame)
    image = Image.fromarray(pixels)
    return image.resize((WIDTH, max(1, round(WIDTH * image.height / image.width))))


def sheet(archive: Path, found: Sequence[dict[str, Any]], columns: int) -> Image.Image:
    """The frames found, side by side, with their places below."""
    table = parquet.read_table(archive / "videos.parquet", columns=["video", "place"]).to_pydict()
    places = dict(zip(table["video"], table["place"], strict=True))
    pictures = [picture(places[one["video"]], one["frame"]) for one in found]
    height = max(image.height for image in pictures) + LINE
    rows = -(-len(found) // columns)
    whole = Image.new("RGB", (columns * WIDTH, rows * height), "white")
    draw = ImageDraw.Draw(whole)
    for number, (one, image) in enumerate(zip(found, pictures, strict=True)):
        x, y = number % columns * WIDTH, number // columns * height
        whole.paste(image, (x, y))
        text = f"{Path(one['video']).name} {one['time']:.2f} s, {one['likeness']:.3f}"
        draw.text((x + 4, y + height - LINE + 2), text, fill="black")
    return whole


def main(given: Sequence[str] | None = None) -> None:
    """Do as asked."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--video", required=True, help="its name in the archive")
    parser.add_argument("--frame", type=int, required=True)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--apart", type=float, default=1.0, help="seconds between frames shown")
    parser.add_argument("--sheet", type=Path, default=Path("found.jpg"))
    options = parser.parse_args(given)
    query = embedding(options.archive, options.video, options.frame)
    found = nearest(options.archive, query, options.count, options.apart)
    for one in found:
        print(f"{one['likeness']:.4f}  {one['video']}  frame {one['frame']}  {one['time']:.2f} s")
    sheet(options.archive, found, options.columns).save(options.sheet)


if __name__ == "__main__":
    main()
