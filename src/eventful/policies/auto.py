"""The product's policy: dense, partial, carried and held frames, chosen for each frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, Literal, final

from eventful.policies.policy import FramePolicy, is_number, real

Target = Literal["max_error", "share", "time", "latency_ms"]
_NAMES: dict[Target, str] = {
    "max_error": "error",
    "share": "auto",
    "time": "time",
    "latency_ms": "latency",
}
DEFAULT_ERROR = 0.15


@final
@dataclass(frozen=True)
class Auto(FramePolicy):
    """Chooses for each frame what it is given, to hold one target.

    A frame is dense (all tokens), partial (the tokens whose pixels motion does not explain),
    carried (the last output moved along the motion) or held (the last output as it is). Which, is
    decided from pixels, from what each kind of frame costs and from the errors that dense frames
    show (docs, "How a frame goes through"). Give one target; none means `max_error=0.15`.

    Args:
        share: Mean share of the dense model's operations to use, first frame included.
        time: Mean share of the dense model's time.
        max_error: Relative error of what the rest of the model sees to hold, in the mean over
            frames; dense frames count with 0. At most 1, the error of an output of zeros.
        latency_ms: Milliseconds that a frame is to take, in the mean. There is no dense frame but
            the first unless one fits.
        worst: Largest share of a dense frame that any frame but the first may take. Below 1 there
            are no dense frames; bands of tokens are recomputed in rotation. With `share` or
            `time`.

    Raises:
        ValueError: More than one target is given, or a number is out of range.

    Example:
        >>> str(Auto()), str(Auto(share=0.2, worst=0.5)), str(Auto(latency_ms=40))
        ('error:0.15', 'auto:0.2/0.5', 'latency:40')
    """

    share: float | None = None
    time: float | None = None
    max_error: float | None = None
    latency_ms: float | None = None
    worst: float = 1.0

    texts: ClassVar[Mapping[str, str]] = {
        "error:0.15": "hold a relative error of 0.15, as cheaply as the video allows",
        "auto:0.2": "a fifth of the operations in the mean (auto:0.2/0.5: no frame above half)",
        "time:0.2": "a fifth of the time in the mean",
        "latency:40": "about 40 ms a frame",
    }

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in _NAMES if getattr(self, name) is not None}
        if not given:
            object.__setattr__(self, "max_error", DEFAULT_ERROR)
        if len(given) > 1:
            raise ValueError(f"Auto takes one of {', '.join(_NAMES)}, got {', '.join(given)}")
        for name, value in given.items():
            most = math.inf if name == "latency_ms" else 1.0
            if not is_number(Real, value) or not 0 < value <= most or math.isinf(value):
                end = "and at most 1" if most == 1 else "and finite"
                end += " (0.15 is 15 %)" if name == "max_error" else ""
                raise ValueError(f"Auto({name}=...) needs a number above 0 {end}, got {value!r}")
        self._check_worst()

    def _check_worst(self) -> None:
        least = self.share if self.share is not None else self.time
        if self.worst != 1 and least is None:
            raise ValueError(
                f"worst={self.worst!r} bounds the cost of a frame where a mean cost is asked for; "
                f"it goes with share=... or time=..., not with {self.target}"
            )
        if not is_number(Real, self.worst) or not (least or 0) <= self.worst <= 1:
            raise ValueError(
                f"Auto(worst=...) needs a share from {least or 0} to 1, got {self.worst!r}"
            )

    @property
    def target(self) -> Target:
        """The name of the argument that was given."""
        return next(name for name in _NAMES if getattr(self, name) is not None)

    @property
    def waits(self) -> bool:  # type: ignore[override]
        """Where there are dense frames."""
        return self.latency_ms is None and self.worst == 1

    @classmethod
    def from_text(cls, name: str, number: str) -> Auto:
        """Build it from the text of its target, with `/W` behind it for a worst share."""
        target = next(target for target, known in _NAMES.items() if known == name)
        value, slash, worst = number.partition("/")
        return cls(**{target: real(value)}, worst=real(worst) if slash else 1.0)

    def __str__(self) -> str:
        worst = f"/{_short(self.worst)}" if self.worst < 1 else ""
        return f"{_NAMES[self.target]}:{_short(getattr(self, self.target))}{worst}"


def _short(number: float) -> str:
    """The shortest text that reads back as the number."""
    text = f"{number:g}"
    return text if float(text) == number else repr(float(number))
