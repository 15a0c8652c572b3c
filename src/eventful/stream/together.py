"""Frames of several streams of one model, in passes that they share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from eventful.stream.bound import now
from eventful.stream.engine import Asked, Engine, Taken
from eventful.stream.frames import Frames
from eventful.stream.measure import Measured
from eventful.stream.plan import moving
from eventful.stream.stats import Report

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Ticket:
    """A frame that was handed in.

    Attributes:
        waits: Whether `Together.run` is still to compute it.
    """

    waits: bool = True
    _output: Any = None
    _error: BaseException | None = None

    @property
    def output(self) -> Any:
        """What the model returns for the frame.

        Raises:
            RuntimeError: It has not been computed.
            Exception: What its pass failed with; the stream's next frame is computed in full.
        """
        if self.waits:
            raise RuntimeError("the frame still waits to be computed; call run() first")
        if self._error is not None:
            raise self._error
        return self._output

    def check(self, what: str) -> None:
        """Refuse what would disturb a frame that waits.

        Raises:
            RuntimeError: It does.
        """
        if self.waits:
            raise RuntimeError(f"cannot {what} while a frame waits; call run() of its passes first")

    def close(self, output: Any = None, error: BaseException | None = None) -> None:
        """The frame is computed, or cannot be."""
        self._output, self._error, self.waits = output, error, False


@dataclass(frozen=True, eq=False)
class Waiting:
    """A frame that waits for the pass.

    Attributes:
        engine: Its stream's.
        asked: What is to be done.
        ticket: Gets what comes out.
        tell: Takes what it took, and in how many seconds.
        broken: Is called where it fails.
    """

    engine: Frames
    asked: Asked
    ticket: Ticket
    tell: Callable[[Report, float], None]
    broken: Callable[[], None]

    @property
    def kind(self) -> tuple[Any, ...]:
        """Frames of one kind may share a pass: of the same modules, and asking the same of them."""
        engine, (x, _, inputs) = self.engine, self.asked.taken
        bound = engine.bound
        model = bound.parts, bound.method, bound.changed, engine.layout
        kept = engine.keeps, engine.state_dtype
        return *model, *kept, x.shape, x.dtype, x.device, repr(dict(inputs))

    def check(self) -> None:
        """Refuse a model that is no longer what it was when the frame was handed in.

        Raises:
            RuntimeError: It is in train mode, or its weights have changed.
        """
        self.engine.bound.check()
        if self.engine.bound.changed:
            raise RuntimeError(
                "the model's weights changed while the frame waited; call run() before you change "
                "them. The stream's next frame is computed in full"
            )

    def fail(self, error: BaseException) -> None:
        """The frame cannot be computed, and what is remembered is half changed."""
        self.broken()
        self.ticket.close(error=error)


@final
class Joining:
    """Hands a frame to an engine, and leaves it undone where it can be computed with others.

    Args:
        engine: The engine.
        passes: What it shares.

    Raises:
        TypeError: The passes are something else.
    """

    def __init__(self, engine: Engine, passes: Together) -> None:
        if not isinstance(passes, Together):
            raise TypeError(
                f"ask needs an eventful.Together and then a frame, got a {type(passes).__name__}"
            )
        self._engine, self._measured = engine, passes.measured

    @property
    def interrupted(self) -> bool:
        """Whether a frame that fails now leaves what is remembered half changed."""
        return self._engine.interrupted

    def first(self, taken: Taken, reason: str) -> Any:
        """Compute a frame in full."""
        if isinstance(self._engine, Frames):
            self._engine.measured = self._measured
        return self._engine.first(taken, reason)

    def run(self, taken: Taken, flush: Mapping[int, str], number: int) -> Any:
        """Decide what to do, and do it if that needs a pass of its own."""
        engine = self._engine
        if not isinstance(engine, Frames):
            return engine.run(taken, flush, number)
        asked = engine.ask(taken, flush)
        if not engine.joins(asked):
            return engine.run_asked(asked)
        x = taken.x.clone()  # the frame may be written over before it is computed
        return asked._replace(taken=Taken(x, None, taken.inputs))


@final
class Together:
    """Passes that frames of several streams share.

    A frame of which some tokens are computed, or none, costs little beside what every pass costs
    whatever it computes. Here such frames of all streams of one model go through the blocks in one
    pass; each row keeps to the keys and values of its own stream. Dense frames, and those of token
    policies, of batches and of runtimes' graphs, are computed as they are handed in, and so is all
    of a model that takes no batches or whose outputs do not begin with one. What comes out is the
    same as without, to rounding.

    One thread at a time may hand frames in and run them. Until `run`, a stream whose frame waits
    takes no other one, nor a snapshot, a policy or a budget.

    Example:
        >>> import timm, torch, eventful
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5).eval()
        >>> _ = eventful.convert(model, policy=eventful.Auto(share=0.3))
        >>> streams, passes = [eventful.Stream(model) for _ in range(4)], eventful.Together()
        >>> for frames in torch.rand(6, 4, 1, 3, 64, 64):
        ...     pairs = zip(streams, frames)
        ...     tickets = [stream.ask(passes, frame) for stream, frame in pairs]
        ...     passes.run()
        ...     logits = [ticket.output for ticket in tickets]
    """

    AT_ONCE: ClassVar[int] = 16  # frames of a pass: more save little, and each takes memory

    USUAL: ClassVar[int] = 8  # that share one, where it is measured what a frame costs

    def __init__(self) -> None:
        self.measured = Measured(self.USUAL)
        self._waiting: list[Waiting] = []

    def add(self, waiting: Waiting) -> None:
        """Take a frame in."""
        self._waiting.append(waiting)

    @torch.inference_mode(False)  # what is remembered must serve outside it too
    @torch.no_grad()
    def run(self) -> None:
        """Compute all frames that wait; tickets have what came out, or why nothing did."""
        waiting, self._waiting = self._waiting, []
        kinds: dict[tuple[Any, ...], list[Waiting]] = {}
        for one in waiting:
            kinds.setdefault(one.kind, []).append(one)
        try:
            for some in kinds.values():
                for start in range(0, len(some), self.AT_ONCE):
                    self._settle(some[start : start + self.AT_ONCE])
        finally:  # where this was interrupted, the rest waits for another call
            self._waiting = [one for one in waiting if one.ticket.waits] + self._waiting

    def _settle(self, some: Sequence[Waiting]) -> None:
        """Compute some frames of one kind; those that cannot be together, each alone."""
        try:
            for one in some:
                one.check()
            found = _together(some) if len(some) > 1 else [some[0].engine.run_asked(some[0].asked)]
            if found is not None:
                for one, (output, report) in zip(some, found, strict=True):
                    one.tell(report, report.seconds)
                    one.ticket.close(output)
                return
        except BaseException as error:
            for one in some:
                if one.ticket.waits:
                    one.fail(error)
            if not isinstance(error, Exception):
                raise
            return
        for one in some:
            self._settle([one])


def _together(some: Sequence[Waiting]) -> Iterator[tuple[Any, Report]] | None:
    """Outputs and reports of frames that share a pass; None if the model does not do that."""
    start = now(some[0].asked.taken.x)
    try:
        found = _shared(some)
    except Exception as error:
        _log.warning("frames of several streams failed together, each is computed alone: %s", error)
        found = None
    if found is None:
        for one in some:
            one.engine.form = None  # from now on alone; what was written is written again
        return None
    outputs, shown = found
    seconds = (now(some[0].asked.taken.x) - start) / len(some)
    return (
        one.engine.answer(one.asked, output, own, seconds)
        for one, output, own in zip(some, outputs, shown, strict=True)
    )


def _shared(some: Sequence[Waiting]) -> tuple[list[Any], list[dict[str, Tensor]]] | None:
    """What the model returns of each frame and what its taps show; None if it mixes frames up."""
    first, taken = some[0].engine, some[0].asked.taken
    x = torch.cat([one.asked.taken.x for one in some])
    decisions = [one.asked.decisions[0] for one in some]
    work = first.work(first.taps.index(decisions, x.device), frozenset(first.taps.norms))
    looks = [one.engine.taps.show(moving(one.asked.decisions), x.dtype) for one in some]
    work.shown = {name: torch.cat([own[name] for own in looks]) for name in first.taps.norms}
    work.each = [one.engine.bound.kept for one in some]
    try:
        output = first.compute(x, taken.inputs, work)
    finally:
        first.bound.frame.work = None
    outputs = None if first.form is None else first.form.rows(output, len(some))
    if outputs is None:
        return None
    shown = work.outputs or work.shown  # all tokens of all rows may be computed
    rows = range(len(some))
    return outputs, [{n: y[row : row + 1].clone() for n, y in shown.items()} for row in rows]
