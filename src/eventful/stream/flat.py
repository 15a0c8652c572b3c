"""The plan of `Auto` where every frame has to cost the same: bands in rotation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar, final

from eventful.policies import Auto
from eventful.stream.costs import Costs
from eventful.stream.estimate import Estimate
from eventful.stream.plan import Check, Choice, Plan


@final
class Flat(Plan):
    """No dense frame but the first; every frame recomputes as many tokens as it may.

    Of these, `REFRESH` go to a band of patches that moves through the frame, so that none is older
    than a round; the others to where the moved pictures miss most. What is shown then is what the
    next frame moves. After a scene cut, and while what it costs is owed, frames take the worst
    share.

    Args:
        policy: The policy, with `latency_ms`, or with a share and `worst`.
        costs: What frames cost.
        patches: Tokens that may be chosen.
        rows: Batch rows, which share a latency.
    """

    survives_cuts = True
    REFRESH: ClassVar[float] = 0.6
    FOLLOW: ClassVar[float] = 0.2
    MOST: ClassVar[float] = 4.0  # times the expected, that one frame may teach

    def __init__(self, policy: Auto, costs: Costs, patches: int, rows: int) -> None:
        self._policy, self._costs, self._patches, self._rows = policy, costs, patches, rows
        self.estimate = Estimate()
        self._next = 0  # first patch of the next band
        self._stale = 0  # patches still to be computed after a scene cut
        self._slow = 1.0  # measured over expected time
        self._computes, self._expected = True, costs.dense
        self._distance = 0.0

    @property
    def checks(self) -> int:
        """There are no dense frames to learn from."""
        return 0

    def begin(self, cut: bool = False) -> None:
        """After a cut nothing that is known is right; after a dense frame all is."""
        self._stale = self._patches if cut else 0
        self._computes, self._expected = True, self._costs.dense

    def decide(self, distance: float | None) -> Choice:
        """As many tokens as a frame may compute, whatever it shows."""
        if distance is None and not self._stale:
            self._computes = False
            return Choice("held", "nothing moved", estimate=0.0)
        share = self._share()
        tokens = min(self._patches, self._costs.tokens(share))
        error = None if distance is None else self.estimate.error(distance)
        self._computes, self._expected = tokens > 0, self._costs.of(tokens)
        self._distance = distance or 0.0
        if tokens == self._patches:
            self._stale = 0
            return Choice("dense", "it fits", estimate=error)
        if not tokens:
            return Choice("carried", "no token fits", estimate=error)
        reason = "scene cut" if self._stale else "in rotation"
        band = tokens if self._stale else max(1, round(self.REFRESH * tokens))
        first, self._next = self._next, (self._next + band) % self._patches
        self._stale = max(0, self._stale - band)
        return Choice("partial", reason, tokens, error, (first, band), settle=True)

    def _share(self) -> float:
        """Share of a dense frame's cost that this frame may take."""
        if self._policy.latency_ms is not None:
            each = self._policy.latency_ms / self._rows / self._slow
            return each / self._costs.dense
        usual = self._policy.share or self._policy.time or 1.0
        return self._policy.worst if self._stale else usual

    def clock(self, milliseconds: float) -> None:
        """Follow how fast the machine is, where a time is to be held.

        Frames that compute nothing say little of it: they only let a slow moment be forgotten.
        """
        ratio = milliseconds / self._expected if self._computes else 1.0
        self._slow += self.FOLLOW * (min(self.MOST, ratio) - self._slow)

    def learn(self, check: Check) -> None:
        """Set the estimate right, where a dense frame fits."""
        self.estimate.learn(self._distance, check.shown)

    def follow(self, before: Plan) -> None:
        """Go on with the rotation."""
        if isinstance(before, Flat):
            self._next, self._stale, self._slow = before._next, before._stale, before._slow
            self.estimate = before.estimate

    def state(self) -> dict[str, Any]:
        """Where the rotation stands."""
        return {
            "estimate": asdict(self.estimate),
            "numbers": [self._next, self._stale, self._slow],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.estimate = Estimate(**state["estimate"])
        self._next, self._stale, self._slow = state["numbers"]
