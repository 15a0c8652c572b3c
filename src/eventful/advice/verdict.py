"""Which policy to use: a word, the reason, and the setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eventful.advice.expectation import Expectation

PAYS = 0.75  # of the dense model's time, above which saving is not worth the error
BETTER = 0.95  # of the time of skipping, above which skipping does as well
DEFAULT = 0.15

Use = Literal["auto", "skip", "nothing"]


@dataclass(frozen=True)
class Verdict:
    """What to do.

    Attributes:
        use: "auto", "skip" (frames), or "nothing": the dense model as it is.
        policy: The text of a policy; None for nothing.
        reason: Why, in a sentence.
    """

    use: Use
    policy: str | None
    reason: str


def verdict(found: Sequence[Expectation]) -> Verdict:
    """Judge what is expected at some errors, in rising order.

    The default error is taken where it pays; else the next larger one that does. Skipping is taken
    where running every k-th frame, k being whole, holds the error in no more time.
    """
    at = [one for one in found if one.error >= DEFAULT] or [found[-1]]
    for one in at:
        ours, every = one.time.value, max(1, int(one.skipping.every))
        skipped = one.skipping_time * one.skipping.every / every
        beside = f"1 frame of {every}" if every > 1 else "every frame, since none can be left out"
        if ours <= min(PAYS, BETTER * skipped):
            return Verdict(
                "auto",
                f"error:{one.error:g}",
                f"at an error of {one.error:g} it takes {_percent(ours)} of the dense time; "
                f"skipping frames would need {beside}, {_percent(skipped)}",
            )
        if every > 1 and skipped <= PAYS:
            return Verdict(
                "skip",
                f"skip:{every}",
                f"at an error of {one.error:g}, running the model on {beside} takes "
                f"{_percent(skipped)} of the dense time, and deciding frame by frame "
                f"{_percent(ours)}",
            )
    last = at[-1]
    return Verdict(
        "nothing",
        None,
        f"even at an error of {last.error:g} it takes {_percent(last.time.value)} of the dense "
        f"time; too much changes from frame to frame, or too little of the time is spent in the "
        f"model's blocks",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
