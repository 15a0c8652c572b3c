"""What is done with each frame: plans beside gating, each named by a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final


@dataclass(frozen=True)
class Plan(ABC):
    """How a model runs over a video."""

    @abstractmethod
    def __str__(self) -> str:
        """The text that `parse` reads."""


@final
@dataclass(frozen=True)
class Skip(Plan):
    """The dense model on every k-th frame; in between, the last output.

    Attributes:
        every: k.
        carried: Carry the output along the motion from frame to frame (`motion.carry`).
        phase: Frames by which the dense ones come earlier; the first frame is always dense.

    Raises:
        ValueError: `every` is not a whole number of at least 1, or `phase` not one below it.

    Example:
        >>> str(Skip(5)), str(Skip(5, carried=True, phase=2))
        ('skip:5', 'carry:5+2')
    """

    every: int
    carried: bool = False
    phase: int = 0

    def __post_init__(self) -> None:
        if type(self.every) is not int or self.every < 1:
            raise ValueError(f"skip:K needs a whole number K of at least 1, got {self.every!r}")
        if type(self.phase) is not int or not 0 <= self.phase < self.every:
            raise ValueError(
                f"skip:K+P needs a phase P of 0 to {self.every - 1}, got {self.phase!r}"
            )

    def __str__(self) -> str:
        phase = f"+{self.phase}" if self.phase else ""
        return f"{'carry' if self.carried else 'skip'}:{self.every}{phase}"


@final
@dataclass(frozen=True)
class LowResolution(Plan):
    """The dense model on smaller frames, its output stretched to the grid of the full size.

    Attributes:
        share: Of the operations that the dense model needs at full size.

    Raises:
        ValueError: `share` does not lie above 0 and at most at 1.

    Example:
        >>> str(LowResolution(0.25))
        'lowres:0.25'
    """

    share: float

    def __post_init__(self) -> None:
        _check_share("lowres", self.share)

    def __str__(self) -> str:
        return f"lowres:{self.share}"


@final
@dataclass(frozen=True)
class Auto(Plan):
    """Dense frames now and then; in between, what motion does not explain is computed anew.

    The output of the last dense frame is carried along the motion, and the patches whose pixels
    have changed most against what the motion predicts are recomputed with one gate for the network
    (`gating="input"`). At a scene cut a dense frame comes at once, and is paid back.

    Attributes:
        share: Mean share of the dense model's operations to use, the first frame included.
        worst: Largest share of any frame but the first. Below 1 there are no dense frames: in
            their place this share of the patches is computed anew.
        refresh: Share of the budget that goes into dense frames.

    Raises:
        ValueError: `share` or `refresh` does not lie above 0 and at most at 1, or `worst` not
            between `share` and 1.

    Example:
        >>> str(Auto(0.2)), str(Auto(0.2, worst=0.5))
        ('auto:0.2', 'auto:0.2/0.5')
    """

    share: float
    worst: float = 1.0
    refresh: float = 0.7

    def __post_init__(self) -> None:
        _check_share("auto", self.share)
        _check_share("auto with a refresh", self.refresh)
        if not isinstance(self.worst, int | float) or not self.share <= self.worst <= 1:
            raise ValueError(
                f"auto:F/W needs a worst share W from F = {self.share} to 1, got {self.worst!r}"
            )

    def __str__(self) -> str:
        return f"auto:{self.share}" + (f"/{self.worst}" if self.worst < 1 else "")


def parse(text: str) -> Plan | None:
    """Read a plan from its text; None if the text does not name one.

    Args:
        text: `skip:5`, `carry:5` (`carry:5+2` with a phase), `lowres:0.25` or `auto:0.2`
            (`auto:0.2/0.5` with a worst share).

    Raises:
        ValueError: The number is missing or out of range.

    Example:
        >>> parse("carry:5"), parse("top:256")
        (Skip(every=5, carried=True, phase=0), None)
    """
    name, _, number = text.partition(":")
    try:
        match name:
            case "skip" | "carry":
                every, _, phase = number.partition("+")
                return Skip(_read(int, every), name == "carry", _read(int, phase or "0"))
            case "lowres":
                return LowResolution(_read(float, number))
            case "auto":
                share, slash, worst = number.partition("/")
                return Auto(_read(float, share), _read(float, worst) if slash else 1.0)
    except ValueError as error:
        raise ValueError(f"{text!r} is not understood ({error}); write {_EXAMPLES[name]}") from None
    return None


_EXAMPLES = {
    "skip": "skip:5",
    "carry": "carry:5",
    "lowres": "lowres:0.25",
    "auto": "auto:0.2 or auto:0.2/0.5",
}


def _read(kind: type, text: str) -> Any:
    """A number, or the text itself, which no plan takes."""
    try:
        return kind(text)
    except ValueError:
        return text


def _check_share(name: str, share: float) -> None:
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError(f"{name}:F needs a share F above 0 and at most 1, got {share!r}")
