"""Where the parts of a data set lie, and what to say where one is not there."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral
from pathlib import Path

from eventful.datasets.problems import Problems

NUMBER = re.compile(r"\d+$")


def located(root: Path, places: Sequence[str], what: str, page: str) -> Path:
    """The first of `places` under `root` that exists.

    Args:
        root: The folder of the data set.
        places: Paths relative to it.
        what: What is looked for.
        page: Where it can be had.

    Raises:
        FileNotFoundError: If there is none; says where it was looked for, and where to get it.

    Example:
        >>> try:
        ...     located(Path("nowhere"), ["val.csv", "annotations/val.csv"], "the table", "a.org")
        ... except FileNotFoundError as error:
        ...     print(error)
        expected the table at nowhere/val.csv or nowhere/annotations/val.csv; there is nothing. \
Check the root, or get it from a.org
    """
    for place in places:
        if (root / place).exists():
            return root / place
    looked = " or ".join(str(root / place) for place in places)
    raise FileNotFoundError(
        f"expected {what} at {looked}; there is nothing. Check the root, or get it from {page}"
    )


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, by name, hidden ones left out."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and entry.name[0] != "."]
    return [folder / name for name in sorted(names)]


def numbered(folder: Path, suffixes: Sequence[str], problems: Problems) -> list[tuple[int, Path]]:
    """The files in `folder` with one of `suffixes`, by the number that their names end in.

    A name without a number, and a number that comes twice, are problems.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name[0] != ".")
    found: dict[int, Path] = {}
    for path in (folder / name for name in names):
        if path.suffix.lower() not in suffixes:
            continue
        match = NUMBER.search(path.stem)
        if match is None:
            problems.report("image", path, "its name ends in no frame number; it is skipped")
        elif int(match[0]) in found:
            first = found[int(match[0])].name
            problems.report("image", path, f"{first} has the same frame number; it is skipped")
        else:
            found[int(match[0])] = path
    return sorted(found.items())


def consecutive(frames: Sequence[tuple[int, Path]]) -> list[list[tuple[int, Path]]]:
    """Splits frames in order wherever a number is left out.

    Example:
        >>> [[n for n, _ in run] for run in consecutive([(n, Path()) for n in (0, 1, 4, 5, 7)])]
        [[0, 1], [4, 5], [7]]
    """
    runs = [[frame] for frame in frames[:1]]
    for before, frame in pairwise(frames):
        if frame[0] == before[0] + 1:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    return runs


def positive(name: str, value: object) -> int:
    """Returns `value` if it is a positive int.

    Raises:
        TypeError: If it is no int.
        ValueError: If it is less than 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an int; got {value!r}. Round it: int({name})")
    if value < 1:
        raise ValueError(f"{name} must be at least 1; got {value}")
    return int(value)


def chosen(name: str, value: str, choices: Sequence[str]) -> str:
    """Returns `value` if it is one of `choices`.

    Raises:
        ValueError: If it is not.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
    return value
