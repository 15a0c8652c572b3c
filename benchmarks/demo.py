"""The README's table: `eventful run --size 518` on the demo clip at two policies.

    python benchmarks/demo.py

runs the command as a user would, one policy after the other, and writes
benchmarks/results/demo.json. Eventful and dense frames are timed in one process, one right behind
the other, on every tenth frame; dense attention is PyTorch's fused one.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

POLICIES = ("fraction:0.25", "fraction:0.125")


def run(policy: str) -> dict:
    """Run the command once; returns its summary."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "eventful",
            "run",
            "--size",
            "518",
            "--policy",
            policy,
            "--out",
            folder,
            "--json",
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    summary = json.loads(done.stdout)
    del summary["files"]
    return summary


def main() -> None:
    """Measure and write the result."""
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True, cwd=here
    )
    result = {"commit": commit.stdout.strip(), "runs": [run(policy) for policy in POLICIES]}
    (here / "results" / "demo.json").write_text(json.dumps(result, indent=1) + "\n")
    for summary in result["runs"]:
        keys = ("policy", "operations", "time_ms", "relative_error")
        sys.stdout.write(json.dumps({key: summary[key] for key in keys}) + "\n")


if __name__ == "__main__":
    main()
