"""What `eventful advise` foretells, beside what then happens.

    EVENTFUL_DATA=... python benchmarks/advise.py WORK [--sizes 224 392] [--clips ...]
    python benchmarks/advise.py WORK --draw

WORK keeps what is done, so that the same command goes on where it was ended; without its folder
`rows`, everything is foretold again and held against what had happened. Writes
benchmarks/results/advise.json and the tables of docs/advise.md.

For each clip and size (long side in pixels), the demo's ViT-S/14:

- *Itself*: it is foretold from the clip, of which the model runs on at most a third of the frames,
  and the clip is then run: `error:0.1`, `error:0.15` and `error:0.2`.
- *Rest*: it is foretold from the first half alone, and the second half is run.

Costs are means over the frames, the first included, over those of a dense frame: operations, and
time by costs of a dense, a carried, a partial and a held frame that are measured once for each
shape of frame. What skipping frames costs at an error is foretold from the same samples; what it
does cost is read off the dense outputs of all frames.

The five clips of `CHOSEN_ON` were looked at while the method was made, and `SPREAD`, how far
predictions are off where windows agree, comes from them. The others are the ones reported on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import equal_time
import filling
import torch
from torch import Tensor

import eventful
from eventful.advice import ERRORS, Expectation, Price, Range, Skipping, advise
from eventful.advice.skipping import skipping
from eventful.advice.verdict import verdict
from eventful.models import saliency_vit, still_clip
from eventful.policies import Auto
from eventful.provenance import commit, machine, write_json
from eventful.stream.costs import Costs
from eventful.video import Reader

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "advise.json"
PAGE = ROOT / "docs" / "advise.md"
CHOSEN_ON = "blackswan", "bmx-trees", "camel", "campus", "cows"
MORE = "bunny", "campus", "demo", "highway", "vtest"  # beside those of DAVIS
RATES = {"vtest": 10.0}  # frames a second; others have 25
MOST = 400  # frames of a clip
LONGEST = 20  # frames that an output is held for, at most
WITHIN = 0.3  # of what happens
CLOSE = 0.1  # of the least time, that what is advised may take more
PARTS = "itself", "rest"


@dataclass
class Runner:
    """A model as `advise` runs it, with costs that are given."""

    stream: eventful.Stream
    costs: Costs

    def frame(self, prepared: Tensor) -> Tensor:
        """What the stream takes."""
        return prepared

    def eventful(self, prepared: Tensor) -> Any:
        """Run the stream."""
        return self.stream(prepared)

    def dense(self, prepared: Tensor) -> tuple[Any, float]:
        """Time of the model without it, as given."""
        return None, self.costs.dense


def frames_of(clip: str, root: Path, size: int) -> Tensor:
    """The frames of a clip, (frames, 3, height, width) in [0, 1]."""
    if clip == "bunny":
        frames = Reader(still_clip(), size=size, keep_aspect=True)
        return torch.cat([frame.image for frame in itertools.islice(frames, MOST)])
    return equal_time.frames_of(clip, root, size, MOST)


def happens(
    stream_of: Callable[[Auto], eventful.Stream], frames: Tensor, error: float, costs: Costs
) -> dict[str, Any]:
    """Run a policy: shares of operations and of time, and what frames were."""
    stream, time = stream_of(Auto(max_error=error)), 0.0
    kinds = {"dense": costs.dense, "held": costs.held, "carried": costs.carried}
    for frame in frames:
        stream(frame[None])
        (row,) = stream.stats.rows
        layout = stream.layout
        assert layout is not None
        patches = row.tokens - layout.prefix - layout.suffix
        time += kinds[row.kind] if row.kind in kinds else costs.of(patches)
    return {
        "operations": 1 / stream.stats.ratio,
        "time": time / len(frames) / costs.dense,
        "kinds": dict(stream.stats.kinds),
    }


def held(tokens: Tensor) -> list[float]:
    """Mean error of an output that is held for 0, 1, 2, ... frames."""
    sizes = [one.norm() for one in tokens]
    found = [0.0]
    for age in range(1, min(LONGEST, len(tokens))):
        pairs = zip(tokens[age:], tokens[:-age], sizes[age:], strict=True)
        found.append(fmean(((now - before).norm() / size).item() for now, before, size in pairs))
    return found


def happening(
    stream_of: Callable[[Auto], eventful.Stream], frames: Tensor, tokens: Tensor, costs: Costs
) -> list[dict[str, Any]]:
    """What holding each error takes on some frames, and the time of skipping them for it."""
    price, errors, rows = Price(costs, costs, costs.dense), held(tokens), []
    for error in ERRORS:
        skipped = skipping(error, errors, price)
        found = happens(stream_of, frames, error, costs)
        skips = {"every": skipped.every, "time": skipped.milliseconds / costs.dense}
        rows.append({"error": error, "happened": found, "skipping": skips})
    return rows


def measure(clip: str, size: int, folder: Path, root: Path) -> dict[str, Any]:
    """Everything about a clip at a size."""
    frames = frames_of(clip, root, size)
    model: Any = saliency_vit(tuple(frames.shape[2:])).backbone
    tokens = equal_time.dense(model, frames, folder / "dense" / f"{clip}-{size}.pt")
    eventful.convert(model)
    costs = equal_time.costs_in(folder)(model, frames)

    def stream_of(policy: Auto) -> eventful.Stream:
        options: dict[str, Any] = {"method": "forward_features", "normalize": True}
        return eventful.Stream(model, policy=policy, costs=costs, check=False, **options)

    half = len(frames) // 2
    parts = {"itself": (frames, 0), "rest": (frames[:half], half)}
    known = folder / "happened" / f"{clip}-{size}.json"
    if not known.exists():
        known.parent.mkdir(parents=True, exist_ok=True)
        happened = {
            name: happening(stream_of, frames[then:], tokens[then:], costs)
            for name, (_, then) in parts.items()
        }
        write_json(happened, known)
    happened = json.loads(known.read_text())
    found: dict[str, Any] = {"clip": clip, "size": size, "frames": len(frames)}
    for name, (some, _) in parts.items():
        runner, rate = Runner(stream_of(Auto()), costs), RATES.get(clip, 25.0)
        advice = advise(some.split(1).__iter__, runner, rate)
        told = zip(happened[name], advice.expectations, strict=True)
        found[name] = {
            "frames": len(some),
            "dense_frames": advice.dense_frames,
            "windows": advice.windows,
            "moving": advice.footage.moving,
            "rows": [{**row, "expected": asdict(one)} for row, one in told],
        }
    return found


def off(row: dict[str, Any], kind: str = "operations") -> float:
    """What was expected over what happened."""
    return row["expected"][kind]["value"] / row["happened"][kind]


def inside(row: dict[str, Any]) -> bool:
    """Whether what happened lies in the range that was given."""
    given = row["expected"]["operations"]
    return given["low"] <= row["happened"]["operations"] <= given["high"]


def first_half(row: dict[str, Any], number: int) -> float:
    """What the first half of a clip took by itself, from the whole and the second half."""
    frames, half = row["frames"], row["frames"] // 2
    whole, rest = (row[part]["rows"][number]["happened"]["operations"] for part in PARTS)
    return (whole * frames - rest * (frames - half)) / half


def summary(rows: Sequence[dict[str, Any]], part: str) -> dict[str, Any]:
    """How good predictions are on the clips that nothing was chosen on.

    "alike" counts clips whose second half took within 30 % of what their first half did: no
    prediction from the first half can be expected to hold on the others.
    """
    others = [row for row in rows if row["clip"] not in CHOSEN_ON]
    told = [row[part]["rows"] for row in others]
    right = sum(judged(row[part])["over_best"] <= 1 + CLOSE for row in others)
    found: dict[str, Any] = {"clips": len(told), "right": right}
    for number, error in enumerate(ERRORS):
        at = [one[number] for one in told]
        close = {
            kind: sum(abs(off(row, kind) - 1) <= WITHIN for row in at)
            for kind in ("operations", "time")
        }
        skipped = [row["expected"]["skipping_time"] / row["skipping"]["time"] for row in at]
        found[f"{error:g}"] = {
            "within": close,
            "inside": sum(map(inside, at)),
            "median_off": median(abs(off(row) - 1) for row in at) if at else None,
            "skipping_within": sum(abs(one - 1) <= WITHIN for one in skipped),
            "alike": sum(
                abs(
                    first_half(row, number) / row["rest"]["rows"][number]["happened"]["operations"]
                    - 1
                )
                <= WITHIN
                for row in others
            ),
        }
    return found


def judged(one: dict[str, Any]) -> dict[str, Any]:
    """What is advised, and its time over that of the best: it, skipping, or neither.

    Frames are skipped by whole numbers.
    """
    told = verdict([_expectation(row["expected"]) for row in one["rows"]])
    last = one["rows"][-1]["error"]
    name = told.policy.partition(":")[2] if told.use == "auto" and told.policy else "0.15"
    error = last if told.use == "nothing" else float(name)
    row = next(row for row in one["rows"] if row["error"] == error)
    skips = row["skipping"]
    skipped = skips["time"] * skips["every"] / int(skips["every"])
    times = {"auto": row["happened"]["time"], "skip": skipped, "nothing": 1.0}
    return {"use": told.use, "error": error, "over_best": times[told.use] / min(times.values())}


def _expectation(saved: dict[str, Any]) -> Expectation:
    ranges = {name: Range(**saved[name]) for name in ("operations", "milliseconds", "time")}
    return Expectation(**{**saved, **ranges, "skipping": Skipping(**saved["skipping"])})


def tables(result: dict[str, Any]) -> dict[str, filling.Lines]:
    """The tables of the page."""
    found: dict[str, filling.Lines] = {}
    for part in PARTS:
        lines = [["clip", "long side", "error 0.1", "error 0.15", "error 0.2", "skipping, 0.15"]]
        for row in result["rows"]:
            mark = " (chosen on)" if row["clip"] in CHOSEN_ON else ""
            each = row[part]["rows"]
            pairs = [
                (one["expected"]["operations"]["value"], one["happened"]["operations"])
                for one in each
            ]
            pairs.append((each[1]["expected"]["skipping_time"], each[1]["skipping"]["time"]))
            texts = [f"{a:.2f}, {b:.2f}" for a, b in pairs]
            lines.append([row["clip"] + mark, f"{row['size']} px", *texts])
        found[part] = lines
    heads = "foretold from", "long side", "error", "operations within 30 %", "time within 30 %"
    more = "in range", "off by (median)", "skipping within 30 %", "advice right", "halves alike"
    lines = [[*heads, *more]]
    names = {"itself": "the clip", "rest": "its first half"}
    for (size, part), one in _summaries(result).items():
        for error in (f"{error:g}" for error in ERRORS):
            at = one[error]
            within = at["within"]["operations"], at["within"]["time"], at["inside"]
            counts = [f"{number} of {one['clips']}" for number in within]
            skipped = f"{at['skipping_within']} of {one['clips']}"
            alike = f"{at['alike']} of {one['clips']}" if part == "rest" else ""
            good = f"{one['right']} of {one['clips']}" if error == "0.15" else ""
            ends = [f"{100 * at['median_off']:.0f} %", skipped, good, alike]
            lines.append([names[part], f"{size} px", error, *counts, *ends])
    found["summary"] = lines
    return found


def _summaries(result: dict[str, Any]) -> dict[tuple[int, str], dict[str, Any]]:
    sizes = sorted({row["size"] for row in result["rows"]})
    return {
        (size, part): summary([row for row in result["rows"] if row["size"] == size], part)
        for part in PARTS
        for size in sizes
    }


def main(given: Sequence[str] | None = None) -> None:
    """Do as asked."""
    parser = filling.parser(__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 392])
    parser.add_argument("--clips", nargs="+", help="[all]")
    parser.add_argument("--out", type=Path, help="another file, for a trial; fills no table")
    arguments: argparse.Namespace = parser.parse_args(given)
    done = arguments.work / "rows"
    if not arguments.draw:
        if "EVENTFUL_DATA" not in os.environ:
            sys.exit("EVENTFUL_DATA is not set: the folder of davis2016/, cdnet2014/, vtest/, mot/")
        root = Path(os.environ["EVENTFUL_DATA"])
        davis = (path.name for path in (root / equal_time.DAVIS).iterdir())
        clips = arguments.clips or sorted([*davis, *MORE])
        for size, clip in itertools.product(arguments.sizes, clips):
            path = done / f"{clip}-{size}.json"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(measure(clip, size, arguments.work, root), path)
            row = json.loads(path.read_text())
            ratios = [
                "{}: {}".format(part, ", ".join(f"{off(one):.2f}" for one in row[part]["rows"]))
                for part in PARTS
            ]
            print(f"{size} {clip}: expected over happened, {'; '.join(ratios)}", flush=True)
    rows = [json.loads(path.read_text()) for path in sorted(done.glob("*.json"))]
    rows.sort(key=lambda row: (row["size"], row["clip"]))
    result: dict[str, Any] = {
        "chosen_on": CHOSEN_ON,
        "rows": rows,
        "commit": commit(),
        "machine": machine(),
    }
    result["summary"] = [
        {"size": size, "part": part, **found} for (size, part), found in _summaries(result).items()
    ]
    result["advised"] = [
        {"clip": row["clip"], "size": row["size"], "part": part, **judged(row[part])}
        for row in rows
        for part in PARTS
    ]
    write_json(result, arguments.out or RESULT)
    if arguments.out is None:
        filling.fill(PAGE, "advise", tables(result))


if __name__ == "__main__":
    main()
