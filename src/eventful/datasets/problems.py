"""What is wrong with the files of a data set: counted and listed, or raised at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

Kind = Literal["missing", "image", "annotation", "box", "row", "video"]


@dataclass(frozen=True)
class Problem:
    """One thing that was wrong.

    Attributes:
        kind: "missing" file, broken "image", unusable "annotation" of a frame, unusable "box" in an
            annotation, unusable "row" of a table, or damaged "video" file.
        path: The file.
        reason: What is wrong with it, and what became of it.

    Example:
        >>> print(Problem("image", Path("a/000003.JPEG"), "it is truncated; the frame is skipped"))
        a/000003.JPEG: it is truncated; the frame is skipped
    """

    kind: Kind
    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@final
class Problems:
    """The problems met so far, each once however often the data are read; empty ones are false.

    Args:
        strict: Raise at the first problem instead.

    Example:
        >>> problems = Problems()
        >>> for _ in range(2):
        ...     problems.report("image", Path("000003.JPEG"), "it is truncated; skipped")
        >>> problems.report("box", Path("000005.xml"), "object 1 has no area; left out")
        >>> len(problems), problems.counts
        (2, {'image': 1, 'box': 1})
        >>> print(problems)
        2 problems (1 image, 1 box)
        000003.JPEG: it is truncated; skipped
        000005.xml: object 1 has no area; left out
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self._found: dict[Problem, None] = {}

    def report(self, kind: Kind, path: Path, reason: str) -> None:
        """Adds a problem.

        Raises:
            FileNotFoundError: If `strict`, for a missing file.
            ValueError: If `strict`, for any other problem.
        """
        problem = Problem(kind, path, reason)
        if self.strict:
            error = FileNotFoundError if kind == "missing" else ValueError
            raise error(f"{problem}. Mend the file, or pass strict=False to count such problems")
        self._found[problem] = None

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each kind that occurred."""
        return dict(Counter(problem.kind for problem in self._found))

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Problem]:
        return iter(tuple(self._found))

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.counts.items())
        head = f"{len(self)} problems ({kinds})" if self else "no problems"
        return "\n".join([head, *map(str, self)])
