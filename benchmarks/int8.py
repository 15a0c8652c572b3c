"""Exported graphs in float32, bfloat16 and int8, alone and with `auto:0.2`: time and error.

    python benchmarks/int8.py [--sizes 392 518] [--rounds 8] [--frames 12] [--draw] [--out FILE]

Writes benchmarks/results/int8.json and, with --draw, the tables of docs/runtimes.md. The model is
the demo's ViT-S/14 with its weights. All contenders take turns, so that they meet the same load:

- dense frames and steps of N/8 tokens, a round each;
- streams over clips that were not calibrated on, frame by frame: dense frames (`skip:1`) and
  `auto:0.2` in every form. Frames start decoded, and motion and choices are part of the time.

Errors are relative, of the final-normed tokens against those of float32 dense frames, the mean over
a clip's frames. Float32 dense frames of OpenVINO are 1 in all shares of time.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import torch
from filling import Lines, fill, parser
from torch import Tensor

import eventful
from eventful.outputs import demo_network
from eventful.provenance import commit, machine, write_json
from eventful.video import read

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "int8.json"
PAGE = ROOT / "docs" / "runtimes.md"
PATCH, SHARE, WARM = 14, 0.2, 2  # frames before time counts
DAVIS = "davis2016/JPEGImages/480p"
CALIBRATED_ON = tuple(f"{DAVIS}/{name}" for name in ("camel", "car-shadow", "dance-twirl", "cows"))
CLIPS = {  # where they are, and their first frames
    "blackswan": (f"{DAVIS}/blackswan", 0),
    "drift-straight": (f"{DAVIS}/drift-straight", 0),
    "highway": ("cdnet2014/highway/input", 600),
    "vtest": ("vtest/vtest.avi", 0),
}


class Form(NamedTuple):
    """A way to compute the graphs."""

    label: str
    runtime: str = "openvino"
    precision: str = "float32"
    calibrated: bool = False


FORMS = {
    "openvino float32": Form("OpenVINO, float32"),
    "openvino bfloat16": Form("OpenVINO, bfloat16", precision="bfloat16"),
    "openvino int8 weights": Form("OpenVINO, int8 weights", precision="int8"),
    "openvino int8": Form("OpenVINO, int8 weights and activations", "openvino", "int8", True),
    "onnxruntime float32": Form("ONNX Runtime, float32", "onnxruntime"),
    "onnxruntime int8": Form("ONNX Runtime, int8 weights and activations", "onnxruntime", "int8"),
}
REFERENCE = "openvino float32"


def frames(root: Path, name: str, first: int, count: int, size: int) -> list[Tensor]:
    """Frames of a clip (1, 3, size, size), in [0, 1]."""
    return list(islice(read(root / name, size=size), first, first + count))


def exported(root: Path, size: int, folder: Path) -> dict[str, Any]:
    """The model in every form that this processor has, by name."""
    clip = [x for name in CALIBRATED_ON for x in frames(root, name, 0, 16, size)[::8]]
    config: Any = demo_network(size, size).model.pretrained_cfg
    center, scale = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    clip = [(x - center) / scale for x in clip]
    models: dict[str, Any] = {}
    for name, form in FORMS.items():
        model = eventful.convert(demo_network(size, size).model)
        try:
            path = eventful.export(
                model,
                folder / name,
                clip[0],
                runtime=form.runtime,
                method="forward_features",
                precision=form.precision,
                calibrate=clip if form.calibrated else None,
            )
        except ValueError as error:
            if form.precision != "bfloat16":
                raise
            print(f"{name} is left out: {error}")
            continue
        models[name] = eventful.load(path)
    return models


@torch.inference_mode()
def graphs(models: dict[str, Any], size: int, number: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a dense frame and of a step of N/8 tokens, least and median."""
    frame = torch.rand(1, 3, size, size)
    tokens = (size // PATCH) ** 2 + 1
    chosen = torch.cat([torch.zeros(1), torch.linspace(1, tokens - 1, tokens // 8)]).long()
    stale = torch.zeros(tokens).index_fill_(0, chosen, -torch.inf)
    works = {}
    for name, model in models.items():
        made = model._graphs()._graphs
        _, shown, *kept = (x.clone() for x in made["dense"]([frame]))
        works[f"{name} dense"] = made["dense"], [frame]
        works[f"{name} step"] = made["step"], [frame, chosen, stale, shown, *kept]
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(number):
        for name, (graph, given) in works.items():
            start = time.perf_counter()
            graph(given)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: {"least": min(ms), "median": median(ms)} for name, ms in times.items()}


@torch.inference_mode()
def over_clip(models: dict[str, Any], clip: Sequence[Tensor]) -> dict[str, dict[str, float]]:
    """Milliseconds and error of a frame, dense and under `auto`, in every form."""
    policies = {"dense": eventful.Skip(1), "auto": eventful.Auto(share=SHARE)}
    streams = {
        f"{name} {kind}": eventful.Stream(model, policy=policy, normalize=True)
        for name, model in models.items()
        for kind, policy in policies.items()
    }
    times: dict[str, list[float]] = {name: [] for name in streams}
    errors: dict[str, list[float]] = {name: [] for name in streams}
    for number, frame in enumerate(clip):
        known: Tensor | None = None
        for name, stream in streams.items():
            start = time.perf_counter()
            output = stream(frame)
            took = 1e3 * (time.perf_counter() - start)
            known = output if known is None else known
            if number >= WARM:
                times[name].append(took)
                errors[name].append(((output - known).norm() / known.norm()).item())
    return {
        name: {
            "ms": mean(times[name]),
            "error": mean(errors[name]),
            "operations": stream.stats.total_operations / stream.stats.total_dense_operations,
        }
        for name, stream in streams.items()
    }


def graph_table(result: dict[str, Any]) -> Lines:
    """Dense frame and step of each form, least / median, and the error of dense frames."""
    sizes = sorted(result["sizes"], key=int)
    head = [[f"{size} px, dense", f"{size} px, step N/8", f"{size} px, error"] for size in sizes]
    lines = [["graphs", *(cell for cells in head for cell in cells)]]
    for name in _forms(result):
        line = [FORMS[name].label]
        for size in sizes:
            case = result["sizes"][size]
            for kind in ("dense", "step"):
                parts = (
                    case["graphs"][f"{name} {kind}"][of] / case["graphs"][f"{REFERENCE} dense"][of]
                    for of in ("least", "median")
                )
                line.append(" / ".join(f"{part:.2f}" for part in parts))
            line.append(f"{_mean(case, f'{name} dense', 'error'):.3f}")
        lines.append(line)
    return lines


def both_table(result: dict[str, Any]) -> Lines:
    """A form alone, computing less alone, and both: least times of graphs, errors over clips."""
    head = ["graphs", "frames", "dense", "float32 step", "product", "both", "both / product"]
    lines = [[*head, "error: dense", "float32, auto", "both"]]
    for name in _forms(result):
        if FORMS[name].precision == "float32":
            continue
        plain = f"{FORMS[name].runtime} float32"
        for size in sorted(result["sizes"], key=int):
            case = result["sizes"][size]
            kinds = f"{name} dense", f"{plain} step", f"{name} step"
            whole = case["graphs"][f"{plain} dense"]["least"]
            alone, step, both = (case["graphs"][kind]["least"] / whole for kind in kinds)
            times = alone, step, alone * step, both, both / (alone * step)
            streams = f"{name} dense", f"{plain} auto", f"{name} auto"
            errors = (_mean(case, stream, "error") for stream in streams)
            cells = [*(f"{part:.2f}" for part in times), *(f"{error:.3f}" for error in errors)]
            lines.append([FORMS[name].label, f"{size} px", *cells])
    return lines


def _forms(result: dict[str, Any]) -> Iterator[str]:
    """Those that every size has."""
    cases = result["sizes"].values()
    yield from (name for name in FORMS if all(f"{name} dense" in case["graphs"] for case in cases))


def _mean(case: dict[str, Any], what: str, figure: str) -> float:
    return mean(clip[what][figure] for clip in case["clips"].values())


def main(given: Sequence[str] | None = None) -> None:
    """Do as asked."""
    asked = parser(__doc__)
    asked.add_argument("--sizes", type=int, nargs="+", default=[392, 518])
    asked.add_argument("--rounds", type=int, default=8)
    asked.add_argument("--frames", type=int, default=12, help="of each clip")
    asked.add_argument("--out", type=Path, default=RESULT)
    arguments = asked.parse_args(given)
    if "EVENTFUL_DATA" not in os.environ:
        sys.exit("EVENTFUL_DATA is not set: the folder of davis2016/, cdnet2014/ and vtest/")
    root = Path(os.environ["EVENTFUL_DATA"])
    result: dict[str, Any] = {
        "machine": machine(),
        "commit": commit(),
        "model": "the demo's ViT-S/14",
        "threads": torch.get_num_threads(),
        "rounds": arguments.rounds,
        "frames": arguments.frames,
        "sizes": {},
    }
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            models = exported(root, size, Path(folder))
            case: dict[str, Any] = {"load_average": [os.getloadavg()[0]], "clips": {}}
            case["graphs"] = graphs(models, size, arguments.rounds)
            for name, (path, first) in CLIPS.items():
                clip = frames(root, path, first, arguments.frames, size)
                case["clips"][name] = over_clip(models, clip)
                case["load_average"].append(os.getloadavg()[0])
        result["sizes"][str(size)] = case
        write_json(result, arguments.out)
    if arguments.draw:
        fill(PAGE, "int8", {"graphs": graph_table(result), "both": both_table(result)})


if __name__ == "__main__":
    main()
