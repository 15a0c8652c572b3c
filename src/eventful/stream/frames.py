"""Frames under frame policies: dense, partial, carried and held, a row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from eventful.block.bindings import binding
from eventful.block.state import BlockState, Pass
from eventful.counting import Observer, Operations
from eventful.ops import Index
from eventful.policies import Auto, FramePolicy
from eventful.runtimes.passes import Passes
from eventful.stream import snapshots
from eventful.stream.bound import Bound, now
from eventful.stream.budget import Budget
from eventful.stream.costs import Costs, check_costs, unit_for
from eventful.stream.cuts import SceneCuts
from eventful.stream.engine import Asked, Engine, Taken
from eventful.stream.layout import (
    Layout,
    StatedModel,
    linked_blocks,
    read_blocks,
    reader_norm,
    token_grid,
)
from eventful.stream.measure import Measured, counted_costs
from eventful.stream.outputs import Form, copied, fixed
from eventful.stream.plan import Decision, moving
from eventful.stream.schedule import Schedule
from eventful.stream.stats import Report
from eventful.stream.taps import Compared, Taps


class Frames(Engine):
    """Runs frames as a schedule decides, before the first block.

    Args:
        bound: The model.
        policy: What decides.
        scene_cuts: How they are found, or None.
        check: Hold blocks to their originals on first frames.
        state_dtype: What tokens, keys and values are kept in; None keeps them as they come.
        costs: What frames cost; None finds out where the policy asks for it.
        passes: Runs frames after the first in a runtime; None leaves them to PyTorch.
        budget: Shared with other streams, or None.
    """

    def __init__(
        self,
        bound: Bound,
        policy: FramePolicy,
        scene_cuts: SceneCuts | None,
        check: bool,
        state_dtype: torch.dtype | None,
        costs: Costs | None,
        passes: Passes | None = None,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(bound, check)
        check_costs(policy, costs)
        self.policy, self.budget = policy, budget
        self._cuts, self.state_dtype, self._told = scene_cuts, state_dtype, costs
        self._passes, self._ahead = passes, 0
        self._linked: frozenset[str] = frozenset()
        self._schedule: Schedule | None = None
        self._taps: Taps | None = None
        self._last: Any = None
        self._rows, self._running = 0, False
        self.form: Form | None = None  # of what the model returns of a row; None runs frames alone
        self._computed: Tensor | None = None
        self.measured = Measured()

    @property
    def rows(self) -> int:
        """Batch rows of a frame; 0 before the first."""
        return self._rows

    @property
    def schedule(self) -> Schedule:
        """What decides, once there was a frame."""
        assert self._schedule is not None
        return self._schedule

    @property
    def taps(self) -> Taps:
        """What is known of the blocks' outputs, once there was a frame."""
        assert self._taps is not None
        return self._taps

    @property
    def keeps(self) -> bool:
        """Whether keys and values are kept."""
        return Schedule.keeps_tokens(self.policy)

    @property
    def costs(self) -> Costs | None:
        """What frames cost, once it is known."""
        return self._told if self._schedule is None else self._schedule.costs

    @property
    def layout(self) -> Layout | None:
        """How the model's blocks hang together, once the first frame has told it."""
        if (taps := self._taps) is None:
            return None
        return Layout(taps.grid, taps.prefix, tuple(taps.norms), self._linked, taps.suffix)

    def accepts(self, policy: FramePolicy) -> bool:
        """Whether what is remembered serves another policy too."""
        alike = (Schedule.keeps_tokens, Schedule.sees, lambda p: self._told or unit_for(p))
        return all(needs(policy) == needs(self.policy) for needs in alike)

    def set_policy(self, policy: FramePolicy) -> None:
        """Decide by another policy from the next frame on; what is known of the rows stays."""
        check_costs(policy, self._told)
        self._set(policy, self._ahead, self.budget)

    def set_budget(self, budget: Budget | None) -> None:
        """Share another budget from the next frame on, or none."""
        self._set(self.policy, self._ahead, budget)

    def look_ahead(self, frames: int) -> None:
        """Let so many frames wait for the dense one after them; 0 lets none.

        Raises:
            ValueError: The policy has none to wait for, looks at no picture, or shares a budget.
        """
        self._set(self.policy, frames, self.budget)

    def _set(self, policy: FramePolicy, ahead: int, budget: Budget | None) -> None:
        if ahead:
            Schedule.check_waits(policy, budget)
        self.policy, self._ahead, self.budget = policy, ahead, budget
        if self._schedule is not None:
            self._schedule.change(policy, ahead, budget)

    def first(self, taken: Taken, reason: str) -> tuple[Any, Report]:
        """Compute a frame in full, and find out how the model's blocks hang together."""
        x, images, inputs = taken
        self._running = False
        with self.bound.fresh_states():
            work = self.bound.frame.work = self.work(None, None)
            output, seconds, observer = self.bound.observe(x, inputs, self._check)
            assert work.index is not None
            rows = self._check_rows(len(work.index.counts), x)
            layout = self._found(x, work, output, observer, images is not None)
            grid, taps = layout.grid, layout.taps
            if observer.written & set(taps):  # what was noted has been written over
                work = self.bound.frame.work = self.work(None, frozenset(taps))
                output, _ = self.bound.run(x, inputs)
            schedule = Schedule(self.policy, grid, self._cuts, self._told, self._ahead, self.budget)
            schedule.start(rows)
            decisions = schedule.decide(images, dict.fromkeys(range(rows), reason))
        self._running = True
        self._rows, self._linked = rows, layout.linked
        norms = {name: reader_norm(self.bound, name) for name in taps}
        self._taps = Taps(layout.prefix, grid, norms, layout.suffix)
        self._taps.start(work.outputs, self.state_dtype)
        self.bound.account.outside = self._outside(observer)
        self.bound.account.measure(self._taps.tokens)
        self._hand_over(x, inputs, work, output)
        self._end(output, inputs)
        if isinstance(self.policy, Auto):
            schedule.set_costs(self._told or self._find_costs(x, images, inputs))
        self._schedule = schedule
        for row, decision in enumerate(decisions):
            schedule.done(row, decision, None)
        self.bound.frame.work = None
        self.note(decisions)
        self.form = Form.of(output) if rows == 1 else None
        return output, self.report(seconds, decisions, [None] * self._rows)

    def _found(self, x: Tensor, work: Pass, output: Any, observer: Observer, moves: bool) -> Layout:
        """How the model's blocks hang together, which it states or a first frame shows."""
        if isinstance(self.bound.module, StatedModel):
            return self.bound.module.layout
        first = next(iter(self.bound.blocks.values()))
        assert work.index is not None
        prefix, suffix = first.prefix_tokens, first.suffix_tokens
        grid = token_grid(self.bound, x, work.index.tokens - prefix - suffix, moves)
        linked = linked_blocks(work, observer)
        taps = read_blocks(self.bound, work, output, observer, linked)
        return Layout(grid, prefix, tuple(taps), linked, suffix)

    def _outside(self, observer: Observer) -> int:
        """Operations outside the blocks."""
        if isinstance(self.bound.module, StatedModel):
            return self._rows * self.bound.module.outside
        return observer.total

    def _hand_over(self, x: Tensor, inputs: Mapping[str, Any], work: Pass, output: Any) -> None:
        """Make a runtime's graphs, if there is one, and hold them to what PyTorch computed."""
        if self._passes is None:
            return
        if self.bound.changed:
            self._passes.forget()
        assert self._taps is not None
        taps, linked = frozenset(self._taps.norms), self._linked
        first = {name: y for name, y in work.outputs.items() if name in taps}
        work = replace(work, taps=taps, linked=linked, outputs=first, inputs={})
        if self._check:
            self._passes.check(x, inputs, work, output)

    def work(self, index: Index | None, taps: frozenset[str] | None) -> Pass:
        """A pass over some tokens; None stands for all of a first frame."""
        linked = frozenset() if index is None else self._linked
        return Pass(index, self.keeps, linked, taps=taps, state_dtype=self.state_dtype)

    def _end(self, output: Any, inputs: Mapping[str, Any]) -> None:
        """Let go of the pass, and keep the output for frames on which nothing moves."""
        self.bound.frame.work = None
        self._last = copied(output) if fixed(inputs) else None  # else it depends on what changes

    def _find_costs(self, x: Tensor, images: Tensor | None, inputs: Mapping[str, Any]) -> Costs:
        """Count operations where a share of them is asked for; else measure time."""
        assert self._taps is not None
        repeats = self._last is not None and self._rows == 1  # rows are hardly ever held at once
        if isinstance(self.policy, Auto) and self.policy.share is not None:
            return counted_costs(self.bound.account, self._taps.special, self._rows, repeats)
        assert images is not None
        repeat = partial(copied, self._last) if repeats else None
        alone = self._rows > 1 or self._passes is not None or not fixed(inputs)
        args = self.bound, self.compute, x, images, inputs, self._taps, self._linked, repeat
        return self.measured.costs(*args, alone=alone)

    def run(self, taken: Taken, flush: Mapping[int, str], number: int) -> tuple[Any, Report]:
        """Compute a frame as the schedule decides."""
        return self.run_asked(self.ask(taken, flush))

    def ask(self, taken: Taken, flush: Mapping[int, str]) -> Asked:
        """Take a frame in, and decide what to do with it; `run_asked` or `answer` is to follow."""
        self._running = True
        start = now(taken.x)
        decisions = self.schedule.decide(taken.images, flush)
        repeats = self._last is not None and all(d.kind == "held" for d in decisions)
        return Asked(taken, decisions, repeats, now(taken.x) - start)

    def joins(self, asked: Asked) -> bool:
        """Whether a frame may be computed together with those of other streams."""
        dense = any(decision.kind == "dense" for decision in asked.decisions)
        alone = dense or asked.repeats or self._passes is not None or self.form is None
        return not alone and fixed(asked.taken.inputs)

    def run_asked(self, asked: Asked) -> tuple[Any, Report]:
        """Compute a frame, in a pass of its own."""
        (x, _, inputs), decisions = asked.taken, asked.decisions
        start = now(x)
        if asked.repeats:
            return self.answer(asked, copied(self._last), {}, now(x) - start)
        work = self.asked_for(x, decisions)
        output = self.compute(x, inputs, work)
        return self.answer(asked, output, work.outputs or work.shown, now(x) - start)

    def answer(
        self, asked: Asked, output: Any, shown: Mapping[str, Tensor], seconds: float
    ) -> tuple[Any, Report]:
        """Take note of how a frame came out.

        Args:
            asked: The frame.
            output: What the model returned.
            shown: (rows, tokens, dim) by tap, from now on this object's; nothing if it repeats.
            seconds: That computing it took.
        """
        decisions = asked.decisions
        compared: Sequence[Compared | None] = [None] * self._rows
        if not asked.repeats:
            compared = self.taps.keep(shown, decisions)
            self._end(output, asked.taken.inputs)
        for row, decision in enumerate(decisions):
            self.schedule.done(row, decision, compared[row])
        seconds += asked.seconds
        self.schedule.clock(1e3 * seconds)
        self.note(decisions)
        return output, self.report(seconds, decisions, compared, asked.repeats)

    def asked_for(self, x: Tensor, decisions: Sequence[Decision]) -> Pass:
        """A pass in which blocks compute what the rows ask for, and taps show the rest moved."""
        index = self.taps.index(decisions, x.device)
        work = self.work(index, frozenset(self.taps.norms))
        if not index.is_everything:
            work.shown = self.taps.show(moving(decisions), x.dtype)
        return work

    def compute(self, x: Tensor, inputs: Mapping[str, Any], work: Pass) -> Any:
        """Take a pass through the model, and return what that returns."""
        if self._passes is not None:
            return self._passes.run(x, inputs, work)
        self.bound.frame.work = work
        output, _ = self.bound.run(x, inputs)
        return output

    def note(self, decisions: Sequence[Decision]) -> None:
        """A frame is done: remember which of its tokens were computed."""
        self._computed = self.taps.index(decisions, self.bound.weight.device).mask()
        self._running = False

    def report(
        self,
        seconds: float,
        decisions: Sequence[Decision],
        compared: Sequence[Compared | None],
        repeats: bool = False,
    ) -> Report:
        """What a frame took, and what its rows were given; frames are told of in order."""
        assert self._taps is not None
        assert self._schedule is not None
        account, rows = self.bound.account, []
        used = Operations()
        for row, (decision, found) in enumerate(zip(decisions, compared, strict=True)):
            active = 0 if decision.patches is None else len(decision.patches) + self._taps.special
            active = self._taps.tokens if decision.kind == "dense" else active
            used += account.passed(active)
            rows.append(self._schedule.row_report(row, decision, active, found))
        used += Operations(other=0 if repeats else account.outside)
        flushed = {row: d.reason for row, d in enumerate(decisions) if d.flushed}
        return Report(seconds, used, account.dense(self._rows), flushed, rows=tuple(rows))

    @property
    def computed(self) -> Tensor | None:
        """All tokens of dense rows, those chosen of partial ones, none of the others."""
        return None if self._computed is None else self._computed.clone()

    @property
    def interrupted(self) -> bool:
        """A frame that fails once its schedule has moved on has to begin anew."""
        return self._running

    @property
    def tensors(self) -> list[Tensor]:
        """All that is remembered beside what blocks do: outputs and pictures."""
        parts = [part for part in (self._taps, self._schedule) if part is not None]
        named = [x for part in parts for x in part.tensors().values()]
        more = [*tree_leaves(self._last), self._computed]
        return named + [x for x in more if isinstance(x, Tensor)]

    @property
    def state_bytes(self) -> int:
        """Keys and values, outputs and pictures."""
        kept = {id(x): x.nbytes for x in self.tensors}
        return self.bound.state_bytes + sum(kept.values())

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, for a snapshot."""
        assert self._taps is not None
        assert self._schedule is not None
        last: dict[str, Tensor] = {}
        structure = snapshots.packed(self._last, last)
        tensors = {
            "taps": self._taps.tensors(),
            "views": self._schedule.tensors(),
            "last": last if structure is not None else {},
        }
        captured = snapshots.capture(self.bound.blocks)
        captured["tensors"] |= snapshots.copies(tensors)
        captured["digest"] = snapshots.digest(snapshots.all_tensors(captured["tensors"]))
        return {
            **captured,
            "policies": {"": str(self.policy)},
            "schedule": self._schedule.state(),
            "last": structure,
            "layout": {
                "linked": sorted(self._linked),
                **self._taps.layout(),
                "tokens": self._taps.tokens,
                "rows": self._rows,
            },
        }

    def load(self, content: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `state` gave."""
        layout = content["layout"]
        tensors = snapshots.copies(content["tensors"], device)
        for name, block in self.bound.blocks.items():
            binding(block).state = BlockState.from_tensors(tensors.get(name, {}), 0)
            binding(block).grid = content["grids"][name]
        self._linked = frozenset(layout["linked"])
        self._rows, grid = layout["rows"], tuple(layout["grid"])
        norms = {name: reader_norm(self.bound, name) for name in layout["taps"]}
        self._taps = Taps(layout["prefix"], grid, norms, layout["suffix"])
        self._taps.load(tensors["taps"])
        self._schedule = Schedule(self.policy, grid, self._cuts, budget=self.budget)
        self._schedule.load(content["schedule"], tensors["views"])
        self._last = snapshots.unpacked(content["last"], tensors["last"])
        self.form = Form.of(self._last) if self._rows == 1 and self._last is not None else None
        self._computed, self._running = None, False
        if self._passes is not None and self.bound.changed:
            self._passes.forget()
        self.bound.account.measure(self._taps.tokens)
