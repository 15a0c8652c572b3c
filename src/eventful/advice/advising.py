"""Looks at a video and a model, and says what to expect of holding an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from eventful.advice.expectation import Expectation, expected
from eventful.advice.footage import Footage, Watch
from eventful.advice.replay import Price
from eventful.advice.samples import MOST, Taker, Window, windows
from eventful.advice.verdict import Verdict, verdict
from eventful.stream import Stream
from eventful.stream.probe import Probe

ERRORS = 0.1, 0.15, 0.2
LEAST = 12  # frames of a video that anything can be said of
TIMED = 4  # runs of the dense model without a stream

Progress = Callable[[str, int, int | None], None]


class Runs(Protocol):
    """A model with its stream, under `Auto(max_error=...)`, and frames as it takes them."""

    @property
    def stream(self) -> Stream:
        """The stream."""
        ...

    def frame(self, prepared: Any) -> Tensor:
        """What the stream takes of a prepared frame."""
        ...

    def eventful(self, prepared: Any) -> Any:
        """Run the stream."""
        ...

    def dense(self, prepared: Any) -> tuple[Any, float]:
        """Run the model without it; the second is the time in milliseconds."""
        ...


@dataclass(frozen=True, eq=False)
class Advice:
    """What to expect.

    Attributes:
        footage: What the pixels tell.
        dense_frames: How many frames the model was run on in full.
        windows: In how many parts of the video.
        price: What frames cost.
        expectations: At each error.
        verdict: What to do.
    """

    footage: Footage
    dense_frames: int
    windows: int
    price: Price
    expectations: Sequence[Expectation]
    verdict: Verdict


def advise(
    frames: Callable[[], Iterable[Any]],
    model: Runs,
    rate: float,
    *,
    most: int = MOST,
    total: int | None = None,
    progress: Progress = lambda text, done, total: None,
) -> Advice:
    """Look at all frames, run the model on some of them, and foretell what a stream would do.

    Pixels alone tell how far each frame is from those before it. The model runs on short windows,
    which tell what errors such distances stand for. With both, the stream's own plan decides about
    every frame, and what it decides is what costs are read off.

    Args:
        frames: Gives the prepared frames from the start.
        model: Runs them.
        rate: Frames a second.
        most: Windows.
        total: How many frames there will be, if that is known.
        progress: Called with what is being done, the frames done, and how many there will be.

    Raises:
        ValueError: There are too few frames, the picture never changes, or no scene lasts.
    """
    probe, footage, price = _watched(frames(), model, rate, total, progress)
    if footage.frames < LEAST:
        raise ValueError(
            f"{footage.frames} frame{'s' * (footage.frames > 1)} can foretell nothing; it takes "
            f"{LEAST} at least, so give a longer video, or look at more of it"
        )
    if len(footage.still) == footage.frames - 1:
        raise ValueError(
            f"the picture does not change in {footage.frames} frames, so that nothing can be "
            f"measured on it; on such a video all frames but a few are held and cost little"
        )
    places = windows(footage.frames, most)
    seen = _sampled(frames(), model, probe, footage, places, progress)
    if not any(window.samples for window in seen):
        raise ValueError(
            f"the scene is cut {len(footage.cuts)} times in {footage.frames} frames, and none is "
            f"long enough to compare two frames of it; each cut is computed in full"
        )
    height, width = probe.layout.grid
    found = [expected(error, price, height * width, footage, seen) for error in ERRORS]
    count = sum(map(len, places))
    return Advice(footage, count, len(places), price, found, verdict(found))


@torch.inference_mode()
def _watched(
    frames: Iterable[Any],
    model: Runs,
    rate: float,
    total: int | None,
    progress: Progress,
) -> tuple[Probe, Footage, Price]:
    """Run the first frame, which tells costs, and look at all."""
    watch: Watch | None = None
    probe = price = None
    progress("measuring what frames cost", 0, total)
    for number, prepared in enumerate(frames, start=1):
        if watch is None or probe is None:
            model.eventful(prepared)
            probe = Probe(model.stream)
            watch = Watch(probe, rate)
            price = Price(probe.costs, probe.counted, _dense_ms(model, prepared))
        watch.add(model.frame(prepared))
        progress("looking at pixels", number, total)
    if watch is None or probe is None or price is None:
        raise ValueError("the video has no frame")
    return probe, watch.footage(), price


def _dense_ms(model: Runs, prepared: Any) -> float:
    """Time of the model by itself: its fastest run, as costs are measured."""
    return min(model.dense(prepared)[1] for _ in range(TIMED))


@torch.inference_mode()
def _sampled(
    frames: Iterable[Any],
    model: Runs,
    probe: Probe,
    footage: Footage,
    places: Sequence[Sequence[int]],
    progress: Progress,
) -> list[Window]:
    """Run the model on the windows' frames."""
    done, total, found = 0, sum(map(len, places)), []
    rest = [Taker(probe, footage, dense) for dense in places]
    for number, prepared in enumerate(frames):
        if not rest:
            break
        if number < rest[0].first:
            continue
        outputs = None
        if number in rest[0].dense:
            model.stream.reset([0])
            model.eventful(prepared)
            outputs, done = probe.outputs, done + 1
            progress("running the model on samples", done, total)
        rest[0].add(model.frame(prepared), outputs)
        if number == rest[0].last:
            found.append(rest.pop(0).window())
    return found
