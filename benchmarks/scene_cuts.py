"""Where scene cuts are found, and how far the limits are from being wrong.

    EVENTFUL_DATA=... python benchmarks/scene_cuts.py [--sizes 224 518] [--out FILE]

runs the first gate of the demo model over the demo clip (five cuts), the DAVIS sequences (pans and
fast motion, no cut) and `vtest` (static camera, no cut), at several policies and sizes, and writes
benchmarks/results/scene_cuts.json. A margin of 1.1 says that the limits could move by 10 % before
a cut were missed or a frame without one were taken for one.

Frame policies compare pictures instead of tokens (`picture_change`): for each video and size the
smallest change at a cut, the largest elsewhere, and the cuts that are found.
"""

import argparse
import json
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median

from torch import Tensor, nn
from torch.nn import functional as F

import eventful
from eventful.models import demo_clip, saliency_vit
from eventful.motion import Flow
from eventful.stream.cuts import change, picture_change
from eventful.stream.schedule import THUMBNAIL
from eventful.video import Reader

RESULT = Path(__file__).parent / "results" / "scene_cuts.json"
POLICIES = {
    224: (
        "all",
        "fraction:0.5",
        "fraction:0.25",
        "fraction:0.125",
        "fraction:0.0625",
        "threshold:20",
    ),
    518: ("all", "fraction:0.25", "fraction:0.0625"),
}
CUTS = {"demo clip": [30, 76, 137, 187, 242]}


class FirstBlock(nn.Module):
    """The demo's backbone up to its first block: all that the decision depends on."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.patch_embed, self.block = backbone.patch_embed, backbone.blocks[0]
        self.position, self.num_prefix_tokens = backbone._pos_embed, backbone.num_prefix_tokens
        self.pretrained_cfg = backbone.pretrained_cfg

    def forward(self, x: Tensor) -> Tensor:
        """Embed a frame and run the block."""
        return self.block(self.position(self.patch_embed(x)))


class Watch:
    """A stream, and the change and jump of each of its frames."""

    def __init__(self, model: nn.Module, policy: str) -> None:
        self.policy = policy
        self.stream = eventful.Stream(model, policy=eventful.policies.parse(policy), normalize=True)
        self.scores: list[float] = []
        self._gated, frame = self.stream._gated, self.stream._bound.frame
        self._judge, frame.on_first_gate = frame.on_first_gate, self._note

    def _note(self, reference: Tensor, c: Tensor) -> list[int]:
        history, limits = list(self._gated._histories[0]), eventful.SceneCuts()
        moved = change(reference, c)[0].item()
        usual = median(history) if history else 0
        jump = moved / usual if usual else float("inf")
        self.scores.append(min(moved / limits.level, jump / limits.jump))
        return self._judge(reference, c)

    def row(self, cuts: list[int]) -> dict:
        """What was found; a score of 1 or more is a cut."""
        flushes = self.stream.stats.flushes
        others = [score for i, score in enumerate(self.scores, start=1) if i not in cuts]
        return {
            "policy": self.policy,
            "frames": len(self.scores) + 1,
            "cuts": cuts,
            "found": [flush.frame for flush in flushes if flush.reason == "scene cut"],
            "cut_margin": min((self.scores[i - 1] for i in cuts), default=None),
            "other_margin": 1 / max(others),
        }


def measure(path: Path, model: nn.Module, size: int, frames: int, cuts: list[int]) -> list[dict]:
    """Run a video at every policy."""
    watches = [Watch(model, policy) for policy in POLICIES[size]]
    with Reader(path, size) as reader:
        for frame in reader:
            for watch in watches:
                watch.stream(frame.image)
            if frame.index + 1 == frames:
                break
    return [watch.row([cut for cut in cuts if cut < frames]) for watch in watches]


def pictures(path: Path, size: int, frames: int, cuts: list[int]) -> dict:
    """How far a video's pictures change at cuts and elsewhere."""
    limits, flow = eventful.SceneCuts(), Flow()
    history, before, changes, found = limits.new_history(), None, [], []
    for frame in islice(Reader(path, size), frames):
        small = flow.smaller(frame.image)
        now = F.interpolate(small, THUMBNAIL, mode="area").flatten(2).mT
        if before is not None:
            moved = picture_change(before, now).item()
            found += [frame.index] * limits.is_cut(moved, history)
            history.append(moved)
            changes.append(moved)
        before = now
    at = [changes[cut - 1] for cut in cuts if cut <= len(changes)]
    others = [x for i, x in enumerate(changes, start=1) if i not in cuts]
    return {"found": found, "at_cuts": min(at, default=None), "elsewhere": max(others)}


def videos(root: Path) -> dict[str, Path]:
    """The demo clip, vtest, and every DAVIS sequence."""
    davis = root / "davis2016" / "JPEGImages" / "480p"
    named = {"demo clip": demo_clip(), "vtest": root / "vtest" / "vtest.avi"}
    return named | {folder.name: folder for folder in sorted(davis.iterdir())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--frames", type=int, default=260, help="of a video at most")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    rows, seen = [], []
    for size in options.sizes:
        model = eventful.convert(FirstBlock(saliency_vit(size).backbone), eventful.KeepAll())
        for name, path in videos(Path(os.environ["EVENTFUL_DATA"])).items():
            cuts = CUTS.get(name, [])
            found = measure(path, model, size, options.frames, cuts)
            rows += [{"video": name, "size": size} | row for row in found]
            plain = pictures(path, size, options.frames, cuts)
            seen.append({"video": name, "size": size} | plain)
            print(name, size, [row["found"] for row in found], plain)
    limits = eventful.SceneCuts()
    result = {
        "limits": {"level": limits.level, "jump": limits.jump, "memory": limits.memory},
        "all_right": all(row["found"] == row["cuts"] for row in rows),
        "smallest_cut_margin": min(row["cut_margin"] for row in rows if row["cuts"]),
        "smallest_other_margin": min(row["other_margin"] for row in rows),
        "rows": rows,
        "pictures": {
            "smallest_at_cuts": min(row["at_cuts"] for row in seen if row["at_cuts"] is not None),
            "largest_elsewhere": max(row["elsewhere"] for row in seen),
            "rows": seen,
        },
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print({key: result[key] for key in result if key not in ("rows", "pictures")})


if __name__ == "__main__":
    main()
