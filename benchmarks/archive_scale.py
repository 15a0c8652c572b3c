"""A million hours of video: the arithmetic, and a simulation of stragglers and failures.

    python benchmarks/archive_scale.py [--costs FILE] [--draw] [--out FILE]

Writes benchmarks/results/archive_scale.json; with --draw it only fills the tables of
docs/archive-scale.md again. Costs of a frame come from the benchmark's result (one worker, the
policy named); what else a cluster has is assumed here and can be changed by options.

The simulation hands segments to workers one by one, as the engines do. A worker has a speed of its
own, and may fail at any moment; its segment then starts again with whoever is free next. What it
gives is the time until the last segment is done over the time that work alone would take.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from filling import fill, parser

from eventful.provenance import commit, write_json

FOLDER = Path(__file__).parent / "results"
COSTS, RESULT = FOLDER / "archive.json", FOLDER / "archive_scale.json"
PAGE = Path(__file__).parents[1] / "docs" / "archive-scale.md"
HOURS, RATE = 1_000_000, 25  # of video, and frames a second
SEGMENTS = 25, 125, 375, 1500, 7500, 37500  # frames
NODES = 1, 10, 100, 1000
CORES = 32  # of a node; a worker a core
GBITS = 10  # of a node's network
VIDEO_MBITS = 4  # of a second of video


@dataclass(frozen=True)
class Cluster:
    """Assumptions about machines.

    Attributes:
        workers: How many.
        spread: Standard deviation of the logarithm of a worker's speed.
        slow: Share of workers that are stragglers.
        slowness: How many times slower these are.
        failures: Mean seconds between failures of a worker.
        restart: Seconds until a failed worker is back, model loaded.
    """

    workers: int
    spread: float = 0.1
    slow: float = 0.02
    slowness: float = 4.0
    failures: float = 24 * 3600.0
    restart: float = 30.0


def simulate(
    frames: int, segment: int, cost: float, begin: float, cluster: Cluster, seed: int
) -> float:
    """Time until all frames are done over the time that their work takes at full speed.

    Args:
        frames: Of all videos.
        segment: Frames of a segment.
        cost: Seconds of a frame.
        begin: Seconds that a segment takes beside its frames.
        cluster: The machines.
        seed: Of chance.

    Example:
        >>> even = Cluster(1, spread=0, slow=0, failures=1e30)
        >>> simulate(1000, 100, cost=0.5, begin=0.0, cluster=even, seed=0)
        1.0
    """
    chance = random.Random(seed)
    speeds = [
        chance.lognormvariate(0, cluster.spread)
        / (cluster.slowness if chance.random() < cluster.slow else 1.0)
        for _ in range(cluster.workers)
    ]
    free = [(0.0, worker) for worker in range(cluster.workers)]
    fails = [chance.expovariate(1 / cluster.failures) for _ in speeds]
    left, end, again = -(-frames // segment), 0.0, []
    running: list[tuple[float, int, int]] = []  # when a segment ends or fails, worker, 1 if done
    heapq.heapify(free)
    while left or again or running:
        while (left or again) and free and (not running or free[0][0] <= running[0][0]):
            now, worker = heapq.heappop(free)
            if again:
                now = max(now, again.pop())
            else:
                left -= 1
            done = now + (begin + segment * cost) / speeds[worker]
            while fails[worker] < now:
                fails[worker] = now + chance.expovariate(1 / cluster.failures)
            whole = done <= fails[worker]
            heapq.heappush(running, (done if whole else fails[worker], worker, int(whole)))
        now, worker, whole = heapq.heappop(running)
        if whole:
            end = max(end, now)
            heapq.heappush(free, (now, worker))
        else:
            again.append(now)
            heapq.heappush(free, (now + cluster.restart, worker))
    return end / (frames * cost / cluster.workers)


def costs(result: dict[str, Any], policy: str) -> dict[str, float]:
    """Seconds of a frame by what they go into, of one worker; and bytes of a row."""
    own = (r for r in result["rates"] if (r["policy"], r["workers"]) == (policy, 1))
    one = max(own, key=lambda r: r["lookahead"])
    return {
        **{name: value / 1e3 for name, value in one["milliseconds"].items()},
        "bytes": one["bytes_a_row"],
    }


def arithmetic(cost: dict[str, float], segment: int, hours: float) -> list[dict[str, float]]:
    """What so many hours take on each number of nodes, and what binds."""
    frames = hours * 3600 * RATE
    seconds = sum(value for name, value in cost.items() if name != "bytes")
    rows = []
    for nodes in NODES:
        rate = nodes * CORES / seconds
        stream = rate / RATE * VIDEO_MBITS / 1e3 / nodes  # Gbit a second into a node
        rows.append(
            {
                "nodes": nodes,
                "frames_per_second": rate,
                "days": frames / rate / 86400,
                "gbits_into_a_node": stream,
                "network_share": stream / GBITS,
                "segments_per_second": rate / segment,
                "megabytes_per_second_out": rate * cost["bytes"] / 1e6,
                "terabytes_out": frames * cost["bytes"] / 1e12,
            }
        )
    return rows


def tables(result: dict[str, Any]) -> dict[str, list[list[str]]]:
    """The tables of the page."""
    shares = [["policy", "ms a frame", "decoding", "model", "heads", "writing", "bytes a row"]]
    for policy, one in result["costs"].items():
        parts = {name: value for name, value in one.items() if name != "bytes"}
        total = sum(parts.values())
        line = [f"`{policy}`", f"{1e3 * total:.1f}"]
        line += [
            f"{100 * parts[n] / total:.0f} %" for n in ("decoding", "model", "heads", "writing")
        ]
        shares.append([*line, f"{one['bytes']:.0f}"])
    sizes = [
        ["policy", "nodes", "frames/s", "days", "network of a node", "segments/s", "TB of rows"]
    ]
    for policy, rows in result["arithmetic"].items():
        for row in rows:
            sizes.append(
                [
                    f"`{policy}`",
                    f"{row['nodes']}",
                    f"{row['frames_per_second']:,.0f}",
                    f"{row['days']:,.0f}",
                    f"{100 * row['network_share']:.1f} %",
                    f"{row['segments_per_second']:.2f}",
                    f"{row['terabytes_out']:.0f}",
                ]
            )
    head = ["segment, frames", *(f"{name}" for name in result["simulation"])]
    lengths = [head]
    for segment in SEGMENTS:
        cells = [f"{one[str(segment)]:.2f}" for one in result["simulation"].values()]
        lengths.append([f"{segment}", *cells])
    return {"costs": shares, "sizes": sizes, "lengths": lengths}


def main(given: Sequence[str] | None = None) -> None:
    """Do as asked."""
    form: argparse.ArgumentParser = parser(__doc__)
    form.add_argument("--costs", type=Path, default=COSTS)
    form.add_argument("--policies", nargs="+", default=["skip:1", "auto:0.2"])
    form.add_argument("--hours", type=float, default=HOURS)
    form.add_argument("--workers", type=int, default=CORES * 10, help="of the simulation")
    form.add_argument("--minutes", type=float, default=30, help="of work a worker, simulated")
    form.add_argument("--begin", type=float, default=0.3, help="seconds a segment takes beside")
    form.add_argument("--repeats", type=int, default=5)
    form.add_argument("--out", type=Path, default=RESULT)
    arguments = form.parse_args(given)
    if not arguments.draw:
        measured = json.loads(arguments.costs.read_text())
        cost = {policy: costs(measured, policy) for policy in arguments.policies}
        last = cost[arguments.policies[-1]]
        seconds = sum(value for name, value in last.items() if name != "bytes")
        frames = int(arguments.workers * arguments.minutes * 60 / seconds)
        n = arguments.workers
        cases = {
            "even, no failures": Cluster(n, spread=0, slow=0, failures=1e30),
            "2 % are 4x slower": Cluster(n, failures=1e30),
            "and fail daily": Cluster(n),
            "and fail hourly": Cluster(n, failures=3600.0),
        }
        result = {
            "commit": commit(),
            "measured": measured["machine"],
            "assumed": {
                "hours": arguments.hours,
                "rate": RATE,
                "cores": CORES,
                "gbits": GBITS,
                "video_mbits": VIDEO_MBITS,
                "workers": n,
                "minutes": arguments.minutes,
                "begin": arguments.begin,
            },
            "costs": cost,
            "arithmetic": {p: arithmetic(one, 1500, arguments.hours) for p, one in cost.items()},
            "simulation": {
                name: {
                    str(segment): mean(
                        simulate(frames, segment, seconds, arguments.begin, cluster, seed)
                        for seed in range(arguments.repeats)
                    )
                    for segment in SEGMENTS
                }
                for name, cluster in cases.items()
            },
        }
        write_json(result, arguments.out)
    if arguments.out == RESULT:
        fill(PAGE, "archive", tables(json.loads(RESULT.read_text())))


if __name__ == "__main__":
    main()
