"""How long the settings of quality.py take, as shares of the dense model's time.

They are run one after the other, on whatever machine is free, so that their own times say little.
A frame policy's time is added up from what each kind of frame costs, as measured beside each other
for a shape of frame (benchmarks/results/equal_time.json); that of a token policy was measured frame
by frame in turn with the dense model (benchmarks/results/quality_times.json), where it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eventful import Costs

RESULTS = Path(__file__).parent / "results"
CLIPS = {  # of a run: in equal_time.json, in quality_times.json, long side, patches and class token
    "davis": ("parkour", "DAVIS parkour", 518, 21 * 37 + 1),
    "highway": ("highway", "highway", 518, 28 * 37 + 1),
    "vtest": ("vtest", "vtest", 518, 28 * 37 + 1),
    "davis-segmentation": ("parkour", "DAVIS parkour", 518, 21 * 37 + 1),
    "campus-people": ("campus", None, 392, 21 * 28 + 1),
}


class Clock(NamedTuple):
    """What frames cost on the frames of a run.

    Attributes:
        costs: Of each kind of frame.
        tokens: N.
        measured: Dense time over used, by the names of settings.
    """

    costs: Costs
    tokens: int
    measured: Mapping[str, float]

    def share(self, row: Mapping[str, Any]) -> float | None:
        """Time of a row of a report over the dense model's; None if it is not known."""
        name = f"{row['variant']}, {row['policy']}"
        if name in self.measured:
            return 1 / self.measured[name]
        if row.get("lookahead"):
            return None  # these frames take a second flow, which nothing of the above has measured
        each = {kind: getattr(self.costs, kind) for kind in ("dense", "carried", "held")}
        kinds = row.get("kinds") or {"unknown": {}}
        if row["variant"] == "skip":  # held frames have no operations
            dense = 1 / row["operations_ratio"]
            kinds = {"dense": {"frames": dense}, "held": {"frames": 1 - dense}}
        if not kinds.keys() <= {*each, "partial"}:
            return None
        if "partial" in kinds:
            each["partial"] = self.costs.of(round(self.tokens * kinds["partial"]["operations"]))
        frames = sum(one["frames"] for one in kinds.values())
        spent = sum(one["frames"] * each[kind] for kind, one in kinds.items())
        return spent / frames / self.costs.dense


def clock(run: str) -> Clock:
    """The clock of a run, from the committed results."""
    clip, timed, size, tokens = CLIPS[run]
    rows: Sequence[Any] = _read("equal_time")["rows"]
    costs = next(row["costs"] for row in rows if (row["clip"], row["size"]) == (clip, size))
    measured = [] if timed is None else _read("quality_times")["clips"][timed]
    return Clock(Costs(**costs), tokens, {row["setting"]: row["time_ratio"] for row in measured})


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())
