"""Policies that only an evaluation runs, to compare with, and the text of all that it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, final

from eventful.policies import FramePolicy, Policy, parse
from eventful.policies.policy import is_number, real
from eventful.policies.text import read_as


@final
@dataclass(frozen=True)
class LowResolution(FramePolicy):
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

    texts: ClassVar[Mapping[str, str]] = {
        "lowres:0.25": "the dense model on smaller frames, for a quarter of the operations"
    }

    def __post_init__(self) -> None:
        if not is_number(Real, self.share) or not 0 < self.share <= 1:
            raise ValueError(
                f"LowResolution(share) needs a number above 0 and at most 1, got {self.share!r}"
            )

    @classmethod
    def from_text(cls, name: str, number: str) -> LowResolution:
        """Build it from the text of its share."""
        return cls(real(number))

    def __str__(self) -> str:
        return f"lowres:{self.share:g}"


def parse_any(text: str) -> FramePolicy | Policy:
    """Read what an evaluation runs: `lowres:F`, or whatever `eventful.parse` reads.

    Raises:
        ValueError: The text is none of these, or its number is out of range.
        FileNotFoundError: It names a calibration file that is not there.

    Example:
        >>> parse_any("lowres:0.5"), parse_any("top:3")
        (LowResolution(share=0.5), TopR(r=3))
    """
    if text.partition(":")[0] == "lowres":
        return read_as(LowResolution, text)  # type: ignore[return-value]
    return parse(text)
