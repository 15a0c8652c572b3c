"""The driver: looks videos through, plans segments, has them computed, says what came of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, final

from eventful.archive.engines import Call, Engine, Lost, engine_named
from eventful.archive.footage import Footage, Looked
from eventful.archive.problems import Problem
from eventful.archive.settings import Settings
from eventful.archive.sources import Source, find
from eventful.archive.store import Store
from eventful.archive.work import Done, Job, Prepared, write_problem
from eventful.outputs.networks import Network

SAVED = 5.0  # seconds between two notes in the manifest of how much is done


@dataclass
class Report:
    """What a run has done.

    Attributes:
        out: The folder.
        videos: Videos in the archive.
        segments: Segments that they have.
        there: Of these, done before this run.
        rows: Rows written by this run.
        problems: What is wrong with videos, whichever run found it.
        kinds: Frames of each kind, of this run.
        operations: Multiply-accumulates used by this run.
        dense_operations: What the dense model would have used.
        seconds: Time of all workers by what it went into, and "wall" of the run.
    """

    out: Path
    videos: int = 0
    segments: int = 0
    there: int = 0
    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    operations: int = 0
    dense_operations: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    done: int = 0

    def add(self, done: Done) -> None:
        """Enter a segment."""
        if done.problem is not None:
            self.problems.append(done.problem)
        self.done += done.problem is None or not done.problem.passing
        self.rows += done.rows
        self.kinds += done.kinds
        for name, value in done.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value
        self.operations += done.operations
        self.dense_operations += done.dense_operations


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        doing: "looking through videos", "preparing" or "computing".
        done: How many of them.
        total: Of how many.
        rows: Rows written so far.
    """

    doing: str
    done: int
    total: int
    rows: int = 0


def run(
    sources: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    build: Callable[[int, int], Network],
    *,
    model: str = "",
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    **settings: Any,
) -> Report:
    """Run a network over many videos, into Parquet files with a row a frame.

    What is in the folder already is not computed again: a run that was killed, or that met a full
    disk, goes on where it ended, and new videos are added to an archive by naming them too. Rows do
    not depend on how many workers there are, or on the engine.

    Call it under `if __name__ == "__main__":` in a script, since workers import that.

    Args:
        sources: Files, folders, globs, CSV or Parquet lists, URLs; see `eventful.archive.find`.
        out: The folder to write to; with Ray, one that every node sees.
        build: Makes the network for frames of a height and width. Workers call it: a function of a
            module, or a `functools.partial` of one.
        model: What to call it in manifest and files; by default the name of `build`.
        engine: "local" (processes of this machine) or "ray".
        workers: How many; by default as the processors give threads for.
        address: Of a Ray cluster.
        progress: Called as the run comes on.
        **settings: More of `eventful.archive.Settings`: `policy`, `size`, `patch`, `square`,
            `segment`, `scene_cuts`, `lookahead`, `threads`, `runtime`, `outputs`.

    Raises:
        FileNotFoundError: A source is not there.
        ValueError: The settings do not fit each other, the model, or what the folder holds.
        OutputError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> from eventful import archive
        >>> from eventful.models import demo_clip
        >>> options = {"policy": "skip:25", "size": 70, "segment": 125, "workers": 1}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = archive.run([demo_clip()], folder, archive.demo_network, **options)
        >>> report.segments, report.rows, report.problems
        (2, 250, [])
    """
    named = getattr(build, "func", build)
    name = model or f"{named.__module__}.{named.__qualname__}"
    chosen = Settings(build, name, **settings)
    found = find(sources)
    with (
        Store(Path(out), chosen.identity()) as store,
        engine_named(engine, chosen, workers, address) as running,
    ):
        return _Run(store, chosen, running, progress).all(found)


@final
class _Run:
    """One pass over all videos."""

    def __init__(
        self, store: Store, settings: Settings, engine: Engine, progress: Callable[[Progress], None]
    ) -> None:
        self._store, self._settings, self._engine = store, settings, engine
        self._progress = progress
        self._report = Report(store.folder)
        self._saved = perf_counter()

    def all(self, sources: list[Source]) -> Report:
        """Look through, prepare, compute, and write what came of it."""
        start, report = perf_counter(), self._report
        try:
            videos = self._look(sources)
            prepared = self._prepare(videos)
            self._compute(videos, prepared)
        finally:
            report.problems = self._store.write_problems(report.problems)
            report.seconds["wall"] = perf_counter() - start
            self._note(complete=report.segments > 0 and report.done == report.segments)
        return report

    def _look(self, sources: list[Source]) -> dict[str, Footage]:
        """All videos of the archive, those that are new to it looked through."""
        videos = self._store.videos()
        new = [source for source in sources if source.video not in videos]
        for source in sources:
            there = videos.get(source.video)
            if there is not None and there.place != source.place:
                raise ValueError(
                    f"the archive has a video {source.video!r} already, from {there.place}; give "
                    f"{source.place} another id"
                )
        order = {source.video: number for number, source in enumerate(new)}
        looked: dict[str, Footage] = {}
        calls = (Call("look", source) for source in new)
        for count, (call, found) in enumerate(self._engine.run(calls), start=1):
            video = call.argument.video
            if isinstance(found, Looked):
                looked[video] = found.footage
                if found.problem is not None:  # the video will not be looked through again
                    write_problem(found.problem, self._store.problem(video))
            else:
                lost = isinstance(found, Lost)
                problem = Problem(video, "lost", found.reason) if lost else found
                self._report.problems.append(problem)
            self._progress(Progress("looking through videos", count, len(new)))
        videos |= dict(sorted(looked.items(), key=lambda item: order[item[0]]))
        if looked:
            self._store.write_videos(videos.values())
        self._report.videos = len(videos)
        return videos

    def _prepare(self, videos: dict[str, Footage]) -> dict[tuple[int, int], Prepared]:
        """What segments of each shape of frames share, found once and kept in the manifest."""
        prepared = self._store.prepared()
        shapes = dict.fromkeys((v.height, v.width) for v in videos.values())
        new = [shape for shape in shapes if shape not in prepared]
        calls = (Call("prepare", shape) for shape in new)
        self._progress(Progress("preparing", 0, len(new)))
        for count, (call, found) in enumerate(self._engine.run(calls), start=1):
            if isinstance(found, Lost):
                raise RuntimeError(
                    f"frames of {call.argument} could not be prepared: {found.reason}"
                )
            prepared[call.argument] = found
            self._store.prepare(call.argument, found)
            self._progress(Progress("preparing", count, len(new)))
        return prepared

    def _compute(
        self, videos: dict[str, Footage], prepared: dict[tuple[int, int], Prepared]
    ) -> None:
        """Compute the segments that are not done."""
        report = self._report
        jobs = [*self._jobs(videos, prepared)]
        left = [job for job in jobs if not job.out.exists()]
        report.segments, report.there = len(jobs), len(jobs) - len(left)
        report.done = report.there
        self._progress(Progress("computing", report.there, report.segments))
        for call, found in self._engine.run(Call("compute", job) for job in left):
            job = call.argument
            done = _done(job, found)
            if done.problem is None and not job.out.exists():
                raise ValueError(
                    f"a worker wrote {job.out}, which is not to be seen here; with Ray, write to a "
                    f"folder that every node sees"
                )
            report.add(done)
            self._progress(Progress("computing", report.done, report.segments, report.rows))
            if perf_counter() - self._saved > SAVED:
                self._note(complete=False)

    def _jobs(
        self, videos: dict[str, Footage], prepared: dict[tuple[int, int], Prepared]
    ) -> Iterator[Job]:
        for video in videos.values():
            for number, span in enumerate(video.spans(self._settings.segment)):
                yield Job(
                    video,
                    number,
                    span,
                    prepared[video.height, video.width],
                    self._store.segment(video.video, number).absolute(),
                    self._store.problem(video.video, number).absolute(),
                )

    def _note(self, complete: bool) -> None:
        report = self._report
        self._saved = perf_counter()
        self._store.save(
            complete=complete,
            videos=report.videos,
            segments={"planned": report.segments, "done": report.done},
        )


def _done(job: Job, found: Any) -> Done:
    """What a call for a segment came to, if only that its workers died."""
    if not isinstance(found, Lost):
        return found
    problem = Problem(job.footage.video, "lost", found.reason, job.number)
    return Done(job.footage.video, job.number, problem=problem)
