"""Frames on their way through a lookahead: waiting, seen from both sides, computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from eventful.block.state import KeysValues
from eventful.motion import Between, Look, Picture
from eventful.stream.engine import Taken
from eventful.stream.plan import Decision
from eventful.stream.stats import Report
from eventful.stream.taps import Taps


class Known(NamedTuple):
    """What is left of a dense frame once the next one is there.

    Attributes:
        number: Its place in the run.
        tokens: (1, tokens, dim) by tap.
        look: What was seen of the next one against it.
        error: Relative error of what it would have shown in the next one's place.
    """

    number: int
    tokens: Mapping[str, Tensor]
    look: Look
    error: float


class Side(NamedTuple):
    """A dense frame that others are carried from.

    Attributes:
        number: Its place in the run.
        picture: Its.
        tokens: (1, tokens, dim) by tap.
        kept: Keys and values of all its tokens, by block.
        known: The dense frame before it; None if that showed another scene.
    """

    number: int
    picture: Picture
    tokens: Mapping[str, Tensor]
    kept: Mapping[str, KeysValues]
    known: Known | None = None


class Waiting(NamedTuple):
    """A frame that has been taken in and not been computed.

    Attributes:
        number: Its place in the run.
        taken: The frame, in memory of its own.
        picture: Its.
        decision: What it is given, from what was known by then.
        seconds: Time taken so far.
    """

    number: int
    taken: Taken
    picture: Picture
    decision: Decision
    seconds: float

    @property
    def repeats(self) -> bool:
        """Whether it shows what the frame before does."""
        return self.decision.look is None

    @property
    def carried(self) -> Waiting:
        """The same frame, none of it recomputed."""
        if self.decision.patches is None:
            return self
        return self._replace(decision=self.decision._replace(kind="carried", patches=None))


class Ordered(NamedTuple):
    """A waiting frame of which it is known what it shows.

    Attributes:
        frame: The frame.
        seen: It, against the dense frames on both sides, or the one before it.
        before: The dense frame before it.
        after: The dense frame after it, where that is known.
        decision: What it is given: as many patches as it was to get, those wanted most.
    """

    frame: Waiting
    seen: Between | Look
    before: Side
    after: Side | None
    decision: Decision

    @property
    def kept(self) -> Mapping[str, KeysValues]:
        """The keys and values of the nearer side, which recomputed tokens attend to."""
        far = isinstance(self.seen, Between) and self.seen.age > self.seen.ahead
        return self.after.kept if far and self.after is not None else self.before.kept

    def tokens(self, taps: Taps) -> dict[str, Tensor]:
        """(1, tokens, dim) by tap, before any is recomputed."""
        if isinstance(self.seen, Between) and self.after is not None:
            return taps.between(self.before.tokens, self.after.tokens, self.seen)
        assert isinstance(self.seen, Look)
        return taps.since(self.before.tokens, self.seen)


class Done(NamedTuple):
    """A frame that has been computed.

    Attributes:
        number: Its place in the run.
        output: What the model returns.
        report: What it took.
        decision: What it was given.
        seconds: Wall time of it all.
    """

    number: int
    output: Any
    report: Report
    decision: Decision
    seconds: float
