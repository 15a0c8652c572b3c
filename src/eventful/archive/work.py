"""What a worker does: look a video through, prepare a shape of frames, compute a segment."""

from __future__ import annotations

import json
import os
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, final

import cv2
import torch
from torch import Tensor

import eventful
from eventful.archive.fetching import Fetched
from eventful.archive.footage import Footage, Looked, look
from eventful.archive.problems import READING, Problem, of_error
from eventful.archive.reading import Reading
from eventful.archive.scenes import Scene, scenes
from eventful.archive.settings import Settings, versions
from eventful.archive.sources import Source
from eventful.archive.tables import schema, time_values
from eventful.outputs.heads import Shown
from eventful.outputs.networks import Network
from eventful.outputs.rows import Rows, writing
from eventful.stream.costs import Costs
from eventful.stream.cuts import SceneCuts
from eventful.stream.snapshots import digest
from eventful.video import Frame

PARTS = "decoding", "model", "heads", "writing"
SHAPES = 3  # of frames, for which a worker keeps the network


class Prepared(NamedTuple):
    """What all segments of a shape of frames share.

    Attributes:
        weights: A digest of the model's weights at this shape.
        costs: What frames cost, once for all workers; None where the policy needs none.
        columns: Of outputs, with the text of their types.
    """

    weights: str
    costs: dict[str, Any] | None
    columns: dict[str, str]


@dataclass(frozen=True)
class Job:
    """A segment to compute.

    Attributes:
        footage: The video.
        number: Which of its segments.
        span: Its frames.
        prepared: For frames of its shape.
        out: The file to write.
        problem: The file to write what is wrong to, if anything is.
    """

    footage: Footage
    number: int
    span: range
    prepared: Prepared
    out: Path
    problem: Path


@dataclass
class Done:
    """A segment that was computed.

    Attributes:
        video: Its video.
        number: Which segment.
        rows: How many rows it has.
        problem: Why some are missing, if they are.
        kinds: How many frames there were of each kind.
        operations: Multiply-accumulates used.
        dense_operations: What the dense model would have used.
        seconds: Time by what it went into: "decoding", "model" (motion and choices included),
            "heads" and "writing".
    """

    video: str
    number: int
    rows: int = 0
    problem: Problem | None = None
    kinds: Counter[str] = field(default_factory=Counter)
    operations: int = 0
    dense_operations: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))


class Result(NamedTuple):
    """What a stream gave for a frame."""

    number: int
    time: Fraction
    output: Any
    kind: str
    reason: str
    tokens: int
    estimate: float | None
    seconds: float


def through(stream: eventful.Stream, frames: Iterable[Frame], lookahead: int) -> Iterator[Result]:
    """Run the frames of one scene through a stream, in order."""
    places: deque[tuple[int, Fraction]] = deque()  # of frames that wait

    def images() -> Iterator[Tensor]:
        for frame in frames:
            places.append((frame.index, frame.time))
            yield frame.image

    for output in stream.run(images(), lookahead=lookahead):
        (row,) = stream.stats.rows
        told = row.kind, row.reason, row.tokens, row.estimate
        yield Result(*places.popleft(), output, *told, stream.stats.seconds)


@final
class Worker:
    """Does the work of one process; models stay loaded from one call to the next.

    Args:
        settings: Of the archive.
    """

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.threads)
        cv2.setNumThreads(settings.threads)
        self._settings = settings
        self._fetched = Fetched()
        self._loaded: OrderedDict[tuple[int, int], tuple[Network, eventful.Stream]] = OrderedDict()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._fetched.__exit__(*error)

    def ready(self) -> None:
        """Nothing; what answers is there."""

    def look(self, source: Source) -> Looked | Problem:
        """Look a video through."""
        try:
            return look(source, self._fetched.path(source.place), self._settings)
        except READING as error:
            return of_error(source.video, error)

    def prepare(self, shape: tuple[int, int]) -> Prepared:
        """Check the model on frames of a height and width, and find what frames cost.

        Raises:
            ValueError: The model does not convert, or does not fit frames, policy or outputs.
        """
        network, weights = self._network(shape)
        stream = self._stream(network, None, check=True)
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            output = stream(torch.rand(1, 3, *shape, generator=generator))
            for head in network.heads:
                head.values(output, Shown(shape, shape))
        costs = stream.costs
        return Prepared(weights, None if costs is None else costs.to_dict(), _columns(network))

    def compute(self, job: Job) -> Done:
        """Compute a segment and write its file.

        Raises:
            OutputError: It cannot be written.
            ValueError: The weights are not those of the manifest, or the model fails.
        """
        footage, done = job.footage, Done(job.footage.video, job.number)
        shape = footage.height, footage.width
        network, stream = self._ready(shape, job.prepared)
        before = stream.stats.total_operations, stream.stats.total_dense_operations
        try:
            path = self._fetched.path(footage.place)
        except READING as error:
            done.problem = of_error(footage.video, error, job.number)
            return done
        reading = Reading(footage, path, job.number, job.span)
        written = _Clocked(done, Rows(job.out, schema(_types(network), self._about(job))))
        try:
            with written.rows, torch.inference_mode():
                self._rows(reading, network, stream, written)
                done.problem = reading.problem
                if done.problem is not None and done.problem.passing:
                    raise _PassingError
                if done.problem is not None:
                    write_problem(done.problem, job.problem)
                start = perf_counter()
        except _PassingError:
            done.rows = 0
            return done
        done.seconds["writing"] += perf_counter() - start
        done.operations = stream.stats.total_operations - before[0]
        done.dense_operations = stream.stats.total_dense_operations - before[1]
        return done

    def _rows(
        self, reading: Reading, network: Network, stream: eventful.Stream, written: _Clocked
    ) -> None:
        """Take all frames of a segment through the model into its file."""
        footage, done = reading.footage, written.done
        shown = Shown(
            (footage.height, footage.width), (footage.native_height, footage.native_width)
        )
        cuts = SceneCuts() if self._settings.scene_cuts else None
        frames = _timed(reading, done.seconds, "decoding")
        for scene in scenes(frames, cuts):
            stream.reset()
            for result in through(stream, scene.frames, self._settings.waits):
                done.seconds["model"] += result.seconds
                start = perf_counter()
                values = {
                    name: value
                    for head in network.heads
                    for name, value in head.values(result.output, shown).items()
                }
                done.seconds["heads"] += perf_counter() - start
                written.add(_row(reading.segment, footage, scene, result) | values)
                done.kinds[result.kind] += 1

    def _about(self, job: Job) -> dict[str, Any]:
        return {
            **self._settings.identity(),
            "weights": job.prepared.weights,
            "costs": job.prepared.costs,
            "versions": versions(),
            "video": job.footage.video,
            "place": job.footage.place,
            "segment": job.number,
        }

    def _ready(self, shape: tuple[int, int], prepared: Prepared) -> tuple[Network, eventful.Stream]:
        """The network for a shape, loaded once, and a stream that every segment resets."""
        if shape in self._loaded:
            self._loaded.move_to_end(shape)
            return self._loaded[shape]
        network, weights = self._network(shape)
        if weights != prepared.weights:
            raise ValueError(
                f"the weights of {self._settings.model} are others than those the archive was "
                f"begun with ({weights} for {prepared.weights}); give every worker the same, or "
                f"write to another folder"
            )
        if _columns(network) != prepared.columns:
            raise ValueError(
                f"the archive was begun with the columns {', '.join(prepared.columns)}, and this "
                f"network gives {', '.join(_columns(network))}; write to another folder"
            )
        stream = self._stream(network, prepared.costs, check=False)
        while len(self._loaded) >= SHAPES:
            self._loaded.popitem(last=False)
        self._loaded[shape] = network, stream
        return network, stream

    def _network(self, shape: tuple[int, int]) -> tuple[Network, str]:
        """The converted network for a shape of frames, and a digest of its weights."""
        network = self._settings.build(*shape)
        weights = digest(network.model.state_dict().values())
        eventful.convert(network.model, self._settings.frame_policy)
        return network, weights

    def _stream(
        self, network: Network, costs: dict[str, Any] | None, check: bool
    ) -> eventful.Stream:
        return eventful.Stream(
            network.model,
            normalize=network.normalize,
            method=network.method,
            scene_cuts=None,
            costs=None if costs is None else Costs(**costs),
            check=check,
            runtime=self._settings.runtime,
        )


def _types(network: Network) -> dict[str, Any]:
    """The columns of a network's outputs."""
    return {name: kind for head in network.heads for name, kind in head.types.items()}


def _columns(network: Network) -> dict[str, str]:
    return {name: str(kind) for name, kind in _types(network).items()}


class _PassingError(Exception):
    """A segment that the next run is to try again leaves no file."""


class _Clocked:
    """Rows that are written, and the time that takes."""

    def __init__(self, done: Done, rows: Rows) -> None:
        self.done, self.rows = done, rows

    def add(self, row: dict[str, Any]) -> None:
        """Add a row."""
        start = perf_counter()
        self.rows.add(row)
        self.done.rows += 1
        self.done.seconds["writing"] += perf_counter() - start


def _timed(items: Iterable[Any], seconds: dict[str, float], name: str) -> Iterator[Any]:
    """The items, and the time that it takes to make them."""
    iterator = iter(items)
    while True:
        start = perf_counter()
        item = next(iterator, None)
        seconds[name] += perf_counter() - start
        if item is None:
            return
        yield item


def _row(segment: int, footage: Footage, scene: Scene, result: Result) -> dict[str, Any]:
    """The columns that every archive has."""
    first = result.reason in ("first frame", "requested")
    begins = "scene cut" if scene.number else "segment"
    return {
        "video": footage.video,
        "segment": segment,
        "frame": result.number,
        **time_values(result.time),
        "kind": result.kind,
        "reason": begins if first else result.reason,
        "scene": scene.number,
        "tokens": result.tokens,
        "estimated_error": result.estimate,
    }


def write_problem(problem: Problem, path: Path) -> None:
    """Write a problem to a file that appears whole."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_text(json.dumps(asdict(problem)))
        os.replace(part, path)
