"""What one row is given, frame after frame: the decisions of the frame policies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, final

from torch import Tensor

from eventful.motion import Look
from eventful.policies import Carry, Skip
from eventful.stream.estimate import CAUSAL, Sides

Kind = Literal["dense", "partial", "carried", "held"]
KINDS: tuple[Kind, ...] = ("dense", "partial", "carried", "held")


class Choice(NamedTuple):
    """What a frame of one row is given.

    Attributes:
        kind: What is done.
        reason: Why.
        tokens: How many tokens a partial frame computes, beside the prefix.
        estimate: Relative error of what is shown as estimated; None where nothing is estimated.
        band: Positions in raster order, first and number, of patches to compute in any case; they
            count among `tokens`, and go on at the first patch after the last.
        settle: Whether what is shown then stands for a dense output from now on.
        instead: What a frame would have been that is dense.
    """

    kind: Kind
    reason: str = ""
    tokens: int = 0
    estimate: float | None = None
    band: tuple[int, int] = (0, 0)
    settle: bool = False
    instead: Kind = "carried"


class Decision(NamedTuple):
    """What a frame of one row is given.

    Attributes:
        kind: What is done.
        reason: Why.
        look: What is seen of it against what was computed; None where nothing needs to be.
        patches: (active,) positions of the patches to compute on a partial frame.
        estimate: Relative error of what is shown as estimated, where it is.
        flushed: Whether it is dense for another reason than the policy's.
        settle: Whether what is shown then stands for a dense output.
        instead: What a dense frame would have been.
    """

    kind: Kind
    reason: str
    look: Look | None = None
    patches: Tensor | None = None
    estimate: float | None = None
    flushed: bool = False
    settle: bool = False
    instead: Kind = "carried"


def moving(decisions: Sequence[Decision]) -> list[Look | None]:
    """By what each row's output is moved before anything of it is computed."""
    return [None if d.kind in ("dense", "held") else d.look for d in decisions]


class Check(NamedTuple):
    """What a dense frame shows of what would have been shown otherwise.

    Attributes:
        shown: Relative error of the output moved, tokens recomputed before lying over it.
        held: Relative error of the last dense output as it stands.
        squares: (patches,) squared error of each patch in it.
        change: (patches,) squared change of each since the last dense frame.
        wanted: (patches,) by how much each would have asked to be recomputed.
    """

    shown: float
    held: float
    squares: Tensor
    change: Tensor
    wanted: Tensor


class Seen(NamedTuple):
    """What two dense frames show of a third between them.

    Attributes:
        error: Relative error of its output as carried from both.
        before: The same as carried from the first alone.
        squares: (patches,) squared error of each patch, carried from both.
        change: (patches,) squared change of each since the first.
        wanted: (patches,) by how much each would have asked to be recomputed.
        age: Frames since the first.
        ahead: Frames until the second.
    """

    error: float
    before: float
    squares: Tensor
    change: Tensor
    wanted: Tensor
    age: int
    ahead: int


class Plan(ABC):
    """Decides for one row of a stream."""

    looks: bool = True  # whether it needs to see frames
    survives_cuts: bool = False  # whether a scene cut brings no dense frame
    sides: Sides = CAUSAL  # where frames between dense ones are seen from

    @abstractmethod
    def begin(self, cut: bool = False) -> None:
        """A dense frame that was not asked for: the first, a scene cut, whatever was flushed."""

    @abstractmethod
    def decide(self, distance: float | None) -> Choice:
        """Choose for a frame.

        Args:
            distance: Of its picture from the dense frame's (`View.distance`); None if it shows what
                was shown last.
        """

    @abstractmethod
    def learn(self, check: Check) -> None:
        """Take in what a dense frame shows; the plan has asked for it."""

    def learn_both(self, seen: Seen) -> None:
        """Take in what dense frames on both sides of one show of it; most plans look no way on."""
        return

    def clock(self, milliseconds: float) -> None:
        """Take in what the last frame took; most plans read no clock."""
        return

    @abstractmethod
    def follow(self, before: Plan) -> None:
        """Take over what another plan has learnt of the row."""

    @property
    @abstractmethod
    def checks(self) -> int:
        """Dense frames that the estimates rest on."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that decides what comes next, for a snapshot."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""


@final
class Every(Plan):
    """A dense frame every so many; in between the last output, moved or as it is."""

    def __init__(self, policy: Carry | Skip) -> None:
        self._policy = policy
        self.looks = isinstance(policy, Carry)
        self._frames = 0

    def begin(self, cut: bool = False) -> None:
        """Count from here."""
        self._frames = 0

    def decide(self, distance: float | None) -> Choice:
        """By the count alone."""
        self._frames += 1
        if (self._frames + self._policy.phase) % self._policy.every == 0:
            return Choice("dense", "its turn")
        return Choice("carried" if self.looks and distance is not None else "held", "between")

    def learn(self, check: Check) -> None:
        """Nothing to learn."""

    def follow(self, before: Plan) -> None:
        """Go on counting."""
        if isinstance(before, Every):
            self._frames = before._frames

    @property
    def checks(self) -> int:
        """Nothing is estimated."""
        return 0

    def state(self) -> dict[str, Any]:
        """The count."""
        return {"frames": self._frames}

    def load(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self._frames = state["frames"]
