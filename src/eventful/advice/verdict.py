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

    The default error is taken where it pays; else the next larger one that does.
    """
    ordered = sorted(found, key=lambda one: (one.error != DEFAULT, one.error))
    for one in (one for one in ordered if one.error >= min(DEFAULT, found[-1].error)):
        ours, skipped = one.time.value, one.skipping_time
        if ours <= min(PAYS, BETTER * skipped):
            return Verdict(
                "auto",
                f"error:{one.error:g}",
                f"at an error of {one.error:g} it takes {_percent(ours)} of the dense time; "
                f"skipping frames takes {_percent(skipped)} for the same error",
            )
        if skipped <= PAYS:
            every = max(2, int(one.skipping.every))
            return Verdict(
                "skip",
                f"skip:{every}",
                f"skipping frames does as well: {_percent(skipped)} of the dense time at an "
                f"error of {one.error:g}, beside {_percent(ours)}",
            )
    last = ordered[-1]
    return Verdict(
        "nothing",
        None,
        f"even at an error of {last.error:g} it takes {_percent(last.time.value)} of the dense "
        f"time: too much changes from frame to frame, or too little of the model's time is spent "
        f"in the blocks",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
