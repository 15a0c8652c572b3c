"""Decoding for archives: PyAV, as `eventful.video` uses it, beside torchcodec.

    python benchmarks/decoding.py [VIDEO ...] [--size 392] [--runs 5] [--out FILE]

Writes benchmarks/results/decoding.json. Both decode every frame on one thread, at its own size and
brought to the model's; the fastest of several runs in turn counts. Frames and their times are
compared. torchcodec (pip install torchcodec) needs a system's FFmpeg; without it only PyAV is
measured.
"""

from __future__ import annotations

import argparse
import importlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor

from eventful.models import demo_clip, still_clip
from eventful.provenance import commit, machine, write_json
from eventful.video import Reader

RESULT = Path(__file__).parent / "results" / "decoding.json"


def pyav(video: Path, size: int | None) -> Iterator[tuple[Tensor, float]]:
    """Frames (1, 3, height, width) in [0, 1] and their times in seconds."""
    with Reader(video, size, keep_aspect=size is not None, patch=14) as reader:
        for frame in reader:
            yield frame.image, float(frame.time)


def torchcodec(video: Path, size: int | None) -> Iterator[tuple[Tensor, float]]:
    """The same; resized by averaging, as OpenCV does it on bytes. Times come from `times_of`."""
    decoders: Any = importlib.import_module("torchcodec.decoders")
    decoder = decoders.VideoDecoder(str(video), num_ffmpeg_threads=1, dimension_order="NHWC")
    with Reader(video, size, keep_aspect=size is not None, patch=14) as reader:
        shape = reader.width, reader.height
    for frame in decoder:
        pixels = frame.numpy()
        if size is not None:
            pixels = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA)
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
        yield planes.to(torch.float32).div_(255), math.nan


def times_of(video: Path) -> list[float]:
    """The times that torchcodec has of all frames."""
    decoders: Any = importlib.import_module("torchcodec.decoders")
    decoder = decoders.VideoDecoder(str(video))
    return decoder.get_frames_in_range(0, len(decoder)).pts_seconds.tolist()


def readers() -> dict[str, Callable[[Path, int | None], Iterator[tuple[Tensor, float]]]]:
    """What there is to measure."""
    found = {"pyav": pyav}
    try:
        importlib.import_module("torchcodec.decoders").VideoDecoder(str(demo_clip()))
    except (ImportError, RuntimeError):  # not installed, or without FFmpeg
        return found
    return found | {"torchcodec": torchcodec}


def measure(video: Path, size: int, runs: int) -> dict[str, Any]:
    """Milliseconds a frame of each, by size; and how their frames differ."""
    kinds = readers()
    found = {name: {"native": math.inf, "fitted": math.inf} for name in kinds}
    for _ in range(runs):
        for name, read in kinds.items():
            for what, side in (("native", None), ("fitted", size)):
                start = time.perf_counter()
                count = sum(1 for _ in read(video, side))
                each = 1e3 * (time.perf_counter() - start) / count
                found[name][what] = min(found[name][what], each)
    row: dict[str, Any] = {"video": video.name, "frames": count, "milliseconds": found}
    if "torchcodec" in kinds:
        pairs = zip(pyav(video, None), torchcodec(video, None), strict=True)
        row["largest_difference"] = max((a - b).abs().max().item() for (a, _), (b, _) in pairs)
        ours, theirs = [t for _, t in pyav(video, None)], times_of(video)
        first = theirs[0]
        row["times_differ_by"] = max(
            abs(a - (b - first)) for a, b in zip(ours, theirs, strict=True)
        )
    return row


def main(given: Sequence[str] | None = None) -> None:
    """Do as asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("videos", nargs="*", type=Path, default=[demo_clip(), still_clip()])
    parser.add_argument("--size", type=int, default=392)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = [measure(video, arguments.size, arguments.runs) for video in arguments.videos]
    head = {"machine": machine(), "commit": commit(), "size": arguments.size}
    write_json({**head, "rows": rows}, arguments.out)


if __name__ == "__main__":
    main()
