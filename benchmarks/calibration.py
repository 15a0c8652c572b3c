"""Policies calibrated on one clip against equal ones, on other clips at equal operations.

    EVENTFUL_DATA=... python benchmarks/calibration.py [--frames 12] [--size 112 196] [--out FILE]

calibrates the demo's backbone on a few frames of one clip, for a share of the dense operations, and
runs what it found on other clips. Beside it, on each of them, one share of tokens for all gates
("equal top") and one threshold for all gates ("equal threshold"), moved on that very clip until
they cost what the calibrated policies cost there: they are tuned on the clip that they are tested
on, the calibrated ones are not. Writes benchmarks/results/calibration.json; a call that was ended
goes on with what it had not done.

"error" is the relative error of the final patch tokens against the dense model, the mean over the
frames behind the first; "share" the operations of these frames over the dense model's. The error of
an equal policy is read off, at the calibrated policies' share, between the two nearest runs
(straight in the logarithms); "runs" has all of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import eventful
from eventful.calibration import KINDS, Figures, Sensitivity, Survey, Target, Trials
from eventful.calibration.allocation import equal_share, equally
from eventful.calibration.files import content as file_content
from eventful.datasets import CDnet, Davis
from eventful.models import saliency_vit
from eventful.policies import Policy, Threshold
from eventful.provenance import commit, machine, write_json

RESULT = Path(__file__).parent / "results" / "calibration.json"
CALIBRATED_ON = {"breakdance": 0, "highway": 600}
TESTED_ON = {"highway": 700, "parkour": 0, "breakdance": 40, "camel": 0, "dance-twirl": 0}
TESTED_ON |= {"car-shadow": 0, "bmx-trees": 0, "blackswan": 0}
SHARE = 0.25


def clip(name: str, first: int, count: int, size: tuple[int, int]) -> list[Tensor]:
    """Frames (1, 3, height, width) in [0, 1] of a clip, from the `first` on."""
    root = Path(os.environ["EVENTFUL_DATA"])
    if name == "highway":
        (video,) = (v for v in CDnet(root / "cdnet2014", size=size) if v.id.endswith(name))
    else:
        (video,) = Davis(root / "davis2016", [name], size=size)
    video = video.since(video.numbers[first])
    return [sample.image[None] for sample in itertools.islice(video, count)]


def patch_tokens(y: Tensor) -> Tensor:
    """Final tokens without the class token."""
    return y[:, 1:]


OPTIONS: dict[str, Any] = {
    "output": patch_tokens,
    "normalize": True,
    "method": "forward_features",
}


def surveyed(trials: Trials, on: dict[str, Any], save: Callable[[], None]) -> Survey:
    """Survey a clip, or take up what a call that was ended had found."""
    target = Target(share=SHARE)
    if "sensitivities" not in on:
        survey = Survey.of(trials, target)
        on["equal_share"] = equal_share(survey.equal)
        on["sensitivities"] = {name: one._asdict() for name, one in survey.found.items()}
        save()
        return survey
    found = {name: Sensitivity(**one) for name, one in on["sensitivities"].items()}
    equal = trials.run(equally(trials.gates, on["equal_share"]))
    return Survey(trials.run, target, equal, found)


def read_off(runs: list[Figures], share: float) -> float | None:
    """The error at a share, between the nearest runs of less and more; None outside of all."""
    below = max((run for run in runs if run.share <= share), key=lambda r: r.share, default=None)
    above = min((run for run in runs if run.share >= share), key=lambda r: r.share, default=None)
    if below is None or above is None:
        return None
    if above.share == below.share:
        return above.error
    part = math.log(share / below.share) / math.log(above.share / below.share)
    return below.error * (above.error / below.error) ** part


def tested(model: Any, frames: list[Tensor], found: dict[str, eventful.Policy]) -> dict[str, Any]:
    """Run calibrated policies on a clip, and equal ones at the same cost."""
    trials = Trials(model, frames, **OPTIONS)
    families: dict[str, tuple[Callable[[float], dict[str, Policy]], float, float]] = {
        "top": (lambda price: equally(trials.gates, 1 / price), 1.0, 32.0),
        "threshold": (lambda h: dict.fromkeys(trials.gates, Threshold(h)), 1.0, 64.0),
    }
    ours = {
        name: trials.run(eventful.policies.for_gates(policy, trials.gates)).figures
        for name, policy in found.items()
    }
    result: dict[str, Any] = {name: {"calibrated": vars(figures)} for name, figures in ours.items()}
    for family, (policies, low, high) in families.items():
        runs: list[Figures] = []
        for name, figures in ours.items():
            target = Target(share=figures.share)
            made = target.search(lambda price: trials.run(policies(price)), low, high)  # noqa: B023
            runs += [trial.figures for trial in made]
            result[name][f"equal {family}"] = read_off(runs, figures.share)
        result.setdefault("runs", {})[family] = [vars(run) for run in runs]
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Calibrate and test what is not in the result yet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=12, help="of a clip")
    parser.add_argument("--size", type=int, nargs=2, default=(112, 196))
    parser.add_argument("--on", nargs="+", choices=CALIBRATED_ON, default=list(CALIBRATED_ON))
    parser.add_argument("--clips", nargs="+", choices=TESTED_ON, default=list(TESTED_ON))
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    size = (options.size[0], options.size[1])
    model = saliency_vit(size).eval().backbone
    eventful.convert(model, eventful.KeepAll())
    result = options.out
    content: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {"on": {}}
    content |= {
        "size": list(size),
        "frames": options.frames,
        "commit": commit(),
        "machine": machine(),
    }
    for source in options.on:
        at = CALIBRATED_ON[source]
        on = content["on"].setdefault(source, {"first": at, "calibrations": {}, "tests": {}})
        if not on["calibrations"]:
            trials = Trials(model, clip(source, at, options.frames, size), **OPTIONS)
            survey = surveyed(trials, on, lambda: write_json(content, result))
            for kind in KINDS:
                on["calibrations"][kind] = file_content(survey.calibrate(kind), {})
            write_json(content, result)
        policies: dict[str, eventful.Policy] = {
            kind: eventful.policies.PerGate(
                tuple((n, eventful.policies.parse(t)) for n, t in one["policies"].items())
            )
            for kind, one in on["calibrations"].items()
        }
        for name in options.clips:
            first = TESTED_ON[name]
            key = f"{name} from {first}"
            if key not in on["tests"]:
                frames = clip(name, first, options.frames, size)
                on["tests"][key] = tested(model, frames, policies)
                write_json(content, result)


if __name__ == "__main__":
    main()
