"""Frames of several streams of one model, in passes that they share."""

from __future__ import annotations

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
        """Frames of one kind may share a pass."""
        engine, (x, _, inputs) = self.engine, self.asked.taken
        about = engine.bound.model, engine.bound.method, engine.keeps, engine.state_dtype
        return (*map(id, about[:1]), *about[1:], x.shape, x.dtype, x.device, repr(dict(inputs)))


@final
class Joining:
    """Hands a frame to an engine, and leaves it undone where it can be computed with others.

    Args:
        engine: The engine.
        passes: What it shares.
    """

    def __init__(self, engine: Engine, passes: Together) -> None:
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
        return asked if engine.joins(asked) else engine.run_asked(asked)


@final
class Together:
    """Passes that frames of several streams share.

    A frame of which some tokens are computed, or none, costs little beside what every pass costs
    whatever it computes. Here such frames of all streams of one model go through the blocks in one
    pass; each row keeps to the keys and values of its own stream. Dense frames, and those of token
    policies and of runtimes' graphs, are computed as they are handed in. What comes out is the same
    as without, to rounding.

    Example:
        >>> import timm, torch, eventful
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5).eval()
        >>> _ = eventful.convert(model, policy=eventful.Auto(share=0.3))
        >>> streams, passes = [eventful.Stream(model) for _ in range(4)], Together()
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
        for some in kinds.values():
            for start in range(0, len(some), self.AT_ONCE):
                self._settle(some[start : start + self.AT_ONCE])

    def _settle(self, some: Sequence[Waiting]) -> None:
        """Compute some frames of one kind."""
        try:
            for one, (output, report) in zip(some, _computed(some), strict=True):
                one.tell(report, report.seconds)
                one.ticket.close(output)
        except BaseException as error:
            for one in some:
                if one.ticket.waits:
                    one.broken()
                    one.ticket.close(error=error)
            if not isinstance(error, Exception):
                raise


def _computed(some: Sequence[Waiting]) -> Iterator[tuple[Any, Report]]:
    """Outputs and reports of frames, in a pass that they share if that can be."""
    start = now(some[0].asked.taken.x)
    found = _shared(some) if len(some) > 1 else None
    if found is None:
        for one in some:
            yield one.engine.run_asked(one.asked)
        return
    outputs, shown = found
    seconds = (now(some[0].asked.taken.x) - start) / len(some)
    for row, (one, output) in enumerate(zip(some, outputs, strict=True)):
        own = {name: tokens[row : row + 1].clone() for name, tokens in shown.items()}
        yield one.engine.answer(one.asked, output, own, seconds)


def _shared(some: Sequence[Waiting]) -> tuple[list[Any], Mapping[str, Tensor]] | None:
    """What the model returns of each frame and what taps show, or None if it mixes frames up."""
    first, taken = some[0].engine, some[0].asked.taken
    x = torch.cat([one.asked.taken.x for one in some])
    decisions = [one.asked.decisions[0] for one in some]
    work = first.work(first.taps.index(decisions, x.device), frozenset(first.taps.norms))
    shown = [one.engine.taps.show(moving(one.asked.decisions), x.dtype) for one in some]
    work.shown = {name: torch.cat([own[name] for own in shown]) for name in first.taps.norms}
    work.each = [one.engine.bound.kept for one in some]
    output = first.compute(x, taken.inputs, work)
    first.bound.frame.work = None
    outputs = None if first.form is None else first.form.rows(output, len(some))
    if outputs is None:
        for one in some:
            one.engine.form = None  # from now on alone; what was written is written again
        return None
    return outputs, work.shown
