"""The file that calibration writes and policies are read from: JSON, checked whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FORMAT, VERSION = "eventful calibration", 1


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a calibration file.

    Returns:
        Its content: "policies" has the text of a policy for each gate, such as "top:256".

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no calibration file, damaged, or of another version.

    Example:
        >>> read("none.json")
        Traceback (most recent call last):
        FileNotFoundError: there is no file none.json; write one with `eventful calibrate`
    """
    name = os.fspath(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no file {name}; write one with `eventful calibrate`"
        ) from None
    except ValueError as error:  # of text that is no JSON, and of bytes that are no text
        raise ValueError(f"{name} is no calibration file, or damaged: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f'{name} is no calibration file: it does not say "format": {FORMAT!r}')
    if content.get("version") != VERSION:
        raise ValueError(
            f"{name} is a calibration file of version {content.get('version')!r}, this release "
            f"reads {VERSION}; calibrate again"
        )
    policies = content.get("policies")
    if not isinstance(policies, dict) or not all(isinstance(t, str) for t in policies.values()):
        raise ValueError(f"{name} is damaged: its policies are not texts by gate name")
    return content
