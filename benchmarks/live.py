"""Sixteen cameras on one budget beside cameras that skip or carry evenly, and a soak.

    EVENTFUL_DATA=... python benchmarks/live.py [--size 224] [--ticks 120] [--out FILE]
    python benchmarks/live.py --soak 100000 [--out FILE]

Writes benchmarks/results/live.json, or what --soak found to live_soak.json.

Eight sequences of DAVIS, and of the videos of two still cameras (CDnet's highway, vtest) the four
stretches each on which least moves: those are nearly still. Each goes forwards and backwards
without end; the demo's ViT-S/14 on squares. On each tick a frame of every
camera goes through its own stream. Errors are relative ones of the final-normed patch tokens, from
the dense output of that frame, over all patches and over the tenth whose dense tokens changed most
over five frames; means over cameras.

- `shared`: `time:F`, one budget for all. `alone`: the same policy, a budget each. Either way all
  cameras' frames that are not dense share a pass.
- `skip:K`, `carry:K`: dense every K frames, cameras one after the other. Their times are from the
  costs of dense, carried and held frames, which are measured once for all; their errors are
  interpolated over the logarithm of time. The better of the two counts.
- A tick's cost: p95 over median over ticks after the first quarter, by those costs.
- `rate_over_dense`: the machine runs dense only, camera after camera, and what is shown of one is
  held until its turn. In the time of a dense frame that gives one result; `shared` gives 1 / share.
  `dense_in_turn_every` says how many frames apart turns may be for the same error.

The soak sends MPEG-TS to sixteen cameras that stall, end, change their size, send garbage or want a
password at random, and looks at memory, threads, open files, and whether every frame is accounted
for.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor

import eventful
from eventful.models import saliency_vit
from eventful.policies import Carry, FramePolicy
from eventful.provenance import commit, machine, write_json
from eventful.stream.costs import Costs
from eventful.stream.together import Together
from eventful.video import Reader

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DAVIS = "davis2016/JPEGImages/480p"
MOVING, AGO = 0.1, 5  # share of the patches, and frames over which they change
HELD = 2, 3, 4, 5, 6, 8, 10, 14, 20, 30
CARRIED = 3, 5, 8, 14
SHARES = 0.15, 0.2, 0.3


class Clip:
    """Frames of a camera, forwards and backwards without end, and their dense tokens.

    Args:
        frames: (1, 3, size, size) each.
        dense: (patches, dim) each.
    """

    def __init__(self, frames: list[Tensor], dense: list[Tensor]) -> None:
        self._frames, self._dense = frames, dense
        self._length = 2 * len(frames) - 2

    def _at(self, tick: int) -> int:
        place = tick % self._length
        return min(place, self._length - place)

    def frame(self, tick: int) -> Tensor:
        """The frame of a tick."""
        return self._frames[self._at(tick)]

    def tokens(self, tick: int) -> Tensor:
        """The dense tokens of a tick's frame."""
        return self._dense[self._at(tick)]

    def errors(self, tick: int, shown: Tensor) -> tuple[float, float]:
        """Relative error of what is shown, over all patches and over those that move."""
        return errors(self.tokens(tick), self.tokens(max(0, tick - AGO)), shown)


def errors(exact: Tensor, past: Tensor, shown: Tensor) -> tuple[float, float]:
    """Relative error of what is shown, over all patches and over those that move.

    Args:
        exact: The dense tokens (patches, dim).
        past: Those of `AGO` frames before.
        shown: What is shown in their place.
    """
    change = (exact - past).square().sum(-1)
    moves = change.topk(max(1, int(MOVING * len(change)))).indices
    off = shown - exact
    return tuple((off[p].norm() / exact[p].norm()).item() for p in (slice(None), moves))  # type: ignore[return-value]


def clips(root: Path, network: Any, size: int, frames: int, cameras: int) -> list[Clip]:
    """The cameras: half of them move, half are nearly still."""
    return [
        _clip(network, path, size, first, frames) for path, first in places(root, frames, cameras)
    ]


def places(root: Path, frames: int, cameras: int) -> list[tuple[Path, int]]:
    """Videos of the cameras, those that move first, and the frame at which each begins."""
    still = cameras // 2
    davis = sorted((root / DAVIS).iterdir())
    found = [(davis[n % len(davis)], 0) for n in range(cameras - still)]
    for number, video in enumerate(("cdnet2014/highway/input", "vtest/vtest.avi")):
        count = (still + 1 - number) // 2
        found += [(root / video, first) for first in quiet(root / video, frames, count)]
    return found


def quiet(path: Path, frames: int, count: int) -> list[int]:
    """Where the stretches of a video begin on which least moves, none over another."""
    small = [frame.pixels.astype(np.int16) for frame in Reader(path, 56)]
    moves = [np.abs(b - a).mean() for a, b in zip(small, small[AGO:], strict=False)]
    sums = np.convolve(moves, np.ones(frames), "valid") if len(moves) > frames else np.zeros(1)
    found: list[int] = []
    for first in sums.argsort():
        if len(found) < count and all(abs(first - other) >= frames for other in found):
            found.append(int(first))
    return [*found, *[0] * (count - len(found))]


def _clip(network: Any, path: Path, size: int, first: int, count: int) -> Clip:
    frames = [frame.image for frame in islice(Reader(path, size), first, first + count)]
    mean, std = (torch.tensor(network.pretrained_cfg[k]).view(1, -1, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        dense = [network.forward_features((x - mean) / std)[0, 1:] for x in frames]
    return Clip(frames, dense)


def measured(model: Any, frame: Tensor) -> Costs:
    """What frames cost on this machine, in milliseconds: medians of five measurements."""
    found = []
    for _ in range(5):
        stream = eventful.Stream(
            model, policy=eventful.Auto(time=0.9), method="forward_features", normalize=True
        )
        stream.ask(Together(), frame)
        assert stream.costs is not None
        found.append(stream.costs)
    names = "dense", "carried", "held", "partial", "token"
    return Costs(**{name: median(getattr(costs, name) for costs in found) for name in names})


def watch(
    model: Any,
    cameras: list[Clip],
    policies: Sequence[FramePolicy],
    known: Costs,
    shared: bool,
    ticks: int,
) -> dict[str, Any]:
    """Run all cameras for so many ticks."""
    settings = {"method": "forward_features", "normalize": True, "check": False, "costs": known}
    budget = eventful.Budget() if shared else None
    streams = [
        eventful.Stream(model, policy=policy, budget=budget, **settings) for policy in policies
    ]
    passes, costs, errors, seconds = Together(), [], [], 0.0
    for tick in range(ticks):
        start = time.perf_counter()
        pairs = zip(streams, cameras, strict=True)
        tickets = [stream.ask(passes, camera.frame(tick)) for stream, camera in pairs]
        passes.run()
        seconds += time.perf_counter() - start
        costs.append(sum(_cost(stream, known) for stream in streams))
        shown = zip(tickets, cameras, strict=True)
        errors.append([camera.errors(tick, ticket.output[0, 1:]) for ticket, camera in shown])
    late = np.array(costs[ticks // 4 :])
    found = np.array(errors)[ticks // 4 :]
    half = len(cameras) // 2
    return {
        "error": float(found[..., 0].mean()),
        "moving": float(found[..., 1].mean()),
        "moving_of_moving_cameras": float(found[:, : len(cameras) - half, 1].mean()),
        "share": float(late.mean()) / len(cameras),
        "flat": float(np.percentile(late, 95) / np.median(late)),
        "seconds": seconds,
        "dense": [stream.stats.kinds["dense"] for stream in streams],
    }


def _cost(stream: eventful.Stream, costs: Costs) -> float:
    """What a stream's last frame cost over a dense one, by the costs that are known."""
    (row,) = stream.stats.rows
    if row.kind in ("dense", "held"):
        return 1.0 if row.kind == "dense" else costs.held / costs.dense
    return costs.share(max(0, row.tokens - 1) if row.kind == "partial" else 0)


def carried(model: Any, cameras: list[Clip], ticks: int, costs: Costs) -> list[dict[str, Any]]:
    """Cameras that carry evenly, for each distance of dense frames."""
    found = []
    for every in CARRIED:
        policies = [Carry(every, number % every) for number in range(len(cameras))]
        row = watch(model, cameras, policies, costs, False, ticks)
        share = (1 + (every - 1) * costs.carried / costs.dense) / every
        found.append({"every": every, "share": share, **{n: row[n] for n in ("error", "moving")}})
    return found


def held(cameras: list[Clip], ticks: int, costs: Costs) -> list[dict[str, Any]]:
    """Cameras that skip evenly: the dense tokens of the last dense frame against the present's."""
    found = []
    for every in HELD:
        errors = [
            camera.errors(tick, camera.tokens(max(0, tick - (tick + number) % every)))
            for number, camera in enumerate(cameras)
            for tick in range(ticks // 4, ticks)
        ]
        share = (1 + (every - 1) * costs.held / costs.dense) / every
        means = (fmean(each) for each in zip(*errors, strict=True))
        found.append(
            {"every": every, "share": share, **dict(zip(("error", "moving"), means, strict=True))}
        )
    return found


def at(rows: list[dict[str, Any]], share: float, name: str) -> float:
    """An error at a share of the time, interpolated over its logarithm."""
    rows = sorted(rows, key=lambda row: row["share"])
    x, y = ([row[key] for row in rows] for key in ("share", name))
    return float(np.interp(np.log(share), np.log(x), y))


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """All of it but the soak."""
    root = Path(os.environ["EVENTFUL_DATA"])
    network = saliency_vit((arguments.size, arguments.size)).backbone
    cameras = clips(root, network, arguments.size, arguments.frames, arguments.cameras)
    eventful.convert(network, eventful.Auto(share=0.2))
    costs = measured(network, cameras[0].frame(0))
    rows: list[dict[str, Any]] = []
    for share in arguments.shares:
        policies = [eventful.Auto(time=share)] * len(cameras)
        for shared in (True, False):
            row = watch(network, cameras, policies, costs, shared, arguments.ticks)
            rows.append({"policy": f"time:{share:g}", "shared": shared, **row})
    skip = held(cameras, arguments.ticks, costs)
    carry = carried(network, cameras, arguments.ticks, costs)
    for row in rows:
        for name in ("error", "moving"):
            best = min(at(some, row["share"], name) for some in (skip, carry))
            row[f"{name}_over_even"] = row[name] / best
        row["rate_over_dense"] = 1 / row["share"]
        row["dense_in_turn_every"] = _equal(skip, row["error"])
    return {
        "machine": machine(),
        "commit": commit(),
        "size": arguments.size,
        "cameras": len(cameras),
        "ticks": arguments.ticks,
        "costs": costs.to_dict(),
        "rows": rows,
        "skip": skip,
        "carry": carry,
    }


def _equal(skip: list[dict[str, Any]], error: float) -> float:
    """How many frames apart dense frames are that are held between, at the same error."""
    return float(
        np.interp(error, [0.0, *(r["error"] for r in skip)], [1, *(r["every"] for r in skip)])
    )


def soak(arguments: argparse.Namespace) -> dict[str, Any]:
    """Sixteen cameras with random faults, until so many frames have come."""
    import psutil  # noqa: PLC0415

    sys.path.insert(0, str(ROOT))
    from eventful.live import Limits, Watcher  # noqa: PLC0415
    from tests.archive.tiny import network  # noqa: PLC0415
    from tests.live.senders import Sender  # noqa: PLC0415

    chance, process = random.Random(0), psutil.Process()
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    limits = Limits(opening=2.0, reading=1.0, frame=2.0, wait=0.1, longest=1.0, refused=2.0)
    watcher = Watcher(network, "auto:0.3", size=84, scene_cuts=False, limits=limits)
    senders = [Sender(rate=25) for _ in range(arguments.cameras)]
    for number, sender in enumerate(senders):
        watcher.add(str(number), sender.url)
    lanes = list(watcher._lanes.values())
    thread = threading.Thread(target=watcher.run, kwargs={"forever": True})
    thread.start()
    start, memory = time.monotonic(), []
    modes = ("send",) * 12 + ("stall", "garbage", "end", "dribble", "password")
    while sum(lane.camera.received for lane in lanes) < arguments.soak:
        for sender in senders:
            if chance.random() < 0.1:
                sender.mode = chance.choice(modes)
                sender.size = chance.choice([(96, 64), (96, 64), (64, 96)])
        time.sleep(1.0)
        memory.append((time.monotonic() - start, process.memory_info().rss))
    watcher.stop()
    thread.join()
    for sender in senders:
        sender.kill()
    gc.collect()
    received = sum(lane.camera.received for lane in lanes)
    status = watcher.status().cameras
    ends = {
        name: sum(getattr(s, name) for s in status) for name in ("processed", "dropped", "failed")
    }
    late = [rss for seconds, rss in memory if seconds > arguments.settle] or [memory[-1][1]]
    return {
        "machine": machine(),
        "commit": commit(),
        "seconds": memory[-1][0],
        "frames": received,
        **ends,
        "unaccounted": received - sum(ends.values()),
        "reconnects": sum(one.reconnects for one in status),
        "memory_growth": max(late) / late[0] - 1,
        "threads_left": max(0, threading.active_count() - threads),
        "files_left": max(0, len(os.listdir("/proc/self/fd")) - files),
        "mean_memory_mb": fmean(late) / 1e6,
    }


def main(given: Sequence[str] | None = None) -> None:
    """Do as asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--cameras", type=int, default=16)
    parser.add_argument("--frames", type=int, default=60, help="of a clip, at most")
    parser.add_argument("--ticks", type=int, default=120)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--soak", type=int, metavar="FRAMES", help="soak instead, for so many")
    parser.add_argument("--settle", type=float, default=120, help="seconds before memory counts")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(given)
    if arguments.soak:
        write_json(soak(arguments), arguments.out or RESULTS / "live_soak.json")
        return
    if "EVENTFUL_DATA" not in os.environ:
        sys.exit("EVENTFUL_DATA is not set: the folder of davis2016/, cdnet2014/ and vtest/")
    result = compare(arguments)
    write_json(result, arguments.out or RESULTS / "live.json")
    for row in result["rows"]:
        kept = ("policy", "shared", "share", "error", "moving", "moving_over_even", "flat")
        sys.stdout.write(", ".join(f"{name} {row[name]}" for name in kept) + "\n")


if __name__ == "__main__":
    main()
