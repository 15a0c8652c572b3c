"""The command line: `eventful run`, `eventful inspect`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; what it needs beyond the core comes with the extra `demo`."""
    try:
        from eventful.cli.app import app  # noqa: PLC0415 - optional libraries
    except ModuleNotFoundError as error:
        sys.exit(
            f"error: the command line needs {error.name}; pip install 'eventful-transformers[demo]'"
        )
    app()
