"""Which kind each frame is: decided from pixels, a row each, before the first block."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eventful.motion import Flow, Look, Picture, View, rank
from eventful.policies import Auto, Carry, FramePolicy, Skip
from eventful.stream.automatic import Automatic
from eventful.stream.budget import Budget
from eventful.stream.costs import Costs
from eventful.stream.cuts import SceneCuts, picture_change
from eventful.stream.flat import Flat
from eventful.stream.plan import Check, Choice, Decision, Every, Plan
from eventful.stream.stats import FrameRow
from eventful.stream.taps import Compared

THUMBNAIL = 16, 16  # size at which pictures are compared to find scene cuts


class Schedule:
    """The plans and the pictures of all rows of a stream.

    Args:
        policy: What decides.
        grid: Height and width of the token grid.
        cuts: How scene cuts are found, or None.
        costs: What frames cost; for `Auto`.
        ahead: Frames that may wait for the dense one after them.
        budget: Shared with other streams; for `Auto`.
    """

    def __init__(
        self,
        policy: FramePolicy,
        grid: tuple[int, int],
        cuts: SceneCuts | None,
        costs: Costs | None = None,
        ahead: int = 0,
        budget: Budget | None = None,
    ) -> None:
        self.policy, self.costs, self._ahead = policy, costs, ahead
        self._budget = budget
        self._grid, self._cuts = grid, cuts
        self._flow = None if isinstance(policy, Skip) else Flow()
        self.plans: list[Plan] = []
        self._views: list[View | None] = []
        self._thumbnails: Tensor | None = None
        self._pictures: list[Picture | None] = []
        self._histories: list[Any] = []
        self._ages: list[int] = []

    @staticmethod
    def keeps_tokens(policy: FramePolicy) -> bool:
        """Whether a policy may ask for partial frames, which need all keys and values."""
        return isinstance(policy, Auto)

    @staticmethod
    def sees(policy: FramePolicy) -> bool:
        """Whether a policy needs the pictures of frames."""
        return not isinstance(policy, Skip)

    @staticmethod
    def check_waits(policy: FramePolicy, budget: Budget | None = None) -> None:
        """Refuse a policy under which frames cannot wait for a dense one.

        Raises:
            ValueError: It has no dense frames to wait for, or looks at no picture, or shares a
                budget, which is spent on frames as they come.
        """
        if budget is not None:
            raise ValueError("lookahead does not go with a shared budget; set stream.budget = None")
        if not policy.waits:
            why = "has no dense frames to wait for" if Schedule.sees(policy) else "sees no picture"
            raise ValueError(
                f"{policy} {why}; with lookahead use Auto with share, time or max_error, or Carry"
            )

    def _plan(self) -> Plan:
        if isinstance(self.policy, Carry | Skip):
            return Every(self.policy)
        assert isinstance(self.policy, Auto)
        assert self.costs is not None
        patches = self._grid[0] * self._grid[1]
        if self.policy.latency_ms is not None or self.policy.worst < 1:
            return Flat(self.policy, self.costs, patches, len(self._views))
        return Automatic(self.policy, self.costs, patches, self._ahead, self._budget)

    def set_costs(self, costs: Costs) -> None:
        """Tell what frames cost, once that is known."""
        self.costs = costs

    def change(self, policy: FramePolicy, ahead: int, budget: Budget | None) -> None:
        """Decide by another policy, way ahead or budget; what is known of the rows stays."""
        self.policy, self._ahead, self._budget = policy, ahead, budget
        for row, plan in enumerate(self.plans):
            new = self._plan()
            new.follow(plan)
            self.plans[row] = new

    def start(self, rows: int) -> None:
        """Begin with so many rows, of which nothing is known."""
        cuts = self._cuts or SceneCuts()
        self.plans, self._views = [], [None] * rows
        self._histories = [cuts.new_history() for _ in range(rows)]
        self._thumbnails = None
        self._ages = [0] * rows

    def decide(self, images: Tensor | None, flush: Mapping[int, str]) -> list[Decision]:
        """Choose for every row of a frame.

        Args:
            images: (batch, channels, height, width) in [0, 1]; None where the policy needs none.
            flush: Rows to compute in full whatever the policy, and why.
        """
        cut = self._see(images)
        found = []
        for row, view in enumerate(self._views):
            reason = flush.get(row) or ("scene cut" if row in cut else None)
            if self.plans and reason is not None:
                self.plans[row].begin(reason == "scene cut")
            survives = reason == "scene cut" and self.plans[row].survives_cuts
            if reason is not None and not survives:
                found.append(Decision("dense", reason, flushed=True))
            else:
                found.append(self._choose(self.plans[row], row, view))
        return found

    def _choose(self, plan: Plan, row: int, view: View | None) -> Decision:
        if not plan.looks or view is None:
            return _decision(plan.decide(None))
        picture = self.picture(row)
        distance = None if view.still(picture) else view.distance(picture)
        choice = plan.decide(distance)
        sees = choice.kind == "partial" or (choice.kind != "held" and distance is not None)
        return _decision(choice, view.look(picture) if sees else None)

    def _see(self, images: Tensor | None) -> set[int]:
        """Take a frame's pictures in, and say which rows show another scene."""
        self._pictures = []
        if images is None or self._flow is None:
            return set()
        small = self._flow.smaller(images)
        self._pictures = [*Picture.each(small)]
        if self._cuts is None:
            return set()
        before = self._thumbnails
        now = F.interpolate(small.float(), THUMBNAIL, mode="area").flatten(2).mT
        self._thumbnails = now
        if before is None or before.shape != now.shape:
            return set()
        moved = picture_change(before, now).tolist()
        rows = enumerate(zip(moved, self._histories, strict=True))
        cut = {row for row, (m, history) in rows if self._cuts.is_cut(m, history)}
        for m, history in zip(moved, self._histories, strict=True):
            history.append(m)
        return cut

    def picture(self, row: int) -> Picture:
        """The picture of a row on the frame that is being decided about."""
        picture = self._pictures[row]
        assert picture is not None
        return picture

    def done(self, row: int, decision: Decision, compared: Compared | None) -> None:
        """Take note of a row that has been run as decided.

        Args:
            row: The row.
            decision: Its.
            compared: What a dense frame showed of what would have been shown.
        """
        while len(self.plans) <= row:
            self.plans.append(self._plan())
        if compared is not None and decision.look is not None:
            self.plans[row].learn(Check(*compared, wanted=rank(decision.look).flatten()))
        if self._flow is None:
            return
        view, picture = self._views[row], self.picture(row)
        self._pictures[row] = None  # the view has it, where it is remembered
        if decision.kind == "dense" or view is None:
            self._views[row] = View.of(self._flow, self._grid, picture)
            return
        if decision.look is None:
            return
        view.saw(picture, decision.look)
        if decision.patches is not None:
            mask = picture.image.new_zeros(1, self._grid[0] * self._grid[1], dtype=torch.bool)
            mask = mask.index_fill(1, decision.patches, True).unflatten(1, self._grid)
            view.computed(picture, decision.look, mask)
            if decision.settle:
                brought = decision.look.residual[None].masked_fill(mask, 0)[..., None]
                self._views[row] = View.of(self._flow, self._grid, picture, brought)

    def seen(self, row: int) -> Picture:
        """The picture of a row's last dense frame."""
        view = self._views[row]
        assert view is not None
        return Picture(view.pixels, view.grey)

    def look(self, row: int) -> Look:
        """See a row of the frame that is being decided about against its last dense one."""
        view = self._views[row]
        assert view is not None
        return view.look(self.picture(row))

    def view_of(self, picture: Picture) -> View:
        """Something to see other frames against; nothing of it is remembered here."""
        assert self._flow is not None
        return View.of(self._flow, self._grid, picture)

    def clock(self, milliseconds: float) -> None:
        """Tell the plans what a frame took, a row."""
        for plan in self.plans:
            plan.clock(milliseconds / len(self.plans))

    def row_report(
        self, row: int, decision: Decision, tokens: int, compared: Compared | None
    ) -> FrameRow:
        """What is told of a row."""
        self._ages[row] = 0 if decision.kind == "dense" else self._ages[row] + 1
        estimate = decision.estimate
        if decision.kind == "dense" and isinstance(self.policy, Auto):
            estimate = 0.0
        return FrameRow(
            decision.kind,
            decision.reason,
            tokens,
            estimate,
            None if compared is None else compared.instead(decision.instead),
            self.plans[row].checks,
            self._ages[row],
        )

    def tensors(self) -> dict[str, Tensor]:
        """All pictures that are remembered, by name."""
        named = {} if self._thumbnails is None else {"thumbnails": self._thumbnails}
        for row, view in enumerate(self._views):
            if view is not None:
                named |= {f"{row}:{name}": tensor for name, tensor in view.tensors().items()}
        return named

    def state(self) -> dict[str, Any]:
        """Everything else that decides what comes next, for a snapshot."""
        return {
            "plans": [plan.state() for plan in self.plans],
            "histories": [list(history) for history in self._histories],
            "ages": list(self._ages),
            "costs": None if self.costs is None else self.costs.to_dict(),
        }

    def load(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` and `tensors` gave."""
        self.start(len(state["histories"]))
        if state["costs"] is not None:
            self.costs = Costs(**state["costs"])
        self.plans = [self._plan() for _ in state["plans"]]
        for plan, saved in zip(self.plans, state["plans"], strict=True):
            plan.load(deepcopy(saved))
        for history, saved in zip(self._histories, state["histories"], strict=True):
            history.extend(saved)
        self._thumbnails, self._ages = tensors.get("thumbnails"), list(state["ages"])
        for row in range(len(self._views)):
            own = {
                name.partition(":")[2]: tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{row}:")
            }
            if own and self._flow is not None:
                self._views[row] = View(self._flow, self._grid, **own)


def _decision(choice: Choice, look: Look | None = None) -> Decision:
    """What a plan has chosen, with what was seen of the frame."""
    patches = None
    if choice.kind == "partial" and look is not None:
        patches = chosen(rank(look).flatten(), choice)
    return Decision(
        choice.kind,
        choice.reason,
        look,
        patches,
        choice.estimate,
        settle=choice.settle,
        instead=choice.instead,
    )


def chosen(wanted: Tensor, choice: Choice) -> Tensor:
    """The patches (active,) of a partial frame, ascending: its band, and those wanted most.

    Example:
        >>> wanted = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.3])
        >>> chosen(wanted, Choice("partial", tokens=3, band=(4, 2))).tolist()
        [0, 1, 4]
    """
    first, count = choice.band
    band = torch.arange(first, first + count, device=wanted.device) % len(wanted)
    wanted = wanted.index_fill(0, band, torch.inf)
    return wanted.topk(choice.tokens).indices.sort().values
