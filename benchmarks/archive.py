"""Archives: frames a second by policy and lookahead, where time goes, and a worker's memory.

    python benchmarks/archive.py [VIDEO ...] [--size 392] [--workers 1 2] [--out FILE]

Writes benchmarks/results/archive.json. Every setting archives the same videos into an empty folder
(by default the two clips of the demo): every frame in full ("skip:1"), and each policy without and
with lookahead, by each number of workers with a thread each. The rate is rows over wall time,
starting workers and looking videos through left out. Shares of time are those of the workers;
motion is measured in one process, as the time of looks over that of frames. Memory is that of a
worker over many frames.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import eventful
from eventful import archive
from eventful.archive.settings import LOOKAHEAD
from eventful.archive.work import PARTS
from eventful.models import demo_clip, still_clip
from eventful.motion import Picture, View
from eventful.provenance import commit, machine, write_json
from eventful.video import Reader

RESULT = Path(__file__).parent / "results" / "archive.json"
DENSE = "skip:1"
SAMPLES = 20  # of memory


def rate(
    videos: list[Path], policy: str, lookahead: int, workers: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Archive the videos once; from when workers have started and looked videos through."""
    begun: list[float] = []

    def progress(now: archive.Progress) -> None:
        if now.doing == "computing" and not begun:
            begun.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        given = options | {"policy": policy, "workers": workers, "lookahead": lookahead}
        report = archive.run(
            videos, folder, archive.demo_network, model="demo", progress=progress, **given
        )
        wall = time.perf_counter() - begun[0]
        size = sum(path.stat().st_size for path in Path(folder, "frames").rglob("*.parquet"))
    spent = sum(report.seconds[part] for part in PARTS)
    return {
        "policy": policy,
        "lookahead": lookahead,
        "workers": workers,
        "rows": report.rows,
        "seconds": wall,
        "frames_per_second": report.rows / wall,
        "operations_ratio": report.dense_operations / report.operations,
        "kinds": dict(report.kinds),
        "milliseconds": {part: 1e3 * report.seconds[part] / report.rows for part in PARTS},
        "shares": {part: report.seconds[part] / spent for part in PARTS},
        "bytes_a_row": size / report.rows,
    }


def motion(video: Path, policy: str, size: int, frames: int = 50) -> dict[str, float]:
    """Milliseconds of finding motion and what it misses, and of whole frames, in this process."""
    looked = 0.0
    look = View.look

    def timed(view: View, picture: Picture) -> Any:
        nonlocal looked
        start = time.perf_counter()
        try:
            return look(view, picture)
        finally:
            looked += time.perf_counter() - start

    with Reader(video, size, keep_aspect=True) as reader:
        network = archive.demo_network(reader.height, reader.width)
        eventful.convert(network.model, eventful.parse(policy))
        stream = eventful.Stream(network.model, normalize=True, method=network.method)
        images = [frame.image for frame in itertools.islice(reader, frames)]
    stream(images[0])
    View.look = timed  # type: ignore[method-assign]
    try:
        start = time.perf_counter()
        for image in images[1:]:
            stream(image)
        whole = time.perf_counter() - start
    finally:
        View.look = look  # type: ignore[method-assign]
    count = len(images) - 1
    return {"motion_ms": 1e3 * looked / count, "frame_ms": 1e3 * whole / count}


def memory(video: Path, policy: str, options: dict[str, Any], frames: int) -> list[dict[str, int]]:
    """Resident bytes of a worker, here in this process, over so many frames of a video."""
    from eventful.archive.footage import Looked  # noqa: PLC0415
    from eventful.archive.store import Store  # noqa: PLC0415
    from eventful.archive.work import Job, Worker  # noqa: PLC0415

    settings = archive.Settings(archive.demo_network, "demo", policy=policy, **options)
    found, done = [], 0
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder, "out"), settings.identity()) as store,
        Worker(settings) as worker,
    ):
        looked = worker.look(archive.Source("video", str(video)))
        assert isinstance(looked, Looked)
        footage = looked.footage
        prepared = worker.prepare((footage.height, footage.width))
        spans = list(enumerate(footage.spans(settings.segment)))
        every = max(1, frames // SAMPLES)
        for number, span in itertools.cycle(spans):
            out, problem = store.segment("video", number), store.problem("video", number)
            done += worker.compute(Job(footage, number, span, prepared, out, problem)).rows
            if not found or done - found[-1]["frames"] >= every:
                found.append({"frames": done, "bytes": resident_bytes()})
            if done >= frames:
                return found
    raise AssertionError


def resident_bytes() -> int:
    """Memory of this process, from the kernel's own account."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def efficiency(rates: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each policy's gain in rate over dense, as a share of its gain in operations."""
    dense = {one["workers"]: one["frames_per_second"] for one in rates if one["policy"] == DENSE}
    return [
        {
            "policy": one["policy"],
            "lookahead": one["lookahead"],
            "workers": one["workers"],
            "faster": one["frames_per_second"] / dense[one["workers"]],
            "of_operations_ratio": one["frames_per_second"]
            / dense[one["workers"]]
            / one["operations_ratio"],
        }
        for one in rates
        if one["policy"] != DENSE
    ]


def main(given: Sequence[str] | None = None) -> None:
    """Do as asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("videos", nargs="*", type=Path, default=[demo_clip(), still_clip()])
    parser.add_argument("--size", type=int, default=392)
    parser.add_argument("--segment", type=int, default=125)
    parser.add_argument("--policies", nargs="+", default=["auto:0.2", "error:0.15", "carry:5"])
    parser.add_argument("--lookahead", nargs="+", type=int, default=[0, LOOKAHEAD])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--frames", type=int, default=10000, help="over which memory is watched")
    parser.add_argument("--memory-size", type=int, default=140)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args(given)
    options = {"size": arguments.size, "segment": arguments.segment}
    rates = [
        rate(arguments.videos, policy, lookahead, workers, options)
        for workers in arguments.workers
        for policy in (DENSE, *arguments.policies)
        for lookahead in ((0,) if policy == DENSE else arguments.lookahead)
    ]
    torch.set_num_threads(1)
    first, policy = arguments.videos[0], arguments.policies[0]
    watched = options | {"size": arguments.memory_size}
    result = {
        "machine": machine(),
        "commit": commit(),
        "videos": [path.name for path in arguments.videos],
        **options,
        "rates": rates,
        "efficiency": efficiency(rates),
        "motion": {one: motion(first, one, arguments.size) for one in arguments.policies},
        "memory": {
            "policy": policy,
            "size": arguments.memory_size,
            "samples": memory(first, policy, watched, arguments.frames),
        },
    }
    write_json(result, arguments.out)


if __name__ == "__main__":
    main()
