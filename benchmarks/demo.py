"""The README's figures of the demo: `eventful run` without a video, under a few policies.

    python benchmarks/demo.py

runs the command as a user would, one policy after the other, on both clips to their end, and writes
benchmarks/results/demo.json. Dense and eventful frames are timed in one process; the dense model
runs by itself on the frames that the command checks, and PyTorch's fused attention serves it.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

POLICIES = ("error:0.15", "auto:0.2", "skip:5")
FRAMES = 50


def run(policy: str) -> dict:
    """Run the command once; returns its report, without rows."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--policy", policy, "--frames", str(FRAMES), "--out", folder, "--json"]
        start = "from eventful.cli import main; main()"
        command = [sys.executable, "-c", start, "run", *options]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    report = json.loads(done.stdout)
    del report["files"]
    for clip in report["clips"]:
        del clip["rows"]
    return report


def main() -> None:
    """Measure and write the result."""
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True, cwd=here
    )
    result = {"commit": commit.stdout.strip(), "runs": [run(policy) for policy in POLICIES]}
    (here / "results" / "demo.json").write_text(json.dumps(result, indent=1) + "\n")
    for report in result["runs"]:
        for clip in report["clips"]:
            keys = ("video", "operations", "time_ms", "error", "skipping")
            line = {"policy": report["policy"]} | {key: clip[key] for key in keys}
            sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
