"""The command line: `app` names the commands, `commands` has a file for each."""

from __future__ import annotations

import sys

from eventful.cli.libraries import missing


def main() -> None:
    """Run the command; what it needs beyond the core comes with the extra `demo`."""
    try:
        from eventful.cli.app import app  # noqa: PLC0415 - optional libraries
    except ImportError as error:
        sys.exit(f"error: {missing(error)}")
    app()
