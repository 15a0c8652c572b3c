"""The plan of `Auto`: the error held or the budget spent, where it pays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, final

from eventful.policies import Auto
from eventful.stream.budget import Budget, Part
from eventful.stream.costs import Costs
from eventful.stream.estimate import CAUSAL, Estimate, Sides
from eventful.stream.gain import (
    GROWTH,
    HELD,
    LONGEST,
    SHARES,
    Gain,
    best_for_budget,
    best_for_error,
    cost_at,
)
from eventful.stream.plan import Check, Choice, Plan, Seen

_ROUNDING = 1e-9  # of sums of shares
OVERDUE = 1e3  # times the index of a stream that has not been checked for long


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

    Frames that may wait for the dense frame after them (`Sides`) owe what both sides leave; until
    that one comes, as if it came next.

    Args:
        policy: The policy.
        costs: What frames cost.
        patches: Tokens that may be chosen.
        ahead: Frames that may wait; 0 for none.
        budget: Shared with other streams; None for one of its own.

    Raises:
        ValueError: The budget is below what a frame costs of which nothing is computed.
    """

    AIM: ClassVar[float] = 0.97
    CREDIT: ClassVar[float] = 3.0
    TRUST: ClassVar[int] = 8  # frames that the prior vouches for
    FOLLOW: ClassVar[float] = 0.3

    def __init__(
        self,
        policy: Auto,
        costs: Costs,
        patches: int,
        ahead: int = 0,
        budget: Budget | None = None,
    ) -> None:
        self._policy, self._costs, self._patches = policy, costs, patches
        self.sides = Sides(ahead)
        self._share = policy.share or policy.time
        self._aim = self.AIM * policy.max_error if policy.max_error is not None else None
        least = min(map(self._cost, (0, HELD)[: 1 if ahead else 2]))
        if self._share is not None and self._share <= least:
            raise ValueError(
                f"{policy} asks for a share of {self._share:g} of a dense frame, and a frame "
                f"that is not dense takes at least {least:.3f} already"
            )
        self.estimate, self.gain = Estimate(), Gain()
        self._debt = self._credit = 0.0
        self._age, self._reach = 0, self.TRUST
        self._errors: list[float] = []  # estimates from the side before, since the last dense frame
        self._distance: float | None = None  # of the last frame looked at
        self._shown = 0.0  # estimated error of what was shown last
        self._usual = 0.0  # error of the first frame after a dense one; 0 before any
        self._level = 0
        self._part: Part | None = None
        self._dense()
        self._choose()
        if budget is not None:
            self._part = Part(budget, self._earned, costs)

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
            self._pay(cost_at(HELD, self._costs, self._patches))
            self._errors.append(self._shown)
            return Choice("held", "nothing moved", estimate=self._shown)
        self._distance = distance
        error = self.estimate.error(distance) * self.gain.rest(self._level, self.sides)
        if self._age == 1:
            step = error / self.gain.rest(self._level, self.sides) - self._usual
            self._usual += step * (self.FOLLOW if self._usual else 1.0)
        part = 0.0 if self._part is None else self._granted(self._part, error)
        reason = self._due(error) if self._part is None else "it saves most" if part == 1 else ""
        tokens = 0 if self._level == HELD else int(SHARES[self._level] * self._patches)
        kind = "held" if self._level == HELD else "partial" if tokens else "carried"
        if reason:
            return Choice("dense", reason, instead=kind)
        more, cost, why = self._costs.tokens(part), self._cost(self._level), "between"
        if more >= max(1, tokens, SHARES[2] * self._patches):  # what is left of a round
            level = max(n for n, share in enumerate(SHARES) if share * self._patches <= more)
            error *= min(1.0, self.gain.rest(level) / self.gain.rest(self._level))
            kind, why, tokens, cost = "partial", "what is left", more, self._costs.share(more)
        self._shown = error
        self._pay(cost)
        self._errors.append(error)
        return Choice(kind, why, tokens, error)

    def _granted(self, part: Part, error: float) -> float:
        """Share of a dense frame's cost that a shared budget grants a frame."""
        index = Budget.index(self._age, error, sum(self._errors) + error)
        index *= self.gain.on_moving(self._level)  # which most tasks are about
        if self._age >= LONGEST:
            index *= OVERDUE
        return part.grant(index, self._cost(self._level))

    def _cost(self, level: int) -> float:
        return cost_at(level, self._costs, self._patches, self.sides)

    def _due(self, error: float) -> str:
        """Why a frame has to be dense; empty if it need not be."""
        if self._age >= (self._reach if self._aim is not None else LONGEST):
            return "a check is due"
        if self._aim is not None:
            owed = self._owed([*self._errors, error], self.sides)
            return "the error is due" if owed > 0 else ""
        return "the budget allows it" if self._credit >= -_ROUNDING else ""

    @property
    def _earned(self) -> float:
        return self._share or 0.0

    def _pay(self, cost: float) -> None:
        """Enter what a frame costs."""
        self._credit = min(self._credit + self._earned - cost, self._earned)
        if self._part is not None:
            self._part.pay(cost)

    def _owed(self, errors: Sequence[float], sides: Sides) -> float:
        """The debt once the frames since the last dense one are shown as these errors say."""
        debt = self._debt
        if self._aim is not None:
            owed = [error - self._aim for error in sides.shown(errors)]
            for more in [sum(owed)] if sides.ahead else owed:  # from both sides they come together
                debt = self._within(debt + more)
        return debt

    def _within(self, debt: float) -> float:
        assert self._aim is not None
        return min(self._aim, max(-self.CREDIT * self._aim, debt))

    def _dense(self) -> None:
        """Enter a dense frame, and what was shown before it if that is not known better."""
        self._debt = self._owed(self._errors, CAUSAL)
        if self._aim is not None:
            self._debt = self._within(self._debt - self._aim)
        self._pay(1.0)
        self._age, self._errors, self._shown, self._distance = 0, [], 0.0, None

    def learn(self, check: Check) -> None:
        """Set estimate and gain right, and choose again."""
        shown = self.sides.shown(self._errors)
        self._debt, self._errors = self._owed(self._errors, self.sides), []
        if self._distance is not None:
            seen = check.held / self.gain.held if self._level == HELD else check.shown
            missed = self.estimate.learn(self._distance, seen)
            self._reach = min(LONGEST, max(self.TRUST, 2 * self._age))
            if self._aim is not None:
                self._debt = self._within(self._debt + (math.sqrt(missed) - 1) * sum(shown))
        if not self.sides.ahead:
            self.gain.learn(check.squares, check.wanted, check.change)
            self.gain.learn_held(self._age, check.squares, check.change)
        self._dense()
        self._choose()

    def learn_both(self, seen: Seen) -> None:
        """Set right what both sides together are worth."""
        after = seen.before * (seen.ahead / seen.age) ** GROWTH
        self.sides = self.sides.learned(seen.before, after, seen.error)
        self.gain.learn(seen.squares, seen.wanted, seen.change)

    def _choose(self) -> None:
        """Decide what to do between dense frames: what pays most."""
        known = self._costs, self.gain, self._patches, self.sides
        if self._share is not None:
            self._level = best_for_budget(self._share, *known)
        elif self._aim is not None:
            usual = self._usual or self._aim
            self._level = best_for_error(self._aim, usual, *known)

    def follow(self, before: Plan) -> None:
        """Keep what was learnt of the picture; debts and credits end with the policy."""
        if isinstance(before, Automatic):
            self.estimate, self.gain, self._usual = before.estimate, before.gain, before._usual
            self._age, self._distance, self._shown = before._age, before._distance, before._shown
            self._reach = before._reach
            self.sides = replace(before.sides, ahead=self.sides.ahead)
            if self._part is not None:
                self._part.owes, self._errors = 0.0, before._errors  # no dense frame has come
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
            "last": [self._distance, self._shown, self._reach],
            "errors": self._errors,
            "sides": asdict(self.sides),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.estimate, self.gain = Estimate(**state["estimate"]), Gain(**state["gain"])
        self._debt, self._credit, self._age, self._usual, self._level = state["numbers"]
        self._distance, self._shown, self._reach = state["last"]
        self._errors, self.sides = state["errors"], Sides(**state["sides"])
        if self._part is not None:
            self._part.owes = 0.0
