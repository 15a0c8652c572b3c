"""`eventful run --size 518` on the demo clip at two policies.

    python benchmarks/demo.py [--out FILE]

runs the command as a user would, one policy after the other, and writes
benchmarks/results/demo.json. Eventful and dense frames are timed in one process, one right behind
the other, on every tenth frame; dense attention is PyTorch's fused one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "demo.json"
POLICIES = ("fraction:0.25", "fraction:0.125")


def run(policy: str, options: Sequence[str]) -> dict:
    """Run the command once; returns its summary."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["eventful", "run", "--policy", policy, "--out", folder, "--json", *options]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    summary = json.loads(done.stdout)
    del summary["files"]
    return summary


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="518")
    parser.add_argument("--frames", help="of the clip [all]")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    given = ["--size", options.size, *(["--frames", options.frames] if options.frames else [])]
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True, cwd=here
    )
    result = {"commit": commit.stdout.strip(), "runs": [run(policy, given) for policy in POLICIES]}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for summary in result["runs"]:
        keys = ("policy", "operations", "time_ms", "relative_error")
        sys.stdout.write(json.dumps({key: summary[key] for key in keys}) + "\n")


if __name__ == "__main__":
    main()
