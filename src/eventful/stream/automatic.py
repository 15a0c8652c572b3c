"""The plan of `Auto`: the error held or the budget spent, where it pays."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, final

from eventful.motion import Look
from eventful.policies import Auto
from eventful.stream.costs import Costs
from eventful.stream.estimate import Estimate
from eventful.stream.plan import Check, Choice, Plan


@dataclass
class Gain:
    """What recomputed tokens are worth, from what dense frames show.

    Of the squared error of a carried frame, the share `captured[m]` lies in the m-th largest
    number of tokens by residual that may be recomputed. Recomputing them leaves

        rho(m) = sqrt(1 - kept captured[m])

    of the error, where `kept` says how much of that gain is real: recomputed tokens see keys that
    are out of date, and are carried along themselves.

    Attributes:
        captured: By number of tokens, one for each of `SHARES`.
        kept: Learnt where tokens were recomputed.
    """

    SHARES: ClassVar[tuple[float, ...]] = (1 / 32, 1 / 16, 1 / 8, 1 / 4)
    PRIOR: ClassVar[tuple[float, ...]] = (0.12, 0.20, 0.33, 0.52)
    FOLLOW: ClassVar[float] = 0.3

    captured: list[float] = field(default_factory=lambda: list(Gain.PRIOR))
    kept: float = 0.7

    def rest(self, level: int) -> float:
        """Rho of the level-th share; 1 for none."""
        if level < 0:
            return 1.0
        return math.sqrt(max(0.05, 1 - self.kept * self.captured[level]))

    def learn(self, check: Check, level: int) -> None:
        """Take in a check, and how many tokens had been recomputed on each frame before it."""
        order = check.squares[check.residual.argsort(descending=True)].cumsum(0)
        total = order[-1].item()
        if total <= 0:
            return
        for i, share in enumerate(self.SHARES):
            found = order[max(0, int(share * len(order)) - 1)].item() / total
            self.captured[i] += self.FOLLOW * (found - self.captured[i])
        if level >= 0 and check.carried > 0:
            left = min(1.5, (check.shown / check.carried) ** 2)
            real = (1 - left) / max(self.captured[level], 0.02)
            self.kept += self.FOLLOW * (min(1.2, max(-0.5, real)) - self.kept)


@final
class Automatic(Plan):
    """The plan of `Auto`: the error held, or a budget spent, where it pays.

    Each frame owes its estimated error less the error aimed at, a dense one owes less than nothing.
    A dense frame comes when another carried one would be owed for:

        debt <- max(debt + estimate - aim, -CREDIT aim)

    so that the mean comes to the aim, and the dense frames to where the error is. With a budget,
    the aim is what the budget lets be reached.

    Args:
        policy: The policy.
        costs: What frames cost.
        patches: Tokens that may be chosen.
    """

    CREDIT: ClassVar[float] = 10.0
    GROWTH: ClassVar[float] = 0.6  # error grows with age to this power
    AIM: ClassVar[float] = 0.96

    def __init__(self, policy: Auto, costs: Costs, patches: int) -> None:
        self._policy, self._costs, self._patches = policy, costs, patches
        self.estimate, self.gain = Estimate(), Gain()
        self._debt = self._credit = 0.0
        self._age = 0
        self._signal = 0.0
        self._first: float | None = None  # typical error of the first carried frame
        self._owed: list[float] = []  # estimates since the last dense frame
        self._level = -1
        self._choose()

    def begin(self, cut: bool = False) -> None:
        """Pay for a dense frame that was not asked for."""
        self._pay(1.0)
        self._dense()

    def decide(self, look: Look | None) -> Choice:
        """Weigh the frame."""
        self._age += 1
        if look is None:
            self._pay(self._costs.held / self._costs.dense)
            self._owed.append(self._owed[-1] if self._owed else 0.0)
            self._debt = self._owe(self._owed[-1])
            return Choice("held", "nothing moved", estimate=self._owed[-1])
        self._signal = self.estimate.signal(look.residual)
        error = self.estimate.error(self._signal)
        rest = error * (self.gain.rest(self._level) if self._age == 1 else 1.0)
        if self._due(rest):
            self._pay(1.0)
            self._age_at_check = self._age
            return Choice("dense", "the error is due", estimate=error)
        self._debt = self._owe(rest)
        self._owed.append(rest)
        tokens = self._tokens()
        self._pay(self._costs.share(tokens))
        return Choice("partial" if tokens else "carried", "", tokens, error)

    def _due(self, error: float) -> bool:
        if self._policy.max_error is not None:
            return self._owe(error) > 0
        share = self._policy.share or self._policy.time or 1.0
        return self._credit + share >= 1.0

    def _owe(self, error: float) -> float:
        aim = self.AIM * (self._policy.max_error or math.inf)
        return max(self._debt + error - aim, -self.CREDIT * aim)

    def _pay(self, share: float) -> None:
        earned = self._policy.share or self._policy.time or 0.0
        self._credit = min(self._credit + earned - share, 1.0)

    def _dense(self) -> None:
        aim = self.AIM * (self._policy.max_error or math.inf)
        if aim < math.inf:
            self._debt = max(self._debt - aim, -self.CREDIT * aim)
        self._owed, self._age = [], 0

    def _tokens(self) -> int:
        return 0 if self._level < 0 else int(Gain.SHARES[self._level] * self._patches)

    def learn(self, check: Check) -> None:
        """Set estimate, gain and debt right."""
        missed = self.estimate.learn(self._signal, check.shown)
        self._debt += (missed - 1) * sum(self._owed)
        self.gain.learn(check, self._level)
        self._dense()
        self._choose()

    def _choose(self) -> None:
        """Decide how many tokens to recompute between dense frames: as many as pay."""
        share = self._policy.share or self._policy.time
        options = [-1, *range(len(Gain.SHARES))]
        cost = self._cost_at if share is None else self._error_at
        self._level = min(options, key=cost)

    def _error_at(self, level: int) -> float:
        """Relative error at the budget, with so many tokens recomputed."""
        share = self._policy.share or self._policy.time or 1.0
        each = self._costs.share(0 if level < 0 else int(Gain.SHARES[level] * self._patches))
        if each >= share:
            return math.inf
        return self.gain.rest(level) * ((1 - each) / (share - each)) ** self.GROWTH

    def _cost_at(self, level: int) -> float:
        """Cost at the error aimed at, with so many tokens recomputed."""
        each = self._costs.share(0 if level < 0 else int(Gain.SHARES[level] * self._patches))
        usual = self._first or 0.5 * (self._policy.max_error or 1.0)
        apart = (self._policy.max_error or 1.0) * (1 + self.GROWTH)
        apart = max(1.0, (apart / (self.gain.rest(level) * usual)) ** (1 / self.GROWTH))
        return (1 + (apart - 1) * each) / apart

    def follow(self, before: Plan) -> None:
        """Keep what was learnt of the picture; debts and credits end with the policy."""
        if isinstance(before, Automatic):
            self.estimate, self.gain = before.estimate, before.gain
            self._age, self._signal = before._age, before._signal
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
            "numbers": [self._debt, self._credit, self._age, self._signal, self._level],
            "first": self._first,
            "owed": list(self._owed),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.estimate = Estimate(**state["estimate"])
        self.gain = Gain(**state["gain"])
        self._debt, self._credit, self._age, self._signal, self._level = state["numbers"]
        self._first, self._owed = state["first"], list(state["owed"])
