"""The command line, one module a command, and `app`, which names them and their options."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; what it needs beyond the core comes with the extra `demo`."""
    try:
        from eventful.cli.app import app  # noqa: PLC0415 - optional libraries
    except ImportError as error:
        sys.exit(f"error: {missing(error)}")
    app()


def missing(error: ImportError) -> str:
    """Say which library is missing and how to install it, where the error does not."""
    if "pip install" in str(error):
        return str(error)
    library = (error.name or str(error)).partition(".")[0]
    return f"the command line needs {library}; pip install 'eventful-transformers[demo]'"
