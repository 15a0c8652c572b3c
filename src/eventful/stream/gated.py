"""Frames under token policies: every gate asks its policy, as in the paper."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eventful.block import bindings
from eventful.block.bindings import binding
from eventful.policies import Policy, for_gates
from eventful.stream import compiled, snapshots
from eventful.stream.bound import Bound
from eventful.stream.cuts import SceneCuts, change
from eventful.stream.engine import Engine, Taken
from eventful.stream.inputs import check_finite, refuse
from eventful.stream.stats import Report


class GateView(NamedTuple):
    """What a gate saw and did on the last frame.

    Attributes:
        error: (batch, tokens) L2 norm of e = u - c; 0 on a frame that was flushed whole.
        updated: (batch, tokens) whether the token was updated.
    """

    error: Tensor
    updated: Tensor


class Gated(Engine):
    """Runs frames from what gates and buffers remember.

    Args:
        bound: The model.
        compile: Whether its blocks are compiled.
        cuts: How scene cuts are found, or None.
        check: Hold blocks to their originals on first frames.
    """

    def __init__(self, bound: Bound, compile: bool, cuts: SceneCuts | None, check: bool) -> None:
        super().__init__(bound, check)
        if compile:
            compiled.check(bound.blocks.values())
        bound.frame.on_first_gate = self.on_first_gate
        self._compile, self._cuts_by = compile, cuts
        self._flush: Mapping[int, str] = {}
        self._flushed: dict[int, str] = {}
        self._histories: list[deque[float]] = []
        self._checked: object = None
        self._moved: Tensor | None = None

    @property
    def policies(self) -> dict[str, Policy]:
        """The policy of every gate."""
        return bindings.policies(self.bound.blocks)

    @property
    def policy(self) -> Policy | dict[str, Policy]:
        """That of all gates, or one for each where they differ."""
        first, *rest = self.policies.values()
        return first if all(policy == first for policy in rest) else self.policies

    def set_policy(self, policy: Policy | Mapping[str, Policy]) -> None:
        """Give gates their policies; those that a mapping leaves out keep theirs."""
        now = self.policies
        bindings.set_policies(self.bound.blocks, for_gates(policy, list(now), default=now))

    def view(self, name: str) -> GateView:
        """Look at a gate.

        Raises:
            ValueError: There is no such gate, or no frame yet.
        """
        block, _, stage = name.rpartition(".")
        if name not in self.policies:
            raise ValueError(f"no gate is called {name!r}; there are {', '.join(self.policies)}")
        gates = binding(self.bound.blocks[block]).state.gates
        state = gates.get(stage)  # type: ignore[call-overload]
        if state is None:
            raise ValueError("there is nothing to see at a gate before the first frame")
        return GateView(state.error.clone(), state.index.mask())

    @property
    def rows(self) -> int:
        """Batch rows of a frame."""
        return len(self._histories)

    def first(self, taken: Taken, reason: str) -> tuple[Any, Report]:
        """Compute a frame in full, into new state; what was remembered stays until it is done."""
        x, _, inputs = taken
        self.bound.frame.work = None
        with self.bound.fresh_states():
            output, seconds, observer = self.bound.observe(x, inputs, self._check)
            rows = self._rows(x)
            self._check_policies()  # needs the number of tokens, known only now
        self.bound.frame.anew = False
        self.bound.account.outside = observer.total
        self.bound.account.measure()
        self._histories = [(self._cuts_by or SceneCuts()).new_history() for _ in range(rows)]
        self._flushed = dict.fromkeys(range(rows), reason)
        return output, self._report(seconds)

    def _rows(self, x: Tensor) -> int:
        """Batch rows of every block, which must be the frame's."""
        rows = {binding(block).state.rows for block in self.bound.blocks.values()}
        return self._check_rows(max(rows, key=lambda count: abs(count - len(x))), x)

    def run(self, taken: Taken, flush: Mapping[int, str], number: int) -> tuple[Any, Report]:
        """Compute a frame from what is remembered."""
        x, _, inputs = taken
        self._flush, self.bound.frame.reached = flush, False
        if self._compile and not flush and not self.bound.frame.anew:
            return self._run_fixed(x, inputs, number)
        if self._compile:
            check_finite(x, number)
        return self._run(x, inputs)

    def _run(self, x: Tensor, inputs: Mapping[str, Any], fallbacks: int = 0) -> tuple[Any, Report]:
        output, seconds = self.bound.run(x, inputs)
        self.bound.frame.anew = False
        return output, self._report(seconds, fallbacks)

    def _run_fixed(self, x: Tensor, inputs: Mapping[str, Any], number: int) -> tuple[Any, Report]:
        """Compute a frame by compiled updates; take it back if it should not have been."""
        frame, blocks = self.bound.frame, self.bound.blocks
        views = bindings.gate_states(blocks)
        seen = [(gate.error, gate.index) for gate in views]
        frame.fixed, frame.bounded = True, compiled.must_bound(x.device)
        try:
            output, seconds = self.bound.run(x, inputs)
        finally:
            frame.fixed = frame.bounded = False
        verdict = compiled.read(x, blocks.values(), self._moved)
        self._flushed = {}
        if verdict.finite and not verdict.overflow and not self._cuts(verdict.moved):
            self._remember(verdict.moved)
            return output, self._report(seconds)
        for block in blocks.values():
            binding(block).state.undo_()
        for gate, (error, index) in zip(views, seen, strict=True):
            gate.error, gate.index = error, index
        frame.anew = True  # attention states cannot be taken back, but follow from buffers
        if not verdict.finite:
            frame.reached = False  # all is as it was
            refuse(number, "NaN or infinity")
        return self._run(x, inputs, int(verdict.overflow))

    @property
    def computed(self) -> Tensor | None:
        """Those that the first gate let through."""
        gates = bindings.gate_states(self.bound.blocks) if self.rows else ()
        return gates[0].index.mask() if gates else None

    @property
    def interrupted(self) -> bool:
        """Whether some gates have moved on and others have not, if a frame fails now."""
        return self.bound.frame.reached

    def on_first_gate(self, reference: Tensor, c: Tensor) -> list[int]:
        """Before any state changes: check the policies and choose the rows to flush."""
        self._check_policies()
        moved = None if self._cuts_by is None else change(reference, c)
        if self.bound.frame.fixed:
            self._moved = moved  # judged when it is read back, after the frame
            return []
        self._flushed = dict(self._flush)
        if moved is not None:
            changes = moved.tolist()
            for row in self._cuts(changes):
                self._flushed.setdefault(row, "scene cut")
            self._remember(changes)
        return list(self._flushed)

    def _cuts(self, moved: list[float]) -> list[int]:
        """The batch rows that show another scene."""
        cuts = self._cuts_by
        rows = enumerate(zip(moved, self._histories, strict=False))
        return [row for row, (m, history) in rows if cuts is not None and cuts.is_cut(m, history)]

    def _remember(self, moved: list[float]) -> None:
        """Enter the rows' changes, a cut's too, or noise would be cut for ever."""
        for change_of_row, history in zip(moved, self._histories, strict=False):
            history.append(change_of_row)

    def _check_policies(self) -> None:
        """Let every policy choose once, so that one that does not fit fails before any change."""
        policies, choices = self.policies, bindings.choices(self.bound.blocks)
        if self._checked != (policies, choices):
            like = bindings.gate_states(self.bound.blocks)[0].reference
            bindings.check_policies(policies, choices, like, fixed=self._compile)
            self._checked = policies, choices

    def _report(self, seconds: float, fallbacks: int = 0) -> Report:
        blocks, account = self.bound.blocks, self.bound.account
        updated = {}
        for name, block in blocks.items():
            binding(block).state.forget_undo()
            for stage, gate in binding(block).state.gates.items():
                updated[f"{name}.{stage}"] = gate.index.counts
        return Report(
            seconds,
            account.used(self._flushed),
            account.dense(self.rows),
            dict(self._flushed),
            updated=updated,
            fallbacks=fallbacks,
        )

    @property
    def state_bytes(self) -> int:
        """Memory of what is remembered."""
        return self.bound.state_bytes

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, for a snapshot."""
        return {
            **snapshots.capture(self.bound.blocks),
            "histories": [list(history) for history in self._histories],
        }

    def load(self, content: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `state` gave."""
        states = snapshots.states_in(content, device)
        self.set_policy(snapshots.parse_policies(content["policies"]) or self.policies)
        for name, block in self.bound.blocks.items():
            binding(block).state, binding(block).grid = states[name], content["grids"][name]
        self.bound.account.measure()
        self.bound.frame.anew, self.bound.frame.work = False, None
        cuts = self._cuts_by or SceneCuts()
        self._histories = [cuts.new_history() for _ in content["histories"]]
        for history, saved in zip(self._histories, content["histories"], strict=True):
            history.extend(saved)
