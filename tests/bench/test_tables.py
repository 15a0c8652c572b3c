"""The tables of the documentation are those of the committed results."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "tables.py"


def test_tables_are_made_from_the_results():
    check = [sys.executable, str(SCRIPT), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
