"""The plan of `Auto`: the error held or the budget spent, where it pays."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, ClassVar, final

from eventful.policies import Auto
from eventful.stream.costs import Costs
from eventful.stream.estimate import Estimate
from eventful.stream.gain import (
    HELD,
    LONGEST,
    SHARES,
    Gain,
    best_for_budget,
    best_for_error,
    cost_at,
)
from eventful.stream.plan import Check, Choice, Plan

_ROUNDING = 1e-9  # of sums of shares


@final
class Automatic(Plan):
    """Dense frames where the error is due, or where the budget allows; tokens where they pay.

    *An error.* Each frame owes its estimated error less the error aimed at, a dense one owes less
    than nothing, and a dense frame comes when another moved one would leave something owed:

        debt <- clip(debt + estimate - aim, -CREDIT aim, aim)

    so that the mean comes to the aim. What a check then shows corrects the estimates since the one
    before; and none comes later than after twice the frames that the last one vouches for, since
    the picture's distance saturates. *A budget.* Each frame earns its share and pays what it
    costs; a dense frame comes when the last one is paid for.

    Either way, what the frames between show is chosen at every dense frame (`gain`): the output
    moved, with how many tokens recomputed, or as it is.

    Args:
        policy: The policy.
        costs: What frames cost.
        patches: Tokens that may be chosen.

    Raises:
        ValueError: The budget is below what a frame costs of which nothing is computed.
    """

    AIM: ClassVar[float] = 0.97
    CREDIT: ClassVar[float] = 3.0
    TRUST: ClassVar[int] = 8  # frames that the prior vouches for
    FOLLOW: ClassVar[float] = 0.3

    def __init__(self, policy: Auto, costs: Costs, patches: int) -> None:
        self._policy, self._costs, self._patches = policy, costs, patches
        self._share = policy.share or policy.time
        self._aim = self.AIM * policy.max_error if policy.max_error is not None else None
        least = min(cost_at(level, costs, patches) for level in (0, HELD))
        if self._share is not None and self._share <= least:
            raise ValueError(
                f"{policy} asks for a share of {self._share:g} of a dense frame, and a frame "
                f"that is not dense takes at least {least:.3f} already"
            )
        self.estimate, self.gain = Estimate(), Gain()
        self._debt = self._credit = 0.0
        self._age, self._reach = 0, self.TRUST
        self._owed = 0.0  # estimates since the last dense frame, and up to it
        self._distance: float | None = None  # of the last frame looked at
        self._shown = 0.0  # estimated error of what was shown last
        self._usual = 0.0  # error of the first frame after a dense one; 0 before any
        self._level = 0
        self._dense()
        self._choose()

    def begin(self, cut: bool = False) -> None:
        """Pay for a dense frame that was not asked for."""
        if cut:
            self.estimate.cut()
        self._reach = self.TRUST
        self._dense()

    def decide(self, distance: float | None) -> Choice:
        """Weigh the frame."""
        self._age += 1
        if distance is None:
            self._pay(cost_at(HELD, self._costs, self._patches), self._shown)
            return Choice("held", "nothing moved", estimate=self._shown)
        self._distance = distance
        error = self.estimate.error(distance) * self.gain.rest(self._level)
        if self._age == 1:
            step = error / self.gain.rest(self._level) - self._usual
            self._usual += step * (self.FOLLOW if self._usual else 1.0)
        reason = self._due(error)
        tokens = 0 if self._level == HELD else int(SHARES[self._level] * self._patches)
        kind = "held" if self._level == HELD else "partial" if tokens else "carried"
        if reason:
            return Choice("dense", reason, instead=kind)
        self._shown = error
        self._pay(cost_at(self._level, self._costs, self._patches), error)
        return Choice(kind, "between", tokens, error)

    def _due(self, error: float) -> str:
        """Why a frame has to be dense; empty if it need not be."""
        if self._age >= (self._reach if self._aim is not None else LONGEST):
            return "a check is due"
        if self._aim is not None:
            return "the error is due" if self._debt + error > self._aim else ""
        return "the budget allows it" if self._credit >= -_ROUNDING else ""

    @property
    def _earned(self) -> float:
        return self._share or 0.0

    def _pay(self, cost: float, error: float) -> None:
        """Enter a frame's cost and its error."""
        self._credit = min(self._credit + self._earned - cost, self._earned)
        self._owed += error
        if self._aim is not None:
            self._owe(error - self._aim, self._aim)

    def _owe(self, error: float, aim: float) -> None:
        self._debt = min(aim, max(-self.CREDIT * aim, self._debt + error))

    def _dense(self) -> None:
        self._pay(1.0, 0.0)
        self._age, self._owed, self._shown, self._distance = 0, 0.0, 0.0, None

    def learn(self, check: Check) -> None:
        """Set estimate and gain right, and choose again."""
        if self._distance is not None:
            shown = check.held / self.gain.held if self._level == HELD else check.shown
            missed = self.estimate.learn(self._distance, shown)
            self._reach = min(LONGEST, max(self.TRUST, 2 * self._age))
            if self._aim is not None:
                self._owe((math.sqrt(missed) - 1) * self._owed, self._aim)
        self.gain.learn(self._age, check.squares, check.wanted, check.change)
        self._dense()
        self._choose()

    def _choose(self) -> None:
        """Decide what to do between dense frames: what pays most."""
        if self._share is not None:
            self._level = best_for_budget(self._share, self._costs, self.gain, self._patches)
        elif self._aim is not None:
            usual = self._usual or self._aim
            self._level = best_for_error(self._aim, usual, self._costs, self.gain, self._patches)

    def follow(self, before: Plan) -> None:
        """Keep what was learnt of the picture; debts and credits end with the policy."""
        if isinstance(before, Automatic):
            self.estimate, self.gain, self._usual = before.estimate, before.gain, before._usual
            self._age, self._distance, self._shown = before._age, before._distance, before._shown
            self._reach = before._reach
            self._choose()

    @property
    def checks(self) -> int:
        """Dense frames that the estimates rest on."""
        return self.estimate.checks

    def state(self) -> dict[str, Any]:
        """Everything learnt and owed."""
        return {
            "estimate": asdict(self.estimate),
            "gain": asdict(self.gain),
            "numbers": [self._debt, self._credit, self._age, self._usual, self._level],
            "last": [self._distance, self._shown, self._reach, self._owed],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.estimate, self.gain = Estimate(**state["estimate"]), Gain(**state["gain"])
        self._debt, self._credit, self._age, self._usual, self._level = state["numbers"]
        self._distance, self._shown, self._reach, self._owed = state["last"]
