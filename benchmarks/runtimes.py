"""Dense frames and steps of a model in PyTorch, OpenVINO and ONNX Runtime, in turn.

    python benchmarks/runtimes.py [--sizes 224 392 518] [--rounds 6] [--draw] [--out FILE]
    python benchmarks/runtimes.py --model samvit_base_patch16 --sizes 1024 [...]

Writes benchmarks/results/runtimes.json, or runtimes_sam.json for SAM's encoder, which has windows
and relative positions, and with --draw the tables of docs/runtimes.md. Every contender runs once a
round, so that all meet the same load; all rounds again beside a process that keeps one core busy.
A dense frame and a step give the model's features and the keys and values that a stream needs;
dense frames of models that are not converted give the features only. Weights are random: what is
timed does not depend on them. `off` is the relative difference between a contender's output and
that of the same frame in PyTorch.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from filling import Lines, fill
from torch import Tensor

import eventful
from eventful.block.state import Pass
from eventful.ops import Index
from eventful.provenance import commit, machine, write_json
from eventful.runtimes import runtime_named, whole_graph

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "runtimes.md"
MODELS = {"vit_small_patch14_dinov2": "runtimes", "samvit_base_patch16": "runtimes_sam"}
DEPTH = 12
COSTS = eventful.Costs(dense=100.0, carried=4.0, held=1.0, partial=6.0, token=0.1)
RUNTIMES = "openvino", "onnxruntime"
Work = Callable[[], Tensor]


def active_tokens(patches: int) -> list[int]:
    """M: few tokens, a sixteenth and an eighth of all."""
    return sorted({min(32, patches // 2), patches // 16, patches // 8})


def step(stream: eventful.Stream, frame: Tensor, count: int) -> Work:
    """A partial frame of some tokens, from what the stream remembers."""
    engine: Any = stream._engine
    tokens, prefix = engine.taps.tokens, engine.taps.prefix
    patches = torch.linspace(prefix, tokens - 1, count).long()
    index = Index.from_positions(torch.cat([torch.arange(prefix), patches])[None], tokens)

    def work() -> Tensor:
        taps = frozenset(engine._taps.norms)
        shown = engine._taps.show([None], frame.dtype)
        return engine.compute(frame, {}, Pass(index, True, engine._linked, shown, taps))

    return work


def patches_of(name: str, size: int) -> int:
    """N, the patches of a square frame."""
    return (size // int(name.rpartition("patch")[2].partition("_")[0])) ** 2


def contenders(name: str, size: int) -> dict[str, Work]:
    """What is timed at a size, by name; every contender has run once."""
    patches = patches_of(name, size)
    frame = torch.rand(1, 3, size, size)
    model = timm.create_model(name, img_size=size, depth=DEPTH).eval()
    model.requires_grad_(False)
    works: dict[str, Work] = {"dense torch": lambda: model.forward_features(frame)}
    for where in RUNTIMES:
        runtime = runtime_named(where)
        assert runtime is not None
        graph = whole_graph(runtime, model, "forward_features", frame)
        works[f"dense {where}"] = lambda graph=graph: graph([frame])[0]
    converted = eventful.convert(timm.create_model(name, img_size=size, depth=DEPTH).eval())
    converted.load_state_dict(model.state_dict())
    for where in ("torch", *RUNTIMES):
        stream = eventful.Stream(
            converted, method="forward_features", pixels=lambda x: x, costs=COSTS, runtime=where
        )
        stream(frame)
        for count in active_tokens(patches):
            works[f"step {count} {where}"] = step(stream, frame, count)
    return works


def rounds(works: dict[str, Work], number: int) -> dict[str, list[float]]:
    """Milliseconds of each contender in each round."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(number):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """Keep one core busy meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def ratios(times: dict[str, float]) -> dict[str, Any]:
    """Times, and what they are over the fastest dense form's."""
    dense = min(ms for name, ms in times.items() if name.startswith("dense"))
    return {"ms": times, "of_fastest_dense": {name: ms / dense for name, ms in times.items()}}


@torch.inference_mode()
def measured(works: dict[str, Work], number: int) -> dict[str, Any]:
    """All contenders at a size, without and with a busy process beside them."""
    known = works["dense torch"]()
    off = {name: ((work() - known).norm() / known.norm()).item() for name, work in works.items()}
    found: dict[str, Any] = {"off": off, "loads": {}}
    for load in ("alone", "busy"):
        with busy(load == "busy"):
            before = os.getloadavg()[0]
            times = rounds(works, number)
        found["loads"][load] = {
            "load_average": before,
            "median": ratios({name: median(all_) for name, all_ in times.items()}),
            "least": ratios({name: min(all_) for name, all_ in times.items()}),
        }
    return found


def table(result: dict[str, Any]) -> Lines:
    """Over the fastest dense form: least and median time, and the median beside a busy process."""
    sizes = sorted(result["sizes"], key=int)
    lines = [["frame", *(f"{size} px" for size in sizes)]]
    kinds = ["dense torch", *(f"dense {name}" for name in RUNTIMES)]
    kinds += [f"{rank} {name}" for name in ("torch", *RUNTIMES) for rank in ("least", "16", "8")]
    for kind in kinds:
        lines.append([_label(kind), *(_cell(result, size, kind) for size in sizes)])
    return lines


def _label(kind: str) -> str:
    first, name = kind.split()
    what = {"dense": "dense", "least": "step, 32 tokens", "16": "step, N/16", "8": "step, N/8"}
    names = {"torch": "PyTorch", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
    return f"{names[name]}, {what[first]}"


def _cell(result: dict[str, Any], size: str, kind: str) -> str:
    first, name = kind.split()
    patches = patches_of(result["model"], int(size))
    counts = {"least": min(32, patches // 2), "16": patches // 16, "8": patches // 8}
    full = kind if first == "dense" else f"step {counts[first]} {name}"
    loads = result["sizes"][size]["loads"]
    shown = loads["alone"]["least"], loads["alone"]["median"], loads["busy"]["median"]
    shares = (part["of_fastest_dense"][full] for part in shown)
    return " / ".join(f"{share:.2f}" for share in shares)


def main(given: Sequence[str] | None = None) -> None:
    """Do as asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="vit_small_patch14_dinov2")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 392, 518])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(given)
    out = arguments.out or RESULTS / f"{MODELS[arguments.model]}.json"
    result: dict[str, Any] = {
        "machine": machine(),
        "commit": commit(),
        "model": arguments.model,
        "threads": torch.get_num_threads(),
        "rounds": arguments.rounds,
        "sizes": {},
    }
    for size in arguments.sizes:
        result["sizes"][str(size)] = measured(contenders(arguments.model, size), arguments.rounds)
        write_json(result, out)
    if arguments.draw:
        fill(PAGE, MODELS[arguments.model], {"steps": table(result)})


if __name__ == "__main__":
    main()
