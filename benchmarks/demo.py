"""Figures of the demo: `eventful run` without a video, under a few policies.

    python benchmarks/demo.py [--out FILE]

runs the command as a user would, one policy after the other, on both clips, and writes
benchmarks/results/demo.json. Dense and eventful frames are timed in one process; the dense model
runs by itself on the frames that the command checks, and PyTorch's fused attention serves it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "demo.json"
POLICIES = ("error:0.15", "auto:0.2", "skip:5")
START = "from eventful.cli import main; main()"


def run(policy: str, given: Sequence[str]) -> dict:
    """Run the command once; returns its report, without rows."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--policy", policy, *given, "--out", folder, "--json"]
        command = [sys.executable, "-c", START, "run", *options]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    report = json.loads(done.stdout)
    del report["files"]
    for clip in report["clips"]:
        del clip["rows"]
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", help="long side in pixels [the command's own]")
    parser.add_argument("--frames", default="50", help="of each clip [%(default)s]")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    given = ["--frames", options.frames, *(["--size", options.size] if options.size else [])]
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True, cwd=here
    )
    result = {"commit": commit.stdout.strip(), "runs": [run(policy, given) for policy in POLICIES]}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for report in result["runs"]:
        for clip in report["clips"]:
            keys = ("video", "operations", "time_ms", "error", "skipping")
            line = {"policy": report["policy"]} | {key: clip[key] for key in keys}
            sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
