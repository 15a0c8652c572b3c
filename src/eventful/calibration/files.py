"""Calibrations on disk, as `eventful.policies.parse` reads them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eventful.calibration.method import Calibration
from eventful.policies.calibration_file import FORMAT, VERSION
from eventful.provenance import write_json


def check_writable(path: str | os.PathLike[str]) -> Path:
    """See that a calibration can be written there, before the work is done.

    Raises:
        ValueError: The name does not end in .json, by which policies in text are told from files.
        OSError: It cannot be written.

    Example:
        >>> check_writable("street.txt")
        Traceback (most recent call last):
        ValueError: a calibration is written to a .json file, got street.txt
    """
    path = Path(path)
    if path.suffix != ".json":
        raise ValueError(f"a calibration is written to a .json file, got {path}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file to write")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise type(error)(
            f"{path} cannot be written: {error.strerror}; name a file in a folder that exists "
            f"and can be written to"
        ) from error
    return path


def content(result: Calibration, about: Mapping[str, Any]) -> dict[str, Any]:
    """What is in the file: the policies, what they reach, and what the caller says of it."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": result.kind,
        "target": {name: value for name, value in asdict(result.target).items() if value},
        "reached": result.reached,
        "predicted": asdict(result.predicted),
        "measured": asdict(result.measured),
        "equal": asdict(result.equal),
        "about": dict(about),
        "policies": {name: str(policy) for name, policy in result.policy.gates},
    }


def write(
    result: Calibration, path: str | os.PathLike[str], about: Mapping[str, Any] | None = None
) -> None:
    """Write a calibration for `eventful.policies.parse` and `eventful run --policy`.

    The file is either the old one or the whole new one.

    Args:
        result: What `calibrate` has found.
        path: Of the .json file.
        about: What else is to be kept: model, clip, options; for people.

    Raises:
        ValueError: The name does not end in .json.
        OSError: It cannot be written.
    """
    write_json(content(result, about or {}), check_writable(path))
