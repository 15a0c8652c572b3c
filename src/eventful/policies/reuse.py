"""Dense frames at fixed distances; in between the last output, as it is or moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from eventful.policies.policy import FramePolicy, whole


@dataclass(frozen=True)
class _Every(FramePolicy):
    every: int
    phase: int = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if type(self.every) is not int or self.every < 1:
            raise ValueError(f"{name}(k) needs a whole number k of at least 1, got {self.every!r}")
        if type(self.phase) is not int or not 0 <= self.phase < self.every:
            raise ValueError(
                f"{name}(k, phase) needs a phase of 0 to {self.every - 1}, got {self.phase!r}"
            )

    @classmethod
    def from_text(cls, name: str, number: str) -> _Every:
        """Build it from `5`, or `5+2` with a phase."""
        every, _, phase = number.partition("+")
        return cls(whole(every), whole(phase or "0"))

    def __str__(self) -> str:
        phase = f"+{self.phase}" if self.phase else ""
        return f"{type(self).__name__.lower()}:{self.every}{phase}"


@final
@dataclass(frozen=True)
class Skip(_Every):
    """The dense model on every k-th frame; in between, the last output as it is.

    Attributes:
        every: k.
        phase: Frames by which the dense ones come earlier; the first frame is always dense.

    Raises:
        ValueError: `every` is not a whole number of at least 1, or `phase` not one below it.

    Example:
        >>> str(Skip(5)), str(Skip(5, phase=2))
        ('skip:5', 'skip:5+2')
    """

    texts: ClassVar[Mapping[str, str]] = {"skip:5": "every fifth frame; in between the last output"}


@final
@dataclass(frozen=True)
class Carry(_Every):
    """The dense model on every k-th frame; in between its output, moved along the motion since.

    Attributes:
        every: k.
        phase: Frames by which the dense ones come earlier; the first frame is always dense.

    Raises:
        ValueError: `every` is not a whole number of at least 1, or `phase` not one below it.

    Example:
        >>> str(Carry(5)), str(Carry(5, phase=2))
        ('carry:5', 'carry:5+2')
    """

    waits: ClassVar[bool] = True
    texts: ClassVar[Mapping[str, str]] = {
        "carry:5": "every fifth frame; in between the last output, moved along the motion"
    }
