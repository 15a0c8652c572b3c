"""Operations of the paper's tables, and accuracy against operations as a picture.

    python benchmarks/paper_ops.py [--out FILE] [--picture FILE]

writes benchmarks/results/paper_ops.json, which is what `eventful paper ops --json` prints, and
docs/images/paper_accuracy_operations.svg: the mAP50 of the paper's tables C, 1 and E on ImageNet
VID over their operations, and incremental attention at the accuracy of the token-wise rows, whose
outputs it gives, over the operations counted here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

from eventful.cli.commands.paper import ops
from eventful.paper import ENTRIES, FURTHER, Variant, count
from eventful.paper.tables import Entry
from eventful.provenance import commit, machine, write_json

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "paper_ops.json"
PICTURE = ROOT / "docs" / "images" / "paper_accuracy_operations.svg"


class Style(NamedTuple):
    """How a variant is drawn; told apart without colours too, by mark, dashes and lightness."""

    label: str
    colour: str
    mark: str
    line: str
    filled: bool = True


STYLES: dict[Variant, Style] = {
    "incremental": Style("incremental (this library; outputs of token-wise)", "#08306b", "o", "-"),
    "full": Style("full (paper)", "#d95f02", "s", "-"),
    "spatiotemporal": Style("spatiotemporal (paper)", "#e6a817", "^", "--"),
    "token-wise": Style("token-wise only (paper)", "#1b9e77", "D", "-.", filled=False),
    "stgt": Style("STGT (baseline in the paper)", "#8c8c8c", "v", ":", filled=False),
}


def operations(entry: Entry) -> float:
    """The paper's figure, or ours where it has none."""
    found = count(entry) if entry.operations is None else entry.operations
    assert found is not None
    return found


def draw(axes: Any, size: int) -> None:
    """One size: a line a variant over its values of r, and the dense model."""
    for variant, style in STYLES.items():
        rows = [e for e in (*ENTRIES, *FURTHER) if (e.size, e.variant) == (size, variant)]
        axes.plot(
            [operations(entry) for entry in rows],
            [entry.accuracy for entry in rows],
            style.line,
            marker=style.mark,
            color=style.colour,
            markerfacecolor=style.colour if style.filled else "white",
            markersize=5.5,
            linewidth=2.2 if variant == "incremental" else 1.4,
            label=style.label,
            zorder=3 if variant == "incremental" else 2,
        )
    for variant, label, face in (
        ("dense", "dense", "black"),
        ("spatial", "dense, pooled", "white"),
    ):
        dense = next(e for e in ENTRIES if (e.size, e.variant) == (size, variant))
        point = operations(dense), dense.accuracy
        style = {"color": "black", "markerfacecolor": face, "markersize": 11, "linestyle": "none"}
        axes.plot(*point, marker="*", label=label, **style)
    axes.set_title(f"ViTDet-B at {size} x {size}", fontsize=11)
    axes.set_xlabel("10⁹ operations a frame")
    axes.grid(alpha=0.3)


def picture(path: Path) -> None:
    """Both sizes side by side, one legend below."""
    figure = Figure(figsize=(9.5, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    draw(left, 1024)
    draw(right, 672)
    left.set_ylabel("mAP50 on ImageNet VID (%), from the paper")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8.5)
    with rc_context({"svg.hashsalt": "eventful"}):  # the same file from the same figures
        figure.savefig(path, dpi=140, metadata={"Date": None} if path.suffix == ".svg" else None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, write the result and draw it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args(arguments)
    write_json(ops() | {"commit": commit(), "machine": machine()}, options.out)
    picture(options.picture)


if __name__ == "__main__":
    main()
