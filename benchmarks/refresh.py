"""Error over 10,000 frames with each way of refreshing what a stream remembers.

    EVENTFUL_DATA=... python benchmarks/refresh.py [--frames 10000] [--only RUN ...] [--out FILE]
    python benchmarks/refresh.py --draw

loops the first 500 frames of `vtest.avi` through the demo's backbone, scene cuts off, an eighth of
the patches a frame, and writes benchmarks/results/refresh.json, docs/images/refresh.svg and the
tables of docs/refresh.md. A call that was ended goes on with the runs that it had not done. The
settings of a run are batch rows of one stream, which are independent of each other:

- `paper`, `input`, `hold`: each gating without a flush, tokens picked by error or by relative
  error; `paper age`, `input age`, `hold age`: by either times the age;
- `paper flushed`, `input flushed`: a flush every 100 frames. One every 1,000 needs no run: it is
  the first thousand of the run without a flush, over and over;
- `rotation`: `paper` with rows of attention computed anew in rotation never, within 256 frames (the
  default), or within 16. Attention is brought up to date on every frame, where a stream would
  compute it in full at this size. What is asked is how far it drifts from full attention in a
  block, so that the first three blocks will do, and the dense model has three here, too.

A stream is deterministic. If all that it remembers at the end of a loop is, bit by bit, what it
remembered at the end of an earlier one, then everything repeats for ever, and the rest of the
frames is filled in: `cycle` has the two frames. Otherwise all of the frames are run.

A setting has the relative error of the final patch tokens by thousand frames, mean and maximum; the
`bound`, the largest of all; whether it is `bounded`: the largest of the last half of the frames is
at most MARGIN above the largest of the first; and for `rotation`, by thousand frames, the `drift`
of attention: the relative error, in the worst block, of the output kept up to date against full
attention over the same buffers in float64.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, NamedTuple

import filling
import torch
from torch import Tensor

import eventful
from eventful import attention
from eventful.attention import Dense, Incremental
from eventful.block import block as blocks
from eventful.block.bindings import binding
from eventful.block.gate import GateState, Measure, TokenGate
from eventful.block.options import Gating
from eventful.models import saliency_vit
from eventful.provenance import commit, machine, write_json
from eventful.video import Reader

RESULT = Path(__file__).parent / "results" / "refresh.json"
PAGE = Path(__file__).parents[1] / "docs" / "refresh.md"
FIGURE = PAGE.parent / "images" / "refresh.svg"
FRACTION = 0.125
MARGIN = 0.05
BLOCK = 1000
COLOURS = {
    "error": "tab:blue",
    "relative": "tab:orange",
    "age": "tab:green",
    "relative-age": "tab:red",
}


class Setting(NamedTuple):
    """What one batch row does; None stands for never."""

    measure: Measure = "error"
    max_age: int | None = 256
    flush: int | None = None


PLAIN = [Setting("error"), Setting("relative")]
AGED = [Setting("age"), Setting("relative-age")]
RUNS: dict[str, tuple[Gating, list[Setting]]] = {
    "input": ("input", PLAIN),
    "paper": ("paper", PLAIN),
    "hold": ("hold", PLAIN),
    "input flushed": ("input", [Setting(flush=100)]),
    "paper flushed": ("paper", [Setting(flush=100)]),
    "rotation": ("paper", [Setting(max_age=None), Setting(max_age=256), Setting(max_age=16)]),
    "input age": ("input", AGED),
    "paper age": ("paper", AGED),
    "hold age": ("hold", AGED),
}


class RowGate(TokenGate):
    """Ranks the tokens of every batch row by that row's own measure."""

    measures: ClassVar[list[Measure]] = []

    def _rank(self, state: GateState, error: Tensor) -> Tensor:
        assert state.size is not None
        relative = error / state.size.clamp_min(torch.finfo(error.dtype).tiny)
        chosen = []
        for row, measure in enumerate(self.measures):
            rank = (relative if "relative" in measure else error)[row]
            chosen.append(rank if state.age is None else rank * (state.age[row] + 1))
        return torch.stack(chosen)


class RowRotation(Incremental):
    """Rotates through the rows of every batch row at that row's own age, at any size."""

    ages: ClassVar[list[int | None]] = []

    def _rotating(self, turn: Tensor, tokens: int) -> Tensor:
        forms = [Incremental(self.heads, self.scale, max_age=age) for age in self.ages]
        return torch.stack([form._rotating(turn, tokens) for form in forms])

    @staticmethod
    def full_is_cheaper(active: int, tokens: int, changed: float | None = None) -> bool:
        """Only where all is computed anyway, so that attention is updated at a small size too."""
        return active == tokens


def clip(size: int, loop: int) -> Tensor:
    """The frames of the loop, (loop, 3, height, width)."""
    path = Path(os.environ["EVENTFUL_DATA"]) / "vtest" / "vtest.avi"
    with Reader(path, size, keep_aspect=True, patch=14) as reader:
        return torch.cat([frame.image for frame in itertools.islice(reader, loop)])


@torch.inference_mode()
def dense_tokens(model: Any, frames: Tensor) -> Tensor:
    """Final-normed patch tokens (loop, patches, dim) of the dense model."""
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    parts = [model.forward_features((part - mean) / std) for part in frames.split(10)]
    return torch.cat(parts)[:, model.num_prefix_tokens :]


def drift(stream: eventful.Stream) -> list[float]:
    """For each batch row, the worst block's error of the attention output that was kept."""
    errors = []
    for block in stream._bound.blocks.values():
        state = binding(block).state
        assert state.attention is not None
        full, _ = Dense(block.heads, block.scale).start(state.buffers["qkv"].tokens.double())
        kept = state.attention.tensors["output"].flatten(2)
        errors.append((kept - full).flatten(1).norm(dim=1) / full.flatten(1).norm(dim=1))
    return torch.stack(errors).amax(dim=0).tolist()


def digest(stream: eventful.Stream) -> bytes:
    """Stand for all that a stream remembers."""
    found = hashlib.sha256()
    for block in stream._bound.blocks.values():
        for tensor in binding(block).state.tensors().values():
            found.update(tensor.contiguous().numpy().tobytes())
    return found.digest()


def run(model: Any, name: str, frames: Tensor, dense: Tensor, count: int) -> list[dict[str, Any]]:
    """Run the settings of a run side by side over so many frames."""
    gating, settings = RUNS[name]
    stream, loop = prepared(model, name), len(frames)
    norms, errors, drifts, seen, cycle = dense.flatten(1).norm(dim=1), [], [], {}, None
    for i in range(count):
        if i % loop == 0 and i and name != "rotation":
            cycle = seen.setdefault(digest(stream), i), i
            if cycle[0] < i:
                break
        if i:
            stream.reset([row for row, s in enumerate(settings) if s.flush and i % s.flush == 0])
        frame = frames[i % loop].expand(len(settings), -1, -1, -1)
        tokens = stream(frame)[:, model.num_prefix_tokens :]
        errors.append((tokens - dense[i % loop]).flatten(1).norm(dim=1) / norms[i % loop])
        if name == "rotation" and i % BLOCK == BLOCK - 1:
            drifts.append(drift(stream))
    eventful.restore(model)
    cycle = cycle if cycle and cycle[0] < cycle[1] else None
    while cycle and len(errors) < count:
        errors.append(errors[cycle[0] - cycle[1]])
    table = torch.stack(errors)
    rows = [
        {"gating": gating, **setting._asdict(), "cycle": cycle} | summary(table[:, row])
        for row, setting in enumerate(settings)
    ]
    if drifts:
        for row, values in zip(rows, zip(*drifts, strict=True), strict=True):
            row["drift"] = [float(f"{value:.2g}") for value in values]
    return rows


def prepared(model: Any, name: str) -> eventful.Stream:
    """A stream whose batch rows are the settings of a run."""
    gating, settings = RUNS[name]
    RowGate.measures = [setting.measure for setting in settings]
    RowRotation.ages = [setting.max_age for setting in settings]
    blocks.TokenGate = RowGate
    attention.FORMS["incremental"] = RowRotation if name == "rotation" else Incremental
    by = "relative-age" if "age" in name.split() else "relative"
    eventful.convert(model, eventful.TopFraction(FRACTION), gating=gating, measure=by)
    return eventful.Stream(model, normalize=True, scene_cuts=None, method="forward_features")


def summary(errors: Tensor) -> dict[str, Any]:
    """What is said of a setting's errors (frames,)."""
    thousands, half = errors.split(BLOCK), len(errors) // 2
    first, last = errors[:half].max().item(), errors[half:].max().item()
    return {
        "frames": len(errors),
        "mean": [round(part.mean().item(), 5) for part in thousands],
        "max": [round(part.max().item(), 5) for part in thousands],
        "bounded": last <= (1 + MARGIN) * first,
        "bound": round(max(first, last), 5),
    }


def measure(frames: int, images: Tensor, names: list[str], result: Path) -> None:
    """Do the runs that are not in the result yet."""
    content = json.loads(result.read_text()) if result.exists() else {"runs": {}}
    height, width = images.shape[2:]
    whole, short = (saliency_vit((height, width)).backbone for _ in range(2))
    short.blocks = short.blocks[:3]
    dense = {model: dense_tokens(model, images) for model in (whole, short)}
    for name in names:
        if name not in content["runs"]:
            model = short if name == "rotation" else whole
            content["runs"][name] = run(model, name, images, dense[model], frames)
            write_json(content | about(images), result)


def about(images: Tensor) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "clip": f"vtest, {len(images)} frames looped",
        "size": list(images.shape[2:]),
        "policy": str(eventful.TopFraction(FRACTION)),
        "margin": MARGIN,
        "commit": commit(),
        "machine": machine(),
    }


def draw(content: dict[str, Any], path: Path = FIGURE) -> None:
    """Draw the errors of each gating, and the drift of attention."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional library

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    panels = figure.subplots(2, 2).flatten()
    for panel, gating in zip(panels, ("input", "paper", "hold"), strict=False):
        names = [name for name, (kind, _) in RUNS.items() if kind == gating and name != "rotation"]
        rows = [row for name in names for row in content["runs"][name]]
        errors(panel, rows)
        panel.set_title(f"gating {gating}", fontsize=10)
    drifts(panels[3], content["runs"]["rotation"])
    for panel in panels:
        panel.set_xlabel("frames since the start (thousands)")
        panel.grid(alpha=0.25)
    figure.savefig(path, dpi=90)


def errors(panel: Any, rows: list[dict[str, Any]]) -> None:
    """Draw the mean of every thousand frames as a line and the largest as dots."""
    for row in rows:
        x = [i + 0.5 for i in range(len(row["mean"]))]
        colour = "black" if row["flush"] else COLOURS[row["measure"]]
        panel.plot(x, row["mean"], "-", color=colour, label=picked(row))
        panel.plot(x, row["max"], ":", marker=".", color=colour, lw=0.8)
    panel.set_ylim(0, 0.9)
    panel.set_ylabel("relative error: mean (line), largest (dots)")
    panel.legend(fontsize=8, ncols=2, loc="center", bbox_to_anchor=(0.5, 0.54))


def picked(row: dict[str, Any]) -> str:
    """What tokens are picked by, and when everything is flushed."""
    return f"by {row['measure']}" + (f", flush every {row['flush']}" if row["flush"] else "")


def rotated(row: dict[str, Any]) -> str:
    """When rows of attention are computed anew."""
    return f"within {row['max_age']} frames" if row["max_age"] else "never (guard alone)"


def drifts(panel: Any, rows: list[dict[str, Any]]) -> None:
    """Draw how far attention that is kept up to date is from full attention."""
    for row, colour in zip(rows, ("black", "tab:blue", "tab:orange"), strict=True):
        x = range(1, len(row["drift"]) + 1)
        panel.plot(x, row["drift"], ".-", color=colour, label=f"rows anew {rotated(row)}")
    panel.set_yscale("log")
    panel.set_ylim(1e-7, 1e-3)
    panel.set_ylabel("relative error of kept attention, worst block")
    panel.set_title("rounding of incremental attention", fontsize=10)
    panel.legend(fontsize=8)


def tables(content: dict[str, Any]) -> dict[str, filling.Lines]:
    """The tables of the page."""
    heads = ["gating", "tokens picked", "mean", "first thousand", "last", "largest", "bounded"]
    settings, rotation = [heads], [["rows of attention recomputed", "after 1,000", "after 10,000"]]
    for row in (row for name in RUNS if name != "rotation" for row in content["runs"][name]):
        means = [f"{value:.3f}" for value in (fmean(row["mean"]), row["mean"][0], row["mean"][-1])]
        bounded = "yes" if row["bounded"] else "no"
        settings.append([row["gating"], picked(row), *means, f"{row['bound']:.3f}", bounded])
    for row in content["runs"]["rotation"]:
        rotation.append([rotated(row), *(f"{row['drift'][at]:.1e}" for at in (0, -1))])
    return {"settings": settings, "rotation": rotation}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, draw, and fill the tables in."""
    parser = filling.parser(__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=112, help="long side, in pixels [112]")
    parser.add_argument("--only", nargs="*", choices=RUNS, default=list(RUNS), metavar="RUN")
    parser.add_argument("--loop", type=int, default=500, help="frames of the loop [500]")
    parser.add_argument("--out", type=Path, help="another file, for a trial; fills no table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not options.draw:
        images = clip(options.size, options.loop)
        measure(options.frames, images, options.only, options.out or RESULT)
    if options.out:
        return
    content = json.loads(RESULT.read_text())
    if left := RUNS.keys() - content["runs"].keys():
        print(f"the figure and the tables wait for {sorted(left)}")
        return
    draw(content)
    filling.fill(PAGE, "refresh", tables(content))


if __name__ == "__main__":
    main()
