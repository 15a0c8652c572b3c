"""The work of `eventful run`: clips through a model, into a video, a plot and a report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress

import eventful
from eventful import FramePolicy, Policy
from eventful.cli.charts import plot
from eventful.cli.checks import Checks
from eventful.cli.choices import Gates, named_blocks
from eventful.cli.clips import Clip
from eventful.cli.output import check_folder, progress_bar, written_whole
from eventful.cli.panels import Overlay
from eventful.cli.players import Played, Player, model_of
from eventful.cli.report import caption, doing, figures
from eventful.cli.session import Session
from eventful.pretrained import Extras
from eventful.provenance import machine, write_json
from eventful.video import Frame, Reader, Writer
from eventful.video.writer import TICK

LEAST = 12
FILES = ("overlay.mp4", "summary.png", "report.json")
SLOW, SHORT = Fraction(1, 4), 10  # clips shorter than so many seconds are shown at this speed


@dataclass(frozen=True)
class Settings:
    """The options of the command.

    Attributes:
        clips: What to run.
        seconds: Time for all clips together, after which they end early, though not before
            `LEAST` frames of each; None for no limit.
    """

    clips: Sequence[Clip]
    model: str
    weights: Path | None
    policy: FramePolicy | Policy
    gates: Gates
    size: int | None
    square: bool
    out: Path
    check_every: int | None
    scene_cuts: bool
    seconds: float | None
    task: str | None = None
    extras: Extras = field(default_factory=Extras)
    blocks: Sequence[str] = ()


def run(settings: Settings, console: Console) -> dict[str, Any]:
    """Do the whole job; see `eventful run --help`.

    Nothing is written before the first video has been opened and the model built and converted.

    Returns:
        The report, as in report.json.

    Raises:
        ValueError, OSError, RuntimeError: As clips and models raise. What was done by then has been
            written.
    """
    job = _Job(settings, console)
    interrupted = job.run()
    report: dict[str, Any] = {
        "eventful": eventful.__version__,
        "model": settings.model,
        "policy": str(settings.policy),
        "clips": job.reports,
        "seconds": job.seconds,
        "interrupted": interrupted,
        "failure": None if job.failure is None else str(job.failure),
        "machine": machine(),
    }
    names = FILES if any(session.rows for session in job.sessions) else FILES[-1:]
    report["files"] = {name: str(settings.out / name) for name in names}
    write_json(report, settings.out / "report.json")
    if job.failure is not None:
        raise job.failure
    return report


class _Job:
    """One pass over all clips."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self.settings, self.console = settings, console
        self.started = time.perf_counter()
        self.model = model_of(
            settings.model,
            settings.weights,
            settings.size,
            settings.square,
            settings.task,
            settings.extras,
            named_blocks(settings.blocks),
        )
        check_folder(settings.out)
        self.readers = [self.model.open(clip.path) for clip in settings.clips]
        self.sessions: list[Session] = []
        self.stopped: list[str] = []
        self.seconds = 0.0
        self.writer: Writer | None = None
        self.failure: Exception | None = None
        self.reshaped: Counter[str] = Counter()
        self._shown = Fraction(0)  # time in the overlay

    def run(self) -> bool:
        """Process all clips and write the pictures; True if Ctrl-C ended it.

        What fails after the first frame is kept in `failure`, to be raised when all is written.
        """
        interrupted = False
        with ExitStack() as stack:
            progress = stack.enter_context(progress_bar(self.console))
            task = progress.add_task("opening", total=None)
            try:
                self._clips(progress, stack)
            except KeyboardInterrupt:
                interrupted = True
            except Exception as error:
                if not any(session.rows for session in self.sessions):
                    raise
                self.failure = error
            progress.update(task, description="writing")
        for clip, reader in zip(self.settings.clips, self.readers, strict=True):
            reader.close()
            if reader.damage:
                self._warn(f"{clip.path.name}: {reader.damage}")
        for name, count in self.reshaped.items():
            self._warn(f"{name}: frames of another aspect than the first, stretched to it: {count}")
        done = [
            (clip.title, session.rows)
            for clip, session in zip(self.settings.clips, self.sessions, strict=False)
            if session.rows
        ]
        if not done:
            self._clear()
        else:
            with written_whole(self.settings.out / "summary.png") as path:
                plot(dict(done), self.sessions[0].target, path)
        self.seconds = time.perf_counter() - self.started
        return interrupted

    def _warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", style="yellow", markup=False)

    def _clips(self, progress: Progress, stack: ExitStack) -> None:
        """Run clip after clip into one overlay."""
        settings, (task,) = self.settings, progress.task_ids
        totals = [c.total(r) for c, r in zip(settings.clips, self.readers, strict=True)]
        known = [total for total in totals if total is not None]
        progress.update(task, total=sum(known) if len(known) == len(totals) else None)
        for clip, reader, total in zip(settings.clips, self.readers, totals, strict=True):
            progress.update(task, description=f"{clip.title}: building the model")
            player = self.model.player(reader)
            checks = Checks(settings.check_every or 10, total)
            try:
                cuts, gates = settings.scene_cuts, settings.gates
                session = Session(player, settings.policy, gates, cuts, checks)
                self.sessions.append(session)
                self.stopped.append("")
                self._clip(clip, reader, session, progress, stack)
            finally:
                player.close()

    def _clear(self) -> None:
        """Make the folder, and clear away what an earlier run has written."""
        self.settings.out.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (self.settings.out / name).unlink(missing_ok=True)

    def _start(self, stack: ExitStack) -> Writer:
        """Begin the overlay, once the first frame has shown that all fits together."""
        self._clear()
        self.overlay = Overlay([self._aspect(clip) for clip in self.settings.clips])
        path = stack.enter_context(written_whole(self.settings.out / "overlay.mp4"))
        return stack.enter_context(Writer(path, self.readers[0].rate))

    def _clip(
        self,
        clip: Clip,
        reader: Reader,
        session: Session,
        progress: Progress,
        stack: ExitStack,
    ) -> None:
        (task,), end = progress.task_ids, self._end()
        total = clip.total(reader)
        speed = SLOW if total is not None and total < SHORT * reader.rate else Fraction(1)
        pictures = _Pictures(session.player)
        progress.update(task, description=f"{clip.title}: measuring what frames cost")
        begin, at = self._shown, Fraction(0)
        for given, at in clip.frames(reader):
            frame = fitted(reader, given)
            if frame is not given:
                self.reshaped[clip.path.name] += 1
            prepared = session.player.prepare(frame)
            played = session.step(prepared, float(at))
            row = session.rows[-1]
            self.writer = self.writer or self._start(stack)
            shown = session.player.input(prepared, frame)
            image = self._draw(clip, shown, session, pictures, played)
            self._shown = max(begin + at / speed, self._shown + (TICK if self.writer.frames else 0))
            self.writer.write(image, self._shown)
            checked = ", dense model beside it" if row.dense_milliseconds else ""
            text = f"{clip.title}: frame {row.frame}, {doing(row)}{checked}"
            progress.update(task, advance=1, description=text)
            if time.perf_counter() > end and len(session.rows) >= LEAST:
                self.stopped[-1] = f"ended early of {total} frames, to be done in time"
                break
        self._shown += 1 / (reader.rate * speed)

    def _aspect(self, clip: Clip) -> float:
        return self.sessions[-1].player.aspect(clip.path)

    def _end(self) -> float:
        """When the clip that begins now has to end: each gets an equal part of the time left."""
        if self.settings.seconds is None:
            return float("inf")
        now = time.perf_counter()
        left = self.started + self.settings.seconds - now
        return now + left / (len(self.settings.clips) - len(self.sessions) + 1)

    def _draw(
        self, clip: Clip, shown: np.ndarray, session: Session, pictures: _Pictures, played: Played
    ) -> np.ndarray:
        row = session.rows[-1]
        assert session.dense is not None
        number, dense = session.dense
        age = row.frame - number
        old = "this frame" if not age else f"{age} frame{'s' * (age > 1)} old"
        titles = (
            f"input: {clip.title}",
            f"dense model's {session.player.title}: {old}",
            f"eventful {session.player.title}",
        )
        return self.overlay.draw(
            shown,
            pictures.dense(number, dense),
            pictures.of(played),
            session.player.computed,
            row.kind,
            titles,
            caption(session),
            self._aspect(clip),
        )

    @property
    def reports(self) -> list[dict[str, Any]]:
        """What is said of each clip that was begun."""
        return [
            {
                "video": clip.path.name,
                "camera": clip.camera,
                "first": clip.first,
                "size": [reader.height, reader.width],
                "stopped": stopped,
                "damage": reader.damage,
                **figures(session),
            }
            for clip, reader, session, stopped in zip(
                self.settings.clips, self.readers, self.sessions, self.stopped, strict=False
            )
        ]


class _Pictures:
    """Draws results; a dense one that stays is drawn once."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self._dense: tuple[int, np.ndarray] | None = None

    @torch.inference_mode()
    def of(self, played: Played) -> np.ndarray:
        """An RGB picture."""
        return self._player.picture(played)

    def dense(self, number: int, played: Played) -> np.ndarray:
        """The picture of the dense result of a frame."""
        if self._dense is None or self._dense[0] != number:
            self._dense = number, self.of(played)
        return self._dense[1]


def fitted(reader: Reader, frame: Frame) -> Frame:
    """The frame in the shape of the first, which folders of images may not all have."""
    shape = reader.width, reader.height
    if frame.pixels.shape[1::-1] == shape:
        return frame
    pixels = Image.fromarray(frame.pixels).resize(shape, Image.Resampling.BICUBIC)
    return Frame(np.array(pixels), frame.index, frame.time)
