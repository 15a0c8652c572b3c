"""Frames that wait for the dense frame after them, and are seen from both sides."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from eventful.block.bindings import binding
from eventful.motion import Between, Look, Picture, rank_between
from eventful.policies import Auto
from eventful.stream.bound import now
from eventful.stream.budget import Budget
from eventful.stream.engine import Engine, Taken
from eventful.stream.frames import Frames
from eventful.stream.outputs import Form, copied
from eventful.stream.plan import Decision, Seen
from eventful.stream.schedule import Schedule
from eventful.stream.stats import Report
from eventful.stream.taps import Compared
from eventful.stream.waiting import Done, Known, Ordered, Side, Waiting

AT_ONCE = 8  # frames of a pass: more save little, and each takes a frame's memory


class Lookahead:
    """Runs the frames of one video, each up to so many frames late.

    A frame between two dense ones, A before it and B after it, shows the outputs of both, moved
    along the motion from there and blended (`Between`). Patches that neither explains are
    recomputed over the keys and values of the nearer one; those of all frames between A and B go
    through the blocks in few passes. Where B comes later than a frame may wait, or does not come (a
    scene cut, the end), the frame shows A's output alone.

    Args:
        frames: Decides, and runs dense frames.
        most: Frames that may wait.

    Raises:
        ValueError: The policy has no dense frames to wait for, or looks at no picture.
    """

    interrupted = True  # a frame that fails ends the run

    def __init__(self, frames: Frames, most: int) -> None:
        self._frames, self._most = frames, most
        self._waiting: list[Waiting] = []
        self._done: deque[Done] = deque()
        self._side: Side | None = None
        self._estimates: list[float | None] = []  # of each frame since, from that side alone
        self._last: Any = None  # what the latest frame shows; None if that cannot be copied
        self._form: Form | None = None  # of what the model returns; None takes frames one by one
        self.taken = 0
        frames.look_ahead(most)

    @staticmethod
    def engine(engine: Engine, policy: Any, budget: Budget | None) -> Frames:
        """The engine, if its policy goes with lookahead.

        Raises:
            ValueError: It does not.
        """
        if not isinstance(engine, Frames):
            raise ValueError(
                f"lookahead carries frames from dense ones, and token policies have none; set "
                f"stream.policy to Auto(...) or Carry(k), got {policy}"
            )
        Schedule.check_waits(engine.policy, budget)
        return engine

    @property
    def state_bytes(self) -> int:
        """Memory of all that is remembered, of frames that wait and of outputs that do."""
        known = None if self._side is None else self._side.known
        outputs = [done.output for done in self._done]
        kept = [self._waiting, outputs, known, self._last, self._frames.tensors]
        parts = [x.untyped_storage() for x in tree_leaves(kept) if isinstance(x, Tensor)]
        sizes = {part.data_ptr(): part.nbytes() for part in parts}
        return self._frames.bound.state_bytes + sum(sizes.values())

    def first(self, taken: Taken, reason: str) -> None:
        """Compute a frame in full, from nothing; what waits is carried from what there was."""
        if len(taken.x) != 1:
            raise ValueError(
                f"lookahead runs one video in a stream, got a batch of {len(taken.x)}; give "
                f"each video a stream of its own (streams share one set of weights)"
            )
        self._waiting = [frame.carried for frame in self._waiting]  # weights may have changed
        self.finish()
        start = now(taken.x)
        output, report = self._frames.first(taken, reason)
        self._side = None
        self._begin(self._dense_side(self._frames.schedule.seen(0)))
        self._form = Form.of(output)
        decision = Decision("dense", reason, flushed=True)
        self._enter(self.taken, output, report, decision, now(taken.x) - start)
        self.taken += 1

    def run(self, taken: Taken, flush: Mapping[int, str], number: int) -> None:
        """Take a frame in; compute it if it is dense, and what has waited for that."""
        start = now(taken.x)
        schedule = self._frames.schedule
        (decision,) = schedule.decide(taken.images, flush)
        if decision.kind == "dense":
            self._dense(taken, decision, start)
        else:
            self._wait(taken, decision, start)
        self.taken += 1
        late = [w for w in self._waiting if w.number < self.taken - self._most]
        self._waiting = self._waiting[len(late) :]
        self._show([self._order(frame, self._known_side) for frame in late])

    @torch.inference_mode(False)  # outputs must serve outside it too
    @torch.no_grad()
    def finish(self) -> None:
        """Compute all that waits: no dense frame is to come."""
        waiting, self._waiting = self._waiting, []
        self._show([self._order(frame, self._known_side) for frame in waiting])

    def ready(self) -> Iterator[Done]:
        """Frames that are computed, and as many frames late as they may be, in order."""
        while self._done and self._done[0].number < self.taken - self._most:
            yield self._done.popleft()

    def rest(self) -> Iterator[Done]:
        """All frames that are left, where no more are to come."""
        self.finish()
        while self._done:
            yield self._done.popleft()

    def through(self, frames: Iterable[Tensor], take: Callable[[Tensor], object]) -> Iterator[Done]:
        """Take all frames in by `take`, which hands them to this object, and give them when due."""
        try:
            for frame in frames:
                take(frame)
                yield from map(self._given, self.ready())
            yield from map(self._given, self.rest())
        finally:
            self._frames.look_ahead(0)

    def _given(self, done: Done) -> Done:
        """A frame is handed out: from now on its tokens are told of."""
        self._frames.note([done.decision])
        return done

    def _wait(self, taken: Taken, decision: Decision, start: float) -> None:
        """Keep a frame until it is known what comes after it."""
        schedule = self._frames.schedule
        picture = schedule.picture(0)
        if decision.look is None and self._last is None:
            decision = decision._replace(look=schedule.look(0), kind="carried")
        schedule.done(0, decision._replace(patches=None), None)
        self._estimates.append(decision.estimate)
        seconds = now(taken.x) - start
        own = Taken(taken.x.clone(), None, taken.inputs)  # the caller may use its memory again
        self._waiting.append(Waiting(self.taken, own, picture, decision, seconds))

    def _dense(self, taken: Taken, decision: Decision, start: float) -> None:
        """Compute a dense frame, and what has waited for it."""
        frames, before, estimates = self._frames, self._known_side, self._estimates
        if decision.flushed:
            self.finish()
        picture = frames.schedule.picture(0)
        for block in frames.bound.blocks.values():
            binding(block).state.kv = None  # else a runtime writes over what `before` keeps
        work = frames.asked_for(taken.x, [decision])
        output = frames.compute(taken.x, taken.inputs, work)
        (compared,) = frames.taps.keep(work.outputs, [decision])
        after = self._dense_side(picture, decision.look, compared)
        waiting, self._waiting = self._waiting, []
        ordered: list[Ordered | Waiting] = []
        if not decision.flushed:
            looks = self._look_back(after, waiting, before)
            self._learn(before, after, looks.get(before.number))
            ordered = [
                self._order(frame, before, after, looks.get(frame.number), estimates)
                for frame in waiting
            ]
        frames.schedule.done(0, decision, compared)
        seconds = now(taken.x) - start
        self._show(ordered)
        self._begin(after)
        report = frames.report(seconds, [decision], [compared])
        self._enter(self.taken, output, report, decision, seconds)

    def _dense_side(
        self, picture: Picture, look: Look | None = None, compared: Compared | None = None
    ) -> Side:
        """The dense frame that has just been computed."""
        frames, before = self._frames, self._side
        tokens = {name: rows[0] for name, rows in frames.taps.dense.items()}
        known = None
        learns = isinstance(frames.policy, Auto)
        if learns and before is not None and look is not None and compared is not None:
            known = Known(before.number, before.tokens, look, compared.shown)
        return Side(self.taken, picture, tokens, frames.bound.kept, known)

    def _begin(self, side: Side) -> None:
        """Carry the frames to come from here."""
        self._side, self._estimates = side, []

    @property
    def _known_side(self) -> Side:
        assert self._side is not None  # the first frame is dense
        return self._side

    def _look_back(self, after: Side, waiting: Sequence[Waiting], before: Side) -> dict[int, Look]:
        """See waiting frames against the dense one after them, by number; and the one before."""
        view = self._frames.schedule.view_of(after.picture)
        pictures = {frame.number: frame.picture for frame in waiting if not frame.repeats}
        if before.known is not None:
            pictures[before.number] = before.picture
        looks = {}
        for number in sorted(pictures, reverse=True):
            looks[number] = view.look(pictures[number])
            view.saw(pictures[number], looks[number])
        return looks

    def _learn(self, before: Side, after: Side, look: Look | None) -> None:
        """Set right what both sides are worth, by the dense frame between two others."""
        known = before.known
        if known is None or look is None:
            return
        seen = Between(known.look, look, before.number - known.number, after.number - before.number)
        found = self._frames.taps.compare_between(before.tokens, known.tokens, after.tokens, seen)
        self._frames.schedule.plans[0].learn_both(
            Seen(
                found.shown,
                known.error,
                found.squares,
                found.change,
                rank_between(seen).flatten(),
                seen.age,
                seen.ahead,
            )
        )

    def _order(
        self,
        frame: Waiting,
        before: Side,
        after: Side | None = None,
        back: Look | None = None,
        estimates: Sequence[float | None] = (),
    ) -> Ordered | Waiting:
        """Say what a frame shows, and which of its patches are recomputed.

        Args:
            frame: The frame, the next in order.
            before: The dense frame before it.
            after: The one after it, where that is known.
            back: What is seen of it against that one.
            estimates: Errors of all frames since, from the side before alone.
        """
        decision, look = frame.decision, frame.decision.look
        if look is None:
            return frame
        if after is None or back is None:
            return Ordered(frame, look, before, None, decision._replace(reason="from one side"))
        seen = Between(look, back, frame.number - before.number, after.number - frame.number)
        one, other = estimates[seen.age - 1], estimates[seen.ahead - 1]
        if one is not None and other is not None:
            estimate = self._frames.schedule.plans[0].sides.both(one, other)
            decision = decision._replace(estimate=estimate)
        if decision.patches is not None:
            wanted = rank_between(seen).flatten().topk(len(decision.patches)).indices
            decision = decision._replace(patches=wanted.sort().values)
        return Ordered(frame, seen, before, after, decision._replace(reason="from both sides"))

    def _show(self, ordered: Sequence[Ordered | Waiting]) -> None:
        """Compute frames in order; those that repeat the one before them give its output again."""
        outputs = self._outputs([item for item in ordered if isinstance(item, Ordered)])
        for item in ordered:
            if isinstance(item, Ordered):
                (output, seconds), frame, decision = next(outputs), item.frame, item.decision
            else:
                output, seconds, frame, decision = copied(self._last), 0.0, item, item.decision
            seconds += frame.seconds
            report = self._frames.report(seconds, [decision], [None], repeats=frame.repeats)
            self._enter(frame.number, output, report, decision, seconds)

    def _outputs(self, left: Sequence[Ordered]) -> Iterator[tuple[Any, float]]:
        """What the model returns of frames, and the time of each."""
        while left:
            inputs = tree_leaves(left[0].frame.taken.inputs)
            single = self._form is None or any(isinstance(x, Tensor) for x in inputs)
            some = left[: 1 if single else AT_ONCE]
            start = now(some[0].frame.taken.x)
            output = self._pass(some)
            rows = [output]
            if len(some) > 1 and self._form is not None:
                rows = self._form.rows(output, len(some))
            if rows is None:  # what it returns of several frames cannot be told apart
                self._form = None
                continue
            seconds = (now(some[0].frame.taken.x) - start) / len(some)
            yield from ((row, seconds) for row in rows)
            left = left[len(some) :]

    def _pass(self, some: Sequence[Ordered]) -> Any:
        """Take frames through the model together."""
        frames, taps = self._frames, self._frames.taps
        x = torch.cat([item.frame.taken.x for item in some])
        index = taps.index([item.decision for item in some], x.device)
        work = frames.work(index, frozenset(taps.norms))
        tokens = [item.tokens(taps) for item in some]
        work.shown = {name: torch.cat([t[name] for t in tokens]).to(x.dtype) for name in taps.norms}
        work.beside = [item.kept for item in some]
        output = frames.compute(x, some[0].frame.taken.inputs, work)
        frames.bound.frame.work = None
        return output

    def _enter(
        self, number: int, output: Any, report: Report, decision: Decision, seconds: float
    ) -> None:
        self._last = copied(output)
        decision = decision._replace(look=None)  # which is of no more use, and large
        self._done.append(Done(number, output, report, decision, seconds))
