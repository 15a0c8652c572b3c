"""Sixteen cameras of a real RTSP server on the clock: results, latency, what is shown, faults.

    EVENTFUL_DATA=... python benchmarks/live_rtsp.py [--minutes 11.5] [--parts ...] [--out FILE]
    python benchmarks/live_rtsp.py --draw

Writes benchmarks/results/live_rtsp.json after each run, and goes on from it: call it again until it
says that nothing is left. It then fills the tables of docs/live.md, which --draw does alone. Wants
a machine on which nothing else runs. Needs Debian's python3-gi, gir1.2-gst-rtsp-server-1.0 and
gstreamer1.0-plugins-good and -bad.

Cameras show the clips of live.py, one frame after the other (or every --step), as H.264 from
GStreamer's RTSP server, at a rate at which two cores cannot keep up with dense frames. They go into
`eventful.live.Watcher` with the demo's ViT-S/14, on squares.

- `skip:1` is dense in turn: the newest frame of each camera, one after the other. `time:F` is one
  budget for all. `skip:K` and `carry:K` have phases, so that dense frames are spread evenly.
- Error of what is shown: at a random moment in each second, for each camera, the relative error of
  the tokens of its latest result from the dense ones of the newest frame that it has taken in,
  computed or dropped; over all patches and over the tenth that moves (as in live.py); means over
  moments, then cameras. Dense tokens are computed before, from the same decoded frames, which are
  known again by a checksum of every eighth row (`unknown`: frames that are not, to be 0).
- A round is as many results in a row as there are cameras; its cost is the time that they took to
  compute, waiting left out. `tick_flat` is of ticks in which each camera had a frame.
- `at_equal_error`: the most results a second of any `time:F`, straight lines drawn between the F
  measured, at which what is shown is no worse than with dense in turn; `at_the_cheapest` says that
  it is at the smallest F, and might be more.
- `error_machine`: how many times faster a machine would have to be that shows no larger an error
  with dense in turn, from the errors of dense tokens by age; for `skip:1` it should be near 1.
- `over_even`: against the best of cameras that skip or carry evenly and keep the machine busy as
  long.
- Reconnects: seconds from when the server of all cameras listens again to the first result of the
  first and of the last camera; `carry:1000`, so that dense frames are for the return and for scene
  cuts only, which are counted apart.
- Faults: cameras send --slower times more rarely, policy --fault-policy, budgets not shared.
  Sizes: a result takes the time measured, and reading a frame its processor time over the cores.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import filling
from live_clips import Clip, Settings, made, staleness
from live_faults import Files, reconnect, turn
from live_rtsp_summary import summary, tables
from live_watch import measure

from eventful.provenance import commit, machine, version, write_json

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "live_rtsp.json", ROOT / "docs" / "live.md"
PARTS = "policies", "reconnect", "faults", "sizing"
POLICIES = (
    *("skip:1", "time:0.3", "time:0.2", "time:0.15", "time:0.1", "time:0.05"),
    *("skip:4", "skip:8", "carry:4", "carry:8"),
)
SIZED = "skip:1", "time:0.2", "time:0.1"
AGES = 60  # frames, of dense tokens that get old

Run = tuple[str, dict[str, Any], Callable[[], Any]]  # part, what tells it apart, what does it


def plan(clips: Sequence[Clip], arguments: Any) -> Iterator[Run]:
    """All runs, those of a part in turn."""
    times = {n: getattr(arguments, n) for n in ("settle", "seconds")}
    for number in range(arguments.turns):
        for policy in arguments.policies[:: -1 if number % 2 else 1]:
            call = {"size": arguments.size, **times, "apart": arguments.apart, "seed": number}
            yield (
                "policies",
                {"policy": policy, "turn": number},
                lambda p=policy, c=call: measure(clips, p, **c),
            )
    files: list[Files] = []

    def sent() -> Files:
        if not files:
            lasts = arguments.length * arguments.slower / 2
            files.append(Files(clips, arguments.rate, arguments.slower, lasts))
        return files[0]

    small = {"size": arguments.size, "settle": arguments.settle}
    for number in range(arguments.reconnects):
        yield (
            "reconnect",
            {"turn": number},
            lambda: reconnect(clips, away=arguments.away, **small),
        )
    for number in range(arguments.fault_turns):
        yield (
            "faults",
            {"turn": number},
            lambda: turn(sent(), arguments.fault_policy, seconds=arguments.seconds, **small),
        )
    for size in arguments.sizes:
        for runtime in arguments.runtimes:
            for policy in arguments.sized:
                same = size == arguments.size
                call = {"size": size, "runtime": runtime, **times}
                call["apart"] = arguments.apart if same else 0.0
                call["seconds"] = arguments.seconds / 2
                yield (
                    "sizing",
                    {"size": size, "runtime": runtime, "policy": policy},
                    lambda p=policy, c=call: measure(clips, p, **c),
                )


def run(arguments: Any, out: Path) -> dict[str, Any]:
    """Do the runs that are missing, as far as the time goes; the file is written after each."""
    begin = time.monotonic()
    settings = Settings(
        **{
            name: getattr(arguments, name) for name in ("cameras", "frames", "size", "rate", "step")
        },
        seconds=arguments.length,
    )
    given = {**asdict(settings), "slower": arguments.slower}
    found = json.loads(out.read_text()) if out.exists() and not arguments.again else {}
    if found and found["settings"] != given:
        sys.exit(f"{out} is of other settings, {found['settings']}; --again begins anew")
    found |= {"machine": machine(), "commit": commit(), "settings": given}
    found["cores"] = len(os.sched_getaffinity(0))
    name = "-".join(str(value) for value in asdict(settings).values())
    folder = arguments.folder / f"eventful-live-{name}"
    clips = made(Path(os.environ["EVENTFUL_DATA"]), folder, settings)
    if "staleness" not in found:
        found["staleness"] = staleness(clips, AGES)
    longest: dict[str, float] = {}
    left = 0
    for part, key, do in plan(clips, arguments):
        done = found.setdefault(part, [])
        if part not in arguments.parts or any(key.items() <= row.items() for row in done):
            continue
        spent = time.monotonic() - begin
        if spent + longest.get(part, 0.0) > 60 * arguments.minutes:
            left += 1
            continue
        start = time.monotonic()
        done.append({**key, "commit": commit(), **do()})
        longest[part] = max(longest.get(part, 0.0), time.monotonic() - start)
        found["summary"] = summary(found)
        write_json(found, out)
        sys.stdout.write(f"{part} {key}: {longest[part]:.0f} s\n")
        sys.stdout.flush()
    sys.stdout.write(f"{left} runs are left; call it again\n" if left else "nothing is left\n")
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Do as asked."""
    parser = filling.parser(__doc__)
    defaults = Settings()
    for name in ("cameras", "frames", "size", "rate", "step"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    parser.add_argument("--length", type=int, default=defaults.seconds, help="of files, in seconds")
    parser.add_argument(
        "--minutes", type=float, default=11.5, help="begin no run that would end later"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    parser.add_argument("--turns", type=int, default=2, help="of all policies")
    parser.add_argument("--seconds", type=float, default=30.0, help="measured, of a run")
    parser.add_argument("--settle", type=float, default=8.0, help="seconds before")
    parser.add_argument("--apart", type=float, default=1.0, help="seconds between looks, mean")
    parser.add_argument("--slower", type=int, default=4, help="cameras for faults, so many times")
    parser.add_argument("--fault-policy", default="error:0.2")
    parser.add_argument("--fault-turns", type=int, default=3)
    parser.add_argument("--away", type=float, default=3.0, help="seconds without a server")
    parser.add_argument("--reconnects", type=int, default=5)
    runtimes = ("torch", "openvino") if version("openvino") else ("torch",)
    parser.add_argument("--runtimes", nargs="+", default=runtimes)
    parser.add_argument("--sizes", type=int, nargs="+", default=(224, 392))
    parser.add_argument("--sized", nargs="+", default=SIZED, help="policies of the table of sizes")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="of clips")
    parser.add_argument("--again", action="store_true", help="begin anew")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(given)
    if arguments.draw:
        found = json.loads((arguments.out or RESULT).read_text())
    elif "EVENTFUL_DATA" not in os.environ:
        sys.exit("EVENTFUL_DATA is not set: the folder of davis2016/, cdnet2014/ and vtest/")
    else:
        found = run(arguments, arguments.out or RESULT)
    if arguments.out is None and "summary" in found:
        known = {name: [["not measured yet"]] for name in ("policies", "faults", "sizing")}
        filling.fill(PAGE, "live-rtsp", known | tables(found))


if __name__ == "__main__":
    main()
