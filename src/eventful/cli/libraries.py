"""What to say where an optional library is missing; needs none itself."""

from __future__ import annotations


def missing(error: ImportError) -> str:
    """Say which library is missing and how to install it, where the error does not."""
    if "pip install" in str(error):
        return str(error)
    library = (error.name or str(error)).partition(".")[0]
    return f"the command line needs {library}; pip install 'eventful-transformers[demo]'"
